//! The health of a webhook: what consecutive failures do to it, as pure decisions.
//!
//! ```text
//!            10 failures in a row              a probe succeeds
//! closed ─────────────────────────▶ open ─────────────────────────▶ closed
//!                                     │ a probe fails: the next one waits longer
//!                                     └──▶ open
//! ```
//! While the breaker is open, only one attempt at a time is made, the *probe*; everything else that is due waits,
//! without using up its attempts. A webhook that fails for days is also announced (`webhook.failing`) and eventually
//! disabled (`webhook.disabled`); its next success is announced, too (`webhook.recovered`).

use std::time::Duration;

use crate::domain::{delivery::DisabledReason, timestamp::Timestamp};

/// How long a webhook may fail without a success before it is disabled.
pub const FAILING_MAX: Duration = Duration::from_hours(5 * 24);

/// How long a webhook has been failing when the organization is notified, once per entry.
const NOTICES_AFTER: [Duration; 2] = [Duration::from_hours(24), Duration::from_hours(3 * 24)];

/// Failures in a row that open the breaker: as many as attempts can be in progress at once, so that a single outage
/// that breaks them all is enough.
pub const BREAKER_FAILURES: u32 = 10;

/// The shortest pause between two probes.
const PROBE_PAUSE_MIN: Duration = Duration::from_secs(5);

/// The longest pause between two probes.
pub const PROBE_PAUSE_MAX: Duration = Duration::from_mins(5);

/// The pause between two probes is the age of the outage divided by this: a receiver that comes back is noticed within
/// a tenth of the time it was away.
const PROBE_PAUSE_DIVISOR: u32 = 10;

/// The shortest time between two notices about exhausted deliveries of one webhook.
const EXHAUSTED_NOTICE_PAUSE: Duration = Duration::from_hours(1);

/// How a webhook's deliveries have gone recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Why the service disabled it, if it did.
    pub disabled_reason: Option<DisabledReason>,
    /// When the first failure since the last success happened.
    pub failing_since: Option<Timestamp>,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// No automatic attempt starts before this time.
    pub resume_at: Timestamp,
    /// How many failing notices the organization got since the last success.
    pub failing_notices: u32,
    /// Whether the organization was notified of trouble, so that it must be notified of the recovery.
    pub recovery_owed: bool,
    /// Deliveries that have been exhausted since the last notice about one.
    pub exhausted_count: u32,
    /// When the last notice about an exhausted delivery was sent.
    pub exhausted_notice_at: Option<Timestamp>,
}

/// What an attempt says about the health of its webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    /// The receiver took the event.
    Success,
    /// The attempt failed.
    Failure,
    /// The attempt failed, and the breaker is disabled.
    FailureWithoutBreaker,
    /// The receiver said that it is gone for good (410).
    Gone,
}

/// A notice to the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The webhook has been failing for a while, and will be disabled if that continues.
    Failing {
        /// The first failure since the last success.
        failing_since: Timestamp,
    },
    /// The service disabled the webhook.
    Disabled {
        /// The reason.
        reason: DisabledReason,
        /// The first failure since the last success; `None` if the 410 was the first.
        failing_since: Option<Timestamp>,
    },
    /// The webhook works again.
    Recovered,
}

impl Health {
    /// The health of a webhook without any history.
    #[must_use]
    pub const fn new(enabled: bool) -> Self {
        Self {
            enabled,
            disabled_reason: None,
            failing_since: None,
            consecutive_failures: 0,
            resume_at: Timestamp::from_millis(0),
            failing_notices: 0,
            recovery_owed: false,
            exhausted_count: 0,
            exhausted_notice_at: None,
        }
    }

    /// Whether only probes are sent.
    #[must_use]
    pub const fn breaker_open(&self) -> bool {
        self.consecutive_failures >= BREAKER_FAILURES
    }

