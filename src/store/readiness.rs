//! Whether a node is ready, as far as is known, without waiting for anything.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Database, engine::DatabaseEngine, secrets::keys::KeyFault};

/// How far this machine's clock and the database's may differ.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// The longest time since the database took a heartbeat's write.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

/// When the database last took a heartbeat's write.
#[derive(Debug, Default)]
pub(super) struct Confirmed(Mutex<Option<Instant>>);

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Its clock and the database's differ by this much. Deliveries continue by the database's clock; but anything else
    /// on a machine with a wrong clock goes wrong, TLS for one.
    Clock(Duration),
    /// Its master keys do not open the signing secrets.
    Keys(KeyFault),
    /// Its database has taken no write for a while.
    Database,
}

impl Database {
    /// Notes that the database has taken a heartbeat's write.
    pub fn confirm(&self) {
        *self.confirmed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_confirmed(&self) -> bool {
        if matches!(&self.engine, DatabaseEngine::Postgres(postgres) if postgres.primary.is_lost()) {
            return false;
        }
        let at = *self.confirmed.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < CONFIRMED_WITHIN)
    }

    /// Why this node is not ready; `None` if it is. An SQLite server's clock is the only one there is: if it jumps, the
    /// server continues by the time since its start.
    #[must_use]
    pub fn unready(&self) -> Option<Unready> {
        if let Some(fault) = self.key_fault() {
            return Some(Unready::Keys(fault));
        }
        if !self.is_confirmed() {
            return Some(Unready::Database);
        }
        let skew = Duration::from_millis(self.clock.skew_ms().unsigned_abs());
        (self.has_other_nodes() && self.clock.follows() && skew > CLOCK_SKEW_MAX).then_some(Unready::Clock(skew))
    }
}
