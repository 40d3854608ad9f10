//! Idle connections that wait for the next attempt to the same receiver.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{self, Instant};

use super::connector::Peer;

/// How many connections may be idle per receiver: as many as 25 webhooks on the same host can use at once.
const IDLE_PER_PEER_MAX: usize = 256;

/// How many connections may be idle in total: as many as attempts may be in progress, unless the operator configures
/// otherwise.
const IDLE_MAX: usize = 512;

/// How often expired connections are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Idle connections, by receiver. Clones share them.
pub(super) struct IdlePool<C>(Arc<Mutex<Idle<C>>>);

/// The contents of a pool.
struct Idle<C> {
    /// By receiver, in the order in which they were returned: the most recent one is taken first, so that superfluous
    /// ones expire.
    peers: HashMap<Arc<Peer>, VecDeque<Parked<C>>>,
    count: usize,
    /// Whether a task closes what has expired.
    is_swept: bool,
}

struct Parked<C> {
    connection: C,
    since: Instant,
    until: Instant,
}

impl<C> Default for IdlePool<C> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Idle {
            peers: HashMap::new(),
            count: 0,
            is_swept: false,
        })))
    }
}

impl<C: Send + 'static> IdlePool<C> {
    /// Takes the most recently used connection to `peer`.
    pub(super) fn take(&self, peer: &Peer) -> Option<C> {
        let now = Instant::now();
        let mut guard = lock(&self.0);
        let idle = &mut *guard;
        let parked = idle.peers.get_mut(peer)?;
        let taken = parked.pop_back()?;
        if taken.until > now {
            idle.count -= 1;
            return Some(taken.connection);
        }
        // The others may have longer, but rarely: a receiver gives them all the same time.
        let expired = std::mem::take(parked);
        idle.count -= expired.len() + 1;
        drop(guard);
        drop((taken, expired));
        None
    }

    /// Returns a connection to the pool, to idle no longer than `keep`. If there is no room, the one that has been idle
    /// longest is closed.
    pub(super) fn put(&self, peer: &Arc<Peer>, connection: C, keep: Duration) {
        let since = Instant::now();
        let parked = Parked {
            connection,
            since,
            until: since + keep,
        };
        let mut idle = lock(&self.0);
        let evicted = idle.make_room(peer);
        match idle.peers.get_mut(peer) {
            Some(others) => others.push_back(parked),
            None => {
                idle.peers.insert(Arc::clone(peer), VecDeque::from([parked]));
            }
        }
        idle.count += 1;
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
        drop(idle);
        // Closing takes a system call, which nobody else need wait for.
        drop(evicted);
    }

    /// Closes all of them, and returns how many there were.
    pub(super) fn clear(&self) -> usize {
        let mut idle = lock(&self.0);
        let all = std::mem::take(&mut idle.peers);
        let count = std::mem::take(&mut idle.count);
        drop(idle);
        drop(all);
        count
    }
}

impl<C> Clone for IdlePool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Idle<C> {
    /// Evicts a connection, if needed, so that another one to `peer` fits.
    fn make_room(&mut self, peer: &Peer) -> Option<Parked<C>> {
        let full = |parked: &VecDeque<_>| parked.len() >= IDLE_PER_PEER_MAX;
        let evicted = if let Some(parked) = self.peers.get_mut(peer).filter(|parked| full(parked)) {
            parked.pop_front()
        } else if self.count >= IDLE_MAX {
            let oldest = self
                .peers
                .values_mut()
                .filter(|parked| !parked.is_empty())
                .min_by_key(|parked| parked.front().map(|parked| parked.since));
            oldest.and_then(VecDeque::pop_front)
        } else {
            None
        };
        self.count -= usize::from(evicted.is_some());
        evicted
    }

    /// Removes what has expired.
    fn expired(&mut self, now: Instant) -> Vec<Parked<C>> {
        let mut expired = Vec::new();
        self.peers.retain(|_, parked| {
            let (gone, kept) = std::mem::take(parked)
                .into_iter()
                .partition::<VecDeque<_>, _>(|parked| parked.until <= now);
            expired.extend(gone);
            *parked = kept;
            !parked.is_empty()
        });
        self.count -= expired.len();
        expired
    }
}

