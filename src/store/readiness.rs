//! What makes a node not ready although its database answers.

use std::time::Duration;

use super::{Database, secrets::keys::KeyFault};

/// How far this machine's clock and the database's may be apart.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Its clock and the database's differ by so much. Deliveries go on by the database's; but whatever else runs on a
    /// machine whose clock is wrong goes wrong, TLS for one.
    Clock(Duration),
    /// Its master keys do not open the signing secrets.
    Keys(KeyFault),
}

impl Database {
    /// Why this node is not ready although its database answers; `None` if it is. An SQLite server's clock is the only one
    /// there is: where it jumps, the server goes on by the time since its start.
    #[must_use]
    pub fn unready(&self) -> Option<Unready> {
        if let Some(fault) = self.key_fault() {
            return Some(Unready::Keys(fault));
        }
        let skew = Duration::from_millis(self.clock.skew_ms().unsigned_abs());
        (self.has_other_nodes() && self.clock.follows() && skew > CLOCK_SKEW_MAX).then_some(Unready::Clock(skew))
    }
}
