//! The only module that reads the time, so that tests can set it.
//!
//! | clock | what it is | what uses it |
//! |---|---|---|
//! | [`now`](Clock::now) | the wall clock at the start, plus the time since; on PostgreSQL corrected by the database's clock | everything stored: due times, leases, rates, ids |
//! | [`real`](Clock::real) | the same if a database has corrected it, otherwise the wall clock | signatures |
//! | [`monotonic`](Clock::monotonic) | the time since the start | intervals |
//!
//! So a jump of the wall clock moves nothing that is stored, and the nodes of one database agree, whatever their own clocks
//! say. Receivers compare a signature's time with real time. The nodes agree on the database's clock; an SQLite server has
//! nothing better than the wall clock, which the operating system keeps correcting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::RngExt as _;
use uuid::{ContextV7, Uuid};

use crate::domain::{event_id::EventId, timestamp::Timestamp};

/// Gives the time, and ids that are ordered by it. Clones share one time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    correction: Arc<Correction>,
    /// Keeps UUIDs of one millisecond in the order in which they are created.
    sequence: Arc<std::sync::Mutex<ContextV7>>,
}

#[derive(Clone, Debug)]
enum Source {
    System {
        /// The time since the machine started, when this clock did.
        started: Duration,
        /// What the wall clock said then, in milliseconds since the Unix epoch.
        wall_at_start: i64,
        /// How far the clock was advanced, in milliseconds; `None` if it cannot be.
        advanced: Option<Arc<AtomicI64>>,
    },
    Manual {
        time: Arc<AtomicI64>,
        /// How far the wall clock of a node is ahead of that time, in milliseconds; `None` if they are the same.
        wall_ahead: Option<Arc<AtomicI64>>,
    },
}

/// What a clock adds to its source to agree with the database's.
#[derive(Debug, Default)]
struct Correction {
    millis: AtomicI64,
    /// Whether a database's clock has ever been read.
    is_measured: AtomicBool,
}

impl Clock {
    /// The operating system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::of_system(None)
    }

    /// The operating system's clock, except that it can be [advanced](Self::advance): for a sandbox. Signatures still use
    /// real time.
    #[must_use]
    pub fn advancing() -> Self {
        Self::of_system(Some(Arc::default()))
    }

    fn of_system(advanced: Option<Arc<AtomicI64>>) -> Self {
        Self::of(Source::System {
            started: uptime(),
            wall_at_start: wall(),
            advanced,
        })
    }

    /// A clock that stands still until it is [advanced](Self::advance). It stands for the database's clock, too.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::of(Source::Manual {
            time: Arc::new(AtomicI64::new(start.as_millis())),
            wall_ahead: None,
        })
    }

    /// The clock of a node whose wall clock is this many milliseconds ahead of this manual clock, which moves it. The two do
    /// not agree until the node's [follows](Self::follow) this one.
    #[must_use]
    pub fn of_node(&self, wall_ahead_ms: i64) -> Self {
        let Source::Manual { time, .. } = &self.source else {
            return self.clone();
        };
        let node = Self::of(Source::Manual {
            time: Arc::clone(time),
            wall_ahead: Some(Arc::new(AtomicI64::new(wall_ahead_ms))),
        });
        node.correction.millis.store(wall_ahead_ms, Ordering::SeqCst);
        node
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            correction: Arc::default(),
            sequence: Arc::new(std::sync::Mutex::new(ContextV7::new())),
        }
    }

    /// Moves a manual or an [advancing](Self::advancing) clock forward; the system's clock is not ours to move.
    pub fn advance(&self, duration: Duration) {
        let millis = match &self.source {
            Source::Manual { time, .. } => Some(time),
            Source::System { advanced, .. } => advanced.as_ref(),
        };
        if let Some(millis) = millis {
            let step = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(step, Ordering::SeqCst);
        }
    }

    /// How far the system's clock was advanced.
    fn advanced(&self) -> Duration {
        let millis = match &self.source {
            Source::System { advanced, .. } => advanced.as_ref().map_or(0, |millis| millis.load(Ordering::SeqCst)),
            Source::Manual { .. } => 0,
        };
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Moves the wall clock of a [node](Self::of_node) by this many milliseconds, ahead or back. A manual clock that belongs
    /// to no node is moved itself, like a machine's between two runs.
    pub fn jump(&self, millis: i64) {
        if let Source::Manual { time, wall_ahead } = &self.source {
            wall_ahead.as_ref().unwrap_or(time).fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// The time now. A wall clock that jumps does not move it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let uncorrected = match &self.source {
            Source::System { wall_at_start, .. } => {
                let passed = self.monotonic().as_millis();
                wall_at_start.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
            }
            Source::Manual { time, .. } => time.load(Ordering::SeqCst),
        };
        let correction = self.correction.millis.load(Ordering::SeqCst);
        Timestamp::from_millis(uncorrected.saturating_add(correction))
    }

    /// What the machine's wall clock says; it may be set at any time.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        Timestamp::from_millis(match &self.source {
            Source::System { .. } => wall(),
            Source::Manual { time, wall_ahead } => {
                let ahead = wall_ahead.as_ref().map_or(0, |ahead| ahead.load(Ordering::SeqCst));
                time.load(Ordering::SeqCst).saturating_add(ahead)
            }
        })
    }

    /// Real time, as well as this node can know it; for what others compare with their own clocks.
    #[must_use]
    pub fn real(&self) -> Timestamp {
        if self.follows() { self.now() } else { self.wall() }
    }

    /// How far the wall clock is ahead of [`now`](Self::now), in milliseconds; negative if it is behind.
    #[must_use]
    pub fn skew_ms(&self) -> i64 {
        let wall = self.wall().plus(self.advanced());
        wall.as_millis().saturating_sub(self.now().as_millis())
    }

    /// Whether this clock can follow a database's. One that a test moves is the database's.
    #[must_use]
    pub fn can_follow(&self) -> bool {
        !matches!(self.source, Source::Manual { wall_ahead: None, .. })
    }

    /// Whether a database's clock has ever moved this one.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.correction.is_measured.load(Ordering::SeqCst)
    }

    /// Follows the database's clock, which said `theirs` at some instant between `asked` and `answered` of this one.
    /// Returns by how many milliseconds this clock was moved.
    ///
    /// The first call moves it to the middle of the interval; later ones move it as little as makes them agree, so that a slow
    /// answer does not undo a better measurement.
    pub fn follow(&self, asked: Timestamp, theirs: Timestamp, answered: Timestamp) -> i64 {
        if !self.can_follow() {
            return 0;
        }
        let [asked, theirs, answered] = [asked, theirs, answered].map(Timestamp::as_millis);
        let is_first = !self.correction.is_measured.swap(true, Ordering::SeqCst);
        let nearest = if is_first {
            asked.midpoint(answered)
        } else {
            theirs.clamp(asked.min(answered), answered)
        };
        let step = theirs.saturating_sub(nearest);
        self.correction.millis.fetch_add(step, Ordering::SeqCst);
        step
    }

    /// The time since some fixed instant. It never goes back, whatever happens to the wall clock, so it is for measuring.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.source {
            Source::System { started, .. } => uptime().saturating_sub(*started) + self.advanced(),
            Source::Manual { time, .. } => {
                Duration::from_millis(u64::try_from(time.load(Ordering::SeqCst)).unwrap_or(0))
            }
        }
    }

    /// A new `UUIDv7` (RFC 9562): later ids sort after earlier ones, so newest first is an index walk.
    #[must_use]
    pub fn new_uuid(&self) -> Uuid {
        let since_epoch = Duration::from_millis(self.unix_millis());
        let sequence = self.sequence.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Uuid::new_v7(uuid::Timestamp::from_unix(
            &*sequence,
            since_epoch.as_secs(),
            since_epoch.subsec_nanos(),
        ))
    }

    /// A new id, ordered as [`new_uuid`](Self::new_uuid) says.
    #[must_use]
    pub fn new_id<T: From<Uuid>>(&self) -> T {
        self.new_uuid().into()
    }

    /// A new event id.
    #[must_use]
    pub fn new_event_id(&self) -> EventId {
        EventId::from_parts(self.unix_millis(), rand::rng().random())
    }

    fn unix_millis(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(0)
    }
}

