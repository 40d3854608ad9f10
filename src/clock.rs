//! The only place that asks what time it is, so that tests can say it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::RngExt as _;
use uuid::{ContextV7, Uuid};

use crate::domain::{event_id::EventId, timestamp::Timestamp};

/// Tells the time, and makes the ids that are ordered by it. Clones share one time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// Keeps UUIDs of one millisecond in the order of their making.
    sequence: Arc<std::sync::Mutex<ContextV7>>,
}

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The operating system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::of(Source::System {
            started: Instant::now(),
        })
    }

    /// A clock that stands still until it is [advanced](Self::advance).
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::of(Source::Manual(Arc::new(AtomicI64::new(start.as_millis()))))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            sequence: Arc::new(std::sync::Mutex::new(ContextV7::new())),
        }
    }

    /// Moves a manual clock forward; the system's clock is not ours to move.
    pub fn advance(&self, duration: Duration) {
        if let Source::Manual(millis) = &self.source {
            let step = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(step, Ordering::SeqCst);
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
        }
    }

    /// The time since some fixed instant: for measuring, since it never goes back, whatever is done to the time of day.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.source {
            Source::System { started } => started.elapsed(),
            Source::Manual(millis) => Duration::from_millis(u64::try_from(millis.load(Ordering::SeqCst)).unwrap_or(0)),
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