/// Closes expired connections until none is left.
async fn sweep<C>(pool: Weak<Mutex<Idle<C>>>) {
    loop {
        time::sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = lock(&pool);
        let expired = idle.expired(Instant::now());
        let is_done = idle.count == 0;
        idle.is_swept = !is_done;
        drop(idle);
        drop(expired);
        if is_done {
            return;
        }
    }
}

fn lock<C>(pool: &Mutex<Idle<C>>) -> MutexGuard<'_, Idle<C>> {
    // Nothing panics while it is locked; if it did, the connections would still be sound.
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    const KEEP: Duration = Duration::from_secs(4);

    fn peer(number: usize) -> Arc<Peer> {
        let url = Url::parse(&format!("https://r{number}.example/")).unwrap();
        Arc::new(Peer::of(&url).unwrap())
    }

    fn count(pool: &IdlePool<usize>) -> usize {
        let idle = lock(&pool.0);
        let stored: usize = idle.peers.values().map(VecDeque::len).sum();
        assert_eq!(idle.count, stored);
        stored
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_was_used_last_is_taken_first() {
        let pool = IdlePool::default();
        pool.put(&peer(1), 1, KEEP);
        pool.put(&peer(1), 2, KEEP);
        pool.put(&peer(2), 3, KEEP);
        assert_eq!(pool.take(&peer(1)), Some(2));
        assert_eq!(pool.take(&peer(1)), Some(1));
        assert_eq!(pool.take(&peer(1)), None);
        assert_eq!(pool.take(&peer(3)), None);
        assert_eq!(pool.take(&peer(2)), Some(3));
        assert_eq!(count(&pool), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_scheme_and_the_port_make_another_receiver() {
        let pool = IdlePool::default();
        let of = |text: &str| Arc::new(Peer::of(&Url::parse(text).unwrap()).unwrap());
        pool.put(&of("https://a.example/one"), 1, KEEP);
        for other in [
            "http://a.example/",
            "http://a.example:443/",
            "https://a.example:444/",
            "https://b.example/",
        ] {
            assert_eq!(pool.take(&of(other)), None, "{other}");
        }
        assert_eq!(pool.take(&of("https://A.example:443/two?q")), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_no_longer_than_it_may() {
        let pool = IdlePool::default();
        pool.put(&peer(1), 1, KEEP);
        time::sleep(KEEP).await;
        assert_eq!(pool.take(&peer(1)), None);
        assert_eq!(count(&pool), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed() {
        let pool = IdlePool::default();
        pool.put(&peer(1), 1, KEEP);
        pool.put(&peer(2), 2, 2 * KEEP);
        assert_eq!(count(&pool), 2);
        time::sleep(KEEP + SWEEP_INTERVAL).await;
        assert_eq!(count(&pool), 1);
        time::sleep(KEEP).await;
        assert_eq!(count(&pool), 0);
        // And again, after the first sweeper has gone.
        time::sleep(SWEEP_INTERVAL).await;
        assert!(!lock(&pool.0).is_swept);
        pool.put(&peer(1), 3, KEEP);
        time::sleep(KEEP + SWEEP_INTERVAL).await;
        assert_eq!(count(&pool), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_receiver_and_all_receivers_have_a_bound() {
        let pool = IdlePool::default();
        for number in 0..=IDLE_PER_PEER_MAX {
            pool.put(&peer(0), number, KEEP);
        }
        assert_eq!(count(&pool), IDLE_PER_PEER_MAX);
        for number in 1..IDLE_MAX {
            time::advance(Duration::from_millis(1)).await;
            pool.put(&peer(number), number, KEEP);
            assert!(count(&pool) <= IDLE_MAX);
        }
        assert_eq!(count(&pool), IDLE_MAX);
        // Those that had been idle longest were evicted.
        let left: Vec<_> = std::iter::from_fn(|| pool.take(&peer(0))).collect();
        assert_eq!(left, [IDLE_PER_PEER_MAX]);
        assert_eq!(pool.take(&peer(1)), Some(1));
        assert_eq!(pool.clear(), IDLE_MAX - 2);
        assert_eq!(count(&pool), 0);
    }
}
