//! How organizations share what is scarce: permits that several want at once, and turns of those who wait.
//!
//! Both are work-conserving: alone, one organization may use all of it. What it holds is never taken away; it only gets
//! nothing more while others have less.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// The part of the permits that is there besides, for those who hold less than their fair share: one organization that
/// has taken all leaves this to the others, until some of its own are free again.
const RESERVE_DIVISOR: usize = 8;

/// How many permits are kept besides `max` for those who hold less than their fair share.
#[must_use]
pub const fn reserve(max: usize) -> usize {
    max.div_ceil(RESERVE_DIVISOR)
}

/// A number of permits, as they are taken now.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Permits that anybody may take.
    pub max: usize,
    /// Permits that are taken.
    pub taken: usize,
    /// Those who have some or want some.
    pub holders: usize,
}

impl Division {
    /// Whether somebody who has so many permits may take another one: while there are any; and once all are taken, from
    /// the reserve, below the fair share.
    #[must_use]
    pub fn allows(self, held: usize) -> bool {
        let Self { max, taken, holders } = self;
        let fair_share = (max / holders.max(1)).max(1);
        taken < max || (taken < max.saturating_add(reserve(max)) && held < fair_share)
    }
}

/// Permits, and who holds how many.
#[derive(Debug)]
pub struct Shares<K> {
    max: usize,
    taken: usize,
    held: HashMap<K, usize>,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// So many permits, and their [`reserve`].
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            taken: 0,
            held: HashMap::new(),
        }
    }

    /// Takes a permit. False if there is none for this holder.
    pub fn take(&mut self, holder: K) -> bool {
        let held = self.held.get(&holder).copied();
        let division = Division {
            max: self.max,
            taken: self.taken,
            holders: self.held.len() + usize::from(held.is_none()),
        };
        let held = held.unwrap_or_default();
        let is_allowed = division.allows(held);
        if is_allowed {
            self.taken += 1;
            self.held.insert(holder, held + 1);
        }
        is_allowed
    }

    /// Gives back a permit that was taken.
    pub fn give_back(&mut self, holder: K) {
        if let Some(held) = self.held.get_mut(&holder) {
            self.taken = self.taken.saturating_sub(1);
            *held -= 1;
            if *held == 0 {
                self.held.remove(&holder);
            }
        }
    }

    /// Permits that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }
}

/// What waits, by whom it is for: each gets a turn, one thing at a time; among the things of one, the first goes first.
#[derive(Debug)]
pub struct Turns<K, T> {
    ring: VecDeque<K>,
    waiting: HashMap<K, VecDeque<T>>,
    len: usize,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self {
            ring: VecDeque::new(),
            waiting: HashMap::new(),
            len: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// Puts a thing behind the others of the same owner.
    pub fn push(&mut self, owner: K, thing: T) {
        self.len += 1;
        let waiting = self.waiting.entry(owner).or_default();
        if waiting.is_empty() {
            self.ring.push_back(owner);
        }
        waiting.push_back(thing);
    }

    /// The thing whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let owner = self.ring.pop_front()?;
        let waiting = self.waiting.get_mut(&owner)?;
        let thing = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&owner);
        } else {
            self.ring.push_back(owner);
        }
        self.len = self.len.saturating_sub(usize::from(thing.is_some()));
        thing
    }

    /// The next things in turn, at most so many.
    pub fn take(&mut self, max: usize) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.pop()).take(max)
    }

    /// How many things wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many as there are for this holder.
    fn take_all(shares: &mut Shares<char>, holder: char) -> usize {
        (0..10_000).take_while(|_| shares.take(holder)).count()
    }

    #[test]
    fn one_alone_may_have_all_and_leaves_the_reserve() {
        for max in [1, 7, 8, 64, 1024] {
            let mut shares = Shares::new(max);
            assert_eq!(take_all(&mut shares, 'a'), max, "all, and nothing of the reserve");
            assert_eq!(take_all(&mut shares, 'b'), reserve(max), "{max}");
            assert_eq!(shares.taken(), max + reserve(max), "never more than that");
        }
    }

    #[test]
    fn what_comes_free_goes_to_those_who_have_less_than_their_share() {
        let mut shares = Shares::new(64);
        assert_eq!((take_all(&mut shares, 'a'), take_all(&mut shares, 'b')), (64, 8));
        // The first gives back one after another and takes whatever it can, before the other does.
        for _ in 0..64 {
            shares.give_back('a');
            shares.take('a');
            shares.take('b');
        }
        assert_eq!((shares.held[&'a'], shares.held[&'b']), (32, 32), "a half each");
        assert_eq!(take_all(&mut shares, 'c'), 8, "the reserve is there for a third");
        shares.give_back('a');
        assert!(!shares.take('a') && !shares.take('b') && shares.take('c'));
    }

    #[test]
    fn a_holder_of_nothing_is_forgotten() {
        let mut shares = Shares::new(4);
        for holder in ['a', 'b', 'c'] {
            assert!(shares.take(holder));
            shares.give_back(holder);
            shares.give_back(holder);
        }
        assert!(shares.held.is_empty());
        assert_eq!(shares.taken(), 0);
    }

    #[test]
    fn a_single_thing_is_next_however_many_wait() {
        let mut turns = Turns::default();
        for number in 0..600 {
            turns.push('a', ('a', number));
        }
        turns.push('b', ('b', 0));
        turns.push('c', ('c', 0));
        turns.push('c', ('c', 1));
        let batch: Vec<_> = turns.take(6).collect();
        assert_eq!(batch, [('a', 0), ('b', 0), ('c', 0), ('a', 1), ('c', 1), ('a', 2)]);
        assert_eq!(turns.len(), 597);
        assert!(turns.take(1000).eq((3..600).map(|number| ('a', number))), "in order");
        assert!(turns.is_empty() && turns.waiting.is_empty() && turns.pop().is_none());
    }
}