/// What the wall clock says, in milliseconds since the Unix epoch.
fn wall() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// The time since the machine started. Unlike `Instant` on Linux, it includes the time while the machine is suspended.
#[cfg(target_os = "linux")]
fn uptime() -> Duration {
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(since_boot).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn uptime() -> Duration {
    static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    BEGAN.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_776_938_400_000);

    fn follow(node: &Clock, database: &Clock, before_ms: u64, after_ms: u64) -> i64 {
        let asked = node.now();
        database.advance(Duration::from_millis(before_ms));
        let theirs = database.now();
        database.advance(Duration::from_millis(after_ms));
        node.follow(asked, theirs, node.now())
    }

    #[test]
    fn a_node_follows_the_database_and_its_own_jumps_move_nothing() {
        let database = Clock::manual(START);
        let node = database.of_node(3_600_000);
        assert_eq!(node.real(), node.wall());
        assert_eq!(follow(&node, &database, 10, 10), -3_600_000);
        assert_eq!((node.now(), node.skew_ms()), (database.now(), 3_600_000));
        node.jump(-7_200_000);
        assert_eq!((node.now(), node.skew_ms()), (database.now(), -3_600_000));
        assert_eq!(node.real(), database.now());
        assert_eq!(
            follow(&node, &database, 0, 60_000),
            0,
            "a response that took long has no effect"
        );
        assert_eq!(node.now(), database.now());
    }

    #[test]
    fn after_the_first_time_it_moves_by_the_least_that_agrees() {
        let database = Clock::manual(START);
        let node = database.of_node(0);
        assert_eq!(
            follow(&node, &database, 0, 40),
            -20,
            "nobody knows when in between it was"
        );
        assert_eq!(
            follow(&node, &database, 5, 5),
            15,
            "it was 20 behind: at the latest when it asked"
        );
        assert_eq!(follow(&node, &database, 5, 5), 0);
        let later = node.now().plus(Duration::from_hours(1));
        assert_eq!(node.follow(node.now(), later, node.now()), 3_600_000);
    }

    #[test]
    fn a_clock_that_nothing_corrects_goes_by_the_wall_clock_at_its_start() {
        let machine = Clock::manual(START);
        let server = machine.of_node(0);
        server.jump(86_400_000);
        assert_eq!((server.now(), server.skew_ms()), (START, 86_400_000));
        assert_eq!(server.real(), server.wall(), "signatures go by the wall clock");
    }

    #[test]
    fn the_systems_clock_is_the_wall_clock_and_a_manual_one_follows_nobody() {
        assert!(Clock::system().skew_ms().abs() < 1_000);
        let manual = Clock::manual(START);
        assert_eq!(manual.follow(START, Timestamp::from_millis(0), START), 0);
        assert_eq!((manual.now(), manual.wall(), manual.real()), (START, START, START));
    }
}