    /// The state of the webhook in a word or two.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        if self.disabled_reason.is_some() {
            "disabled by service"
        } else if !self.enabled {
            "disabled"
        } else if self.breaker_open() {
            "breaker open"
        } else if self.failing_since.is_some() {
            "failing"
        } else {
            "ok"
        }
    }

    /// Applies the result of an attempt that ended at `now`. Returns the notice that the organization is due, if any.
    pub fn record(&mut self, signal: HealthSignal, now: Timestamp) -> Option<Notice> {
        match signal {
            HealthSignal::Success => self.succeed(),
            HealthSignal::Failure => self.fail(now, true),
            HealthSignal::FailureWithoutBreaker => self.fail(now, false),
            HealthSignal::Gone => self.disable(DisabledReason::Gone),
        }
    }

    fn succeed(&mut self) -> Option<Notice> {
        if self.breaker_open() {
            self.resume_at = Timestamp::from_millis(0);
        }
        self.failing_since = None;
        self.consecutive_failures = 0;
        self.failing_notices = 0;
        std::mem::take(&mut self.recovery_owed).then_some(Notice::Recovered)
    }

    fn fail(&mut self, now: Timestamp, has_breaker: bool) -> Option<Notice> {
        let failing_since = *self.failing_since.get_or_insert(now);
        let failing_for = now.since(failing_since);
        if has_breaker {
            self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        }
        if self.breaker_open() {
            self.resume_at = now.plus(probe_pause(failing_for));
        }
        if failing_for >= FAILING_MAX {
            return self.disable(DisabledReason::Failing);
        }
        let due = NOTICES_AFTER.iter().filter(|after| failing_for >= **after).count();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        // A webhook that the customer has disabled meanwhile slows nobody down.
        if due <= self.failing_notices || !self.enabled {
            return None;
        }
        self.failing_notices = due;
        self.recovery_owed = true;
        Some(Notice::Failing { failing_since })
    }

    fn disable(&mut self, reason: DisabledReason) -> Option<Notice> {
        if !self.enabled {
            return None;
        }
        self.enabled = false;
        self.disabled_reason = Some(reason);
        self.recovery_owed = true;
        Some(Notice::Disabled {
            reason,
            failing_since: self.failing_since,
        })
    }

    /// Counts a delivery whose last attempt failed at `now`. Returns how many did since the last notice if another one
    /// is due: at most one per hour, however many deliveries fail.
    pub fn record_exhausted(&mut self, now: Timestamp) -> Option<u32> {
        self.exhausted_count = self.exhausted_count.saturating_add(1);
        let last = self.exhausted_notice_at;
        if last.is_some_and(|last| now.since(last) < EXHAUSTED_NOTICE_PAUSE) {
            return None;
        }
        self.exhausted_notice_at = Some(now);
        Some(std::mem::take(&mut self.exhausted_count))
    }

    /// The customer enabled the webhook again, which claims that it works: all counters are reset. The success that
    /// proves it still gets its notice, and notices don't come any closer together.
    pub fn enable(&mut self) {
        *self = Self {
            recovery_owed: self.recovery_owed,
            exhausted_count: self.exhausted_count,
            exhausted_notice_at: self.exhausted_notice_at,
            ..Self::new(true)
        };
    }
}

