//! How organizations share what is scarce: permits that several want at once, and turns among those who wait.
//!
//! Both are work-conserving: alone, one organization may use everything. What it holds is never taken away; it just
//! gets nothing more while others have less.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// The share of permits that is added as a reserve for holders below their fair share: after one organization has taken
/// all regular permits, the others use the reserve until it releases some.
const RESERVE_DIVISOR: usize = 8;

/// How many permits are reserved, on top of `max`, for holders below their fair share.
#[must_use]
pub const fn reserve(max: usize) -> usize {
    max.div_ceil(RESERVE_DIVISOR)
}

/// How permits are shared out at this moment.
#[derive(Clone, Copy, Debug)]
pub struct PermitUse {
    /// Permits that anybody may take.
    pub max: usize,
    /// Permits in use.
    pub taken: usize,
    /// Holders that have permits or want some.
    pub holders: usize,
}

impl PermitUse {
    /// Whether a holder of `held` permits may take another one.
    #[must_use]
    pub fn allows(self, held: usize) -> bool {
        self.left(held) > 0
    }

    /// How many more permits a holder of `held` may take: those that are left; once all are taken, from the reserve, up to
    /// its fair share.
    #[must_use]
    pub fn left(self, held: usize) -> usize {
        let Self { max, taken, holders } = self;
        let fair_share = (max / holders.max(1)).max(1);
        if taken < max {
            return max - taken;
        }
        let reserved = max.saturating_add(reserve(max)).saturating_sub(taken);
        reserved.min(fair_share.saturating_sub(held))
    }
}

/// Permits, and how many each holder has.
#[derive(Debug)]
pub struct Shares<K> {
    max: usize,
    taken: usize,
    held: HashMap<K, usize>,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// `max` permits, plus their [`reserve`].
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            taken: 0,
            held: HashMap::new(),
        }
    }

    /// Takes a permit. Returns false if there is none for this holder.
    pub fn take(&mut self, holder: K) -> bool {
        let held = self.held.get(&holder).copied();
        let permits = PermitUse {
            max: self.max,
            taken: self.taken,
            holders: self.held.len() + usize::from(held.is_none()),
        };
        let held = held.unwrap_or_default();
        let is_allowed = permits.allows(held);
        if is_allowed {
            self.taken += 1;
            self.held.insert(holder, held + 1);
        }
        is_allowed
    }

    /// Releases a permit.
    pub fn release(&mut self, holder: K) {
        if let Some(held) = self.held.get_mut(&holder) {
            self.taken = self.taken.saturating_sub(1);
            *held -= 1;
            if *held == 0 {
                self.held.remove(&holder);
            }
        }
    }

    /// Permits in use.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }
}

/// A queue that is fair between owners: they take turns, one item at a time, and each owner's items are first in, first
/// out.
#[derive(Debug)]
pub struct Turns<K, T> {
    owners: VecDeque<K>,
    waiting: HashMap<K, VecDeque<T>>,
    len: usize,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self {
            owners: VecDeque::new(),
            waiting: HashMap::new(),
            len: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// Adds an item after the others of the same owner.
    pub fn push(&mut self, owner: K, item: T) {
        self.len += 1;
        let waiting = self.waiting.entry(owner).or_default();
        if waiting.is_empty() {
            self.owners.push_back(owner);
        }
        waiting.push_back(item);
    }

    /// The next item in turn.
    pub fn pop(&mut self) -> Option<T> {
        let owner = self.owners.pop_front()?;
        let waiting = self.waiting.get_mut(&owner)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&owner);
        } else {
            self.owners.push_back(owner);
        }
        self.len = self.len.saturating_sub(usize::from(item.is_some()));
        item
    }

    /// The next items in turn, at most `max`.
    pub fn take(&mut self, max: usize) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.pop()).take(max)
    }

    /// Whose items wait, in the order of their turns.
    pub fn owners(&self) -> impl Iterator<Item = &K> {
        self.owners.iter()
    }

    /// How many items wait.
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

    /// Takes as many as this holder can get.
    fn take_all(shares: &mut Shares<char>, holder: char) -> usize {
        (0..10_000).take_while(|_| shares.take(holder)).count()
    }

    #[test]
    fn one_holder_alone_may_take_everything_but_the_reserve() {
        for max in [1, 7, 8, 64, 1024] {
            let mut shares = Shares::new(max);
            assert_eq!(take_all(&mut shares, 'a'), max, "everything but the reserve");
            assert_eq!(take_all(&mut shares, 'b'), reserve(max), "{max}");
            assert_eq!(shares.taken(), max + reserve(max), "and never more");
        }
    }

    #[test]
    fn released_permits_go_to_holders_below_their_share() {
        let mut shares = Shares::new(64);
        assert_eq!((take_all(&mut shares, 'a'), take_all(&mut shares, 'b')), (64, 8));
        // The first holder releases one permit after another and takes whatever it can before the other one does.
        for _ in 0..64 {
            shares.release('a');
            shares.take('a');
            shares.take('b');
        }
        assert_eq!((shares.held[&'a'], shares.held[&'b']), (32, 32), "a half each");
        assert_eq!(take_all(&mut shares, 'c'), 8, "the reserve is there for a third");
        shares.release('a');
        assert!(!shares.take('a') && !shares.take('b') && shares.take('c'));
    }

    #[test]
    fn a_holder_of_nothing_is_forgotten() {
        let mut shares = Shares::new(4);
        for holder in ['a', 'b', 'c'] {
            assert!(shares.take(holder));
            shares.release(holder);
            shares.release(holder);
        }
        assert!(shares.held.is_empty());
        assert_eq!(shares.taken(), 0);
    }

    #[test]
    fn a_single_item_is_next_however_many_wait() {
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
