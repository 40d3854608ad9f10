//! How far ahead of the present stored times may be.

use std::time::Duration;

use super::{ATTEMPT_TIMEOUT_MAX_MS, EngineOptions, RECORD_MARGIN, WAIT_MARGIN};

/// How far ahead of the present a stored time may be. If it is further ahead, the clock has been set back since.
#[derive(Clone, Copy, Debug)]
pub struct TimeBounds {
    /// The next attempt of a delivery.
    pub wait: Duration,
    /// The end of a lease of any node, whatever its options.
    pub lease: Duration,
}

impl EngineOptions {
    /// How far ahead stored times may be.
    #[must_use]
    pub fn bounds(&self) -> TimeBounds {
        TimeBounds {
            wait: self.retry_policy().wait_max(),
            lease: Duration::from_millis(ATTEMPT_TIMEOUT_MAX_MS) + RECORD_MARGIN + WAIT_MARGIN,
        }
    }
}