fn probe_pause(failing_for: Duration) -> Duration {
    (failing_for / PROBE_PAUSE_DIVISOR).clamp(PROBE_PAUSE_MIN, PROBE_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(after: Duration) -> Timestamp {
        Timestamp::from_millis(1_776_938_400_000).plus(after)
    }

    fn failed(times: u32) -> Health {
        let mut health = Health::new(true);
        for _ in 0..times {
            health.record(HealthSignal::Failure, at(Duration::ZERO));
        }
        health
    }

    #[test]
    fn the_breaker_opens_after_a_run_of_failures_and_a_success_closes_it() {
        let mut health = failed(BREAKER_FAILURES - 1);
        assert!(!health.breaker_open());
        assert_eq!(health.resume_at, Timestamp::from_millis(0));
        health.record(HealthSignal::Failure, at(Duration::from_secs(1)));
        assert!(health.breaker_open());
        assert_eq!(health.resume_at, at(Duration::from_secs(1) + PROBE_PAUSE_MIN));
        health.record(HealthSignal::Success, at(Duration::from_secs(6)));
        assert_eq!(health, Health::new(true));
    }

    #[test]
    fn a_success_in_between_restarts_the_count() {
        let mut health = failed(BREAKER_FAILURES - 1);
        health.record(HealthSignal::Success, at(Duration::ZERO));
        health.record(HealthSignal::Failure, at(DAY));
        assert!(!health.breaker_open());
        assert_eq!(health.failing_since, Some(at(DAY)));
    }

    #[test]
    fn probes_are_a_tenth_of_the_outage_apart_within_bounds() {
        for (outage_s, pause_s) in [(0, 5), (49, 5), (60, 6), (600, 60), (3_000, 300), (90_000, 300)] {
            let mut health = failed(BREAKER_FAILURES);
            let now = at(Duration::from_secs(outage_s));
            health.record(HealthSignal::Failure, now);
            assert_eq!(health.resume_at, now.plus(Duration::from_secs(pause_s)), "{outage_s} s");
        }
    }

    #[test]
    fn trouble_is_announced_after_one_and_three_days_and_ends_after_five() {
        let failing_since = at(Duration::ZERO);
        let failing = Some(Notice::Failing { failing_since });
        let disabled = Some(Notice::Disabled {
            reason: DisabledReason::Failing,
            failing_since: Some(failing_since),
        });
        let minute = Duration::from_mins(1);
        let mut health = failed(1);
        for (after, notice) in [
            (DAY.saturating_sub(minute), None),
            (DAY, failing),
            (2 * DAY, None),
            (3 * DAY, failing),
            (4 * DAY, None),
            ((5 * DAY).saturating_sub(minute), None),
            (5 * DAY, disabled),
            (6 * DAY, None),
        ] {
            assert_eq!(health.record(HealthSignal::Failure, at(after)), notice, "{after:?}");
        }
        assert_eq!(health.disabled_reason, Some(DisabledReason::Failing));
        health.enable();
        assert_eq!(
            health.record(HealthSignal::Failure, at(7 * DAY)),
            None,
            "the days are counted again"
        );
        assert_eq!(
            health.record(HealthSignal::Success, at(7 * DAY)),
            Some(Notice::Recovered)
        );
        assert_eq!(health.record(HealthSignal::Success, at(7 * DAY)), None);
    }

    #[test]
    fn one_notice_replaces_those_that_could_not_be_sent() {
        let mut health = failed(1);
        assert!(health.record(HealthSignal::Failure, at(4 * DAY)).is_some());
        assert_eq!(health.record(HealthSignal::Failure, at(4 * DAY)), None);
    }

    #[test]
    fn exhausted_deliveries_are_announced_once_per_hour_with_their_number() {
        let hour = Duration::from_hours(1);
        let mut health = Health::new(true);
        assert_eq!(health.record_exhausted(at(Duration::ZERO)), Some(1));
        for minute in 1..60 {
            assert_eq!(
                health.record_exhausted(at(Duration::from_mins(minute))),
                None,
                "{minute}"
            );
        }
        health.enable();
        assert_eq!(
            health.record_exhausted(at(hour)),
            Some(60),
            "enabling it does not make them more frequent"
        );
        assert_eq!(health.record_exhausted(at(hour)), None);
        // A clock that goes back doesn't make them more frequent, either.
        assert_eq!(health.record_exhausted(at(Duration::ZERO)), None);
        assert_eq!(health.record_exhausted(at(2 * hour)), Some(3));
    }

    #[test]
    fn gone_is_final_at_once_and_announced_once() {
        let mut health = Health::new(true);
        let notice = health.record(HealthSignal::Gone, at(Duration::ZERO));
        assert_eq!(
            notice,
            Some(Notice::Disabled {
                reason: DisabledReason::Gone,
                failing_since: None
            })
        );
        assert_eq!(health.record(HealthSignal::Gone, at(Duration::ZERO)), None);
        assert!(!health.enabled);
    }
}
