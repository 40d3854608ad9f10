//! What follows from an attempt: the retry policy, as one pure decision.

use std::time::Duration;

use crate::domain::{
    outcome::{Outcome, RetryAfter},
    timestamp::Timestamp,
};

/// When failed attempts are repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay after attempt 1, after attempt 2, and so on. The attempt that has no delay left is the last, so there
    /// is one more attempt than there are delays.
    pub schedule: Vec<Duration>,
    /// The most that is added to a delay, in percent of it, so that deliveries which failed together aren't all retried
    /// at the same moment.
    pub jitter_max_percent: u8,
    /// The shortest wait that a receiver's `Retry-After` can ask for.
    pub retry_after_min: Duration,
    /// The longest wait that a receiver's `Retry-After` can ask for.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    /// The schedule of Standard Webhooks: ten attempts over about 75 hours and 35 minutes.
    fn default() -> Self {
        const MINUTE_S: u64 = 60;
        const HOUR_S: u64 = 60 * MINUTE_S;
        let schedule_s = [
            5,
            5 * MINUTE_S,
            30 * MINUTE_S,
            2 * HOUR_S,
            5 * HOUR_S,
            10 * HOUR_S,
            14 * HOUR_S,
            20 * HOUR_S,
            24 * HOUR_S,
        ];
        Self {
            schedule: schedule_s.into_iter().map(Duration::from_secs).collect(),
            jitter_max_percent: 10,
            retry_after_min: Duration::from_secs(1),
            retry_after_max: Duration::from_secs(24 * HOUR_S),
        }
    }
}

impl RetryPolicy {
    /// The longest time from an attempt to the next one.
    #[must_use]
    pub fn wait_max(&self) -> Duration {
        let waits = self
            .schedule
            .iter()
            .map(|delay| delay.saturating_add(jittered(*delay, self.jitter_max_percent, 1.0)));
        waits.max().unwrap_or_default().max(self.retry_after_max)
    }
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The receiver took the event.
    Delivered,
    /// The next attempt is due at this time.
    RetryAt(Timestamp),
    /// The schedule is used up.
    Failed,
    /// The receiver is gone for good (410): the webhook is disabled, too.
    FailedAndDisable,
}

/// Decides what follows from attempt `number` (the attempts made so far, this one included), which ended at `now` with
/// `outcome`. `jitter` is a random number from 0 to 1.
#[must_use]
pub fn decide(policy: &RetryPolicy, number: u32, outcome: &Outcome, now: Timestamp, jitter: f64) -> Decision {
    if outcome.delivered() {
        return Decision::Delivered;
    }
    // The status line says it all; what happened to the body after it doesn't matter.
    if outcome.response_status == Some(GONE) {
        return Decision::FailedAndDisable;
    }
    let made_before = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(scheduled) = policy.schedule.get(made_before) else {
        return Decision::Failed;
    };
    let delay = scheduled.saturating_add(jittered(*scheduled, policy.jitter_max_percent, jitter));
    let requested = requested_wait(policy, outcome, now).unwrap_or(Duration::ZERO);
    Decision::RetryAt(now.plus(delay.max(requested)))
}

/// 410 Gone (RFC 9110, section 15.5.11).
const GONE: u16 = 410;

/// The part of `delay` that jitter adds. It is never negative: the schedule promises a minimum delay.
fn jittered(delay: Duration, max_percent: u8, jitter: f64) -> Duration {
    let share = jitter.clamp(0.0, 1.0) * f64::from(max_percent) / 100.0;
    // What isn't a duration (jitter that is not a number, an overflowing sum) adds nothing.
    Duration::try_from_secs_f64(delay.as_secs_f64() * share).unwrap_or(Duration::ZERO)
}

/// How long the receiver asked us to wait, within the policy's limits.
///
/// Applies only to the statuses that mean "temporary": 429 (RFC 6585, section 4), 503 (RFC 9110, section 15.6.4), and
/// 502 and 504, by which a gateway says so on the receiver's behalf.
fn requested_wait(policy: &RetryPolicy, outcome: &Outcome, now: Timestamp) -> Option<Duration> {
    if !matches!(outcome.response_status, Some(429 | 502 | 503 | 504)) {
        return None;
    }
    let requested = match outcome.retry_after? {
        RetryAfter::Seconds(seconds) => Duration::from_secs(seconds),
        RetryAfter::At(unix_s) => Timestamp::from_millis(unix_s.saturating_mul(1000)).since(now),
    };
    // Not `clamp`, which panics if an operator's minimum is above the maximum.
    Some(requested.max(policy.retry_after_min).min(policy.retry_after_max))
}

#[cfg(test)]
mod tests {
    use super::{Decision::*, RetryAfter::*, *};
    use crate::domain::outcome::ErrorWord;

    const NOW_S: i64 = 1_776_938_400;
    const DAY_S: u64 = 86_400;

    fn now() -> Timestamp {
        Timestamp::from_millis(NOW_S * 1000)
    }

    fn after_ms(millis: u64) -> Decision {
        RetryAt(now().plus(Duration::from_millis(millis)))
    }

    fn after_s(seconds: u64) -> Decision {
        after_ms(seconds * 1000)
    }

    fn response(status: u16, retry_after: Option<RetryAfter>) -> Outcome {
        let error = match status {
            200..=299 => None,
            300..=399 => Some(ErrorWord::Redirect),
            _ => Some(ErrorWord::ResponseStatus),
        };
        Outcome {
            response_status: Some(status),
            error,
            retry_after,
            ..Outcome::default()
        }
    }

    fn failure(error: ErrorWord) -> Outcome {
        Outcome {
            error: Some(error),
            ..Outcome::default()
        }
    }

    fn broken_off(status: u16, error: ErrorWord) -> Outcome {
        Outcome {
            error: Some(error),
            ..response(status, None)
        }
    }

    #[test]
    #[rustfmt::skip] // One case a line.
    fn every_decision_in_one_table() {
        let policy = RetryPolicy::default();
        for (number, outcome, jitter, expected) in [
            // Success, at any attempt.
            (1, response(200, None), 0.0, Delivered),
            (10, response(204, None), 1.0, Delivered),
            (11, response(299, None), 1.0, Delivered),
            // The schedule, and its end.
            (1, response(500, None), 0.0, after_s(5)),
            (2, response(500, None), 0.0, after_s(300)),
            (3, response(500, None), 0.0, after_s(1_800)),
            (4, response(500, None), 0.0, after_s(7_200)),
            (5, response(500, None), 0.0, after_s(18_000)),
            (6, response(500, None), 0.0, after_s(36_000)),
            (7, response(500, None), 0.0, after_s(50_400)),
            (8, response(500, None), 0.0, after_s(72_000)),
            (9, response(500, None), 0.0, after_s(86_400)),
            (10, response(500, None), 0.0, Failed),
            (11, response(500, None), 0.0, Failed),
            (u32::MAX, response(500, None), 0.0, Failed),
            // Attempts are counted from 1; a zero is a bug that must not end the delivery.
            (0, response(500, None), 0.0, after_s(5)),
            // Jitter adds up to a tenth, and never takes away.
            (1, response(500, None), 1.0, after_ms(5_500)),
            (2, response(500, None), 0.5, after_s(315)),
            (9, response(500, None), 1.0, after_s(95_040)),
            (1, response(500, None), -3.0, after_s(5)),
            (1, response(500, None), 7.0, after_ms(5_500)),
            (1, response(500, None), f64::NAN, after_s(5)),
            (1, response(500, None), f64::INFINITY, after_ms(5_500)),
            // Everything other than 2xx follows the schedule.
            (1, response(302, None), 0.0, after_s(5)),
            (1, response(400, None), 0.0, after_s(5)),
            (1, response(404, None), 0.0, after_s(5)),
            (1, failure(ErrorWord::Timeout), 0.0, after_s(5)),
            (10, failure(ErrorWord::Dns), 0.0, Failed),
            (1, broken_off(200, ErrorWord::ConnectionReset), 0.0, after_s(5)),
            (1, Outcome::default(), 0.0, after_s(5)),
            // Gone is gone, at any attempt.
            (1, response(410, None), 0.0, FailedAndDisable),
            (10, response(410, Some(Seconds(60))), 0.0, FailedAndDisable),
            (1, broken_off(410, ErrorWord::Timeout), 0.0, FailedAndDisable),
            // Retry-After lengthens the delay, with four statuses only.
            (1, response(429, Some(Seconds(60))), 0.0, after_s(60)),
            (1, response(502, Some(Seconds(60))), 0.0, after_s(60)),
            (1, response(503, Some(Seconds(60))), 0.0, after_s(60)),
            (1, response(504, Some(Seconds(60))), 0.0, after_s(60)),
            (1, response(500, Some(Seconds(60))), 0.0, after_s(5)),
            (1, response(301, Some(Seconds(60))), 0.0, after_s(5)),
            (1, response(404, Some(Seconds(60))), 0.0, after_s(5)),
            // It never shortens the delay, and jitter on the schedule counts.
            (2, response(503, Some(Seconds(60))), 0.0, after_s(300)),
            (1, response(503, Some(Seconds(0))), 0.0, after_s(5)),
            (1, response(503, Some(Seconds(5))), 1.0, after_ms(5_500)),
            // Its limits: from a second to a day.
            (1, response(503, Some(Seconds(DAY_S))), 0.0, after_s(DAY_S)),
            (1, response(503, Some(Seconds(DAY_S + 1))), 0.0, after_s(DAY_S)),
            (1, response(503, Some(Seconds(u64::MAX))), 0.0, after_s(DAY_S)),
            // A date.
            (1, response(503, Some(At(NOW_S + 90))), 0.0, after_s(90)),
            (1, response(503, Some(At(NOW_S - 90))), 0.0, after_s(5)),
            (1, response(503, Some(At(i64::MAX))), 0.0, after_s(DAY_S)),
            (1, response(503, Some(At(i64::MIN))), 0.0, after_s(5)),
            // It does not lengthen the schedule.
            (10, response(429, Some(Seconds(60))), 0.0, Failed),
        ] {
            assert_eq!(decide(&policy, number, &outcome, now(), jitter), expected, "{number} {outcome:?} {jitter}");
        }
    }

    #[test]
    fn an_immediate_schedule_still_keeps_the_shortest_retry_after() {
        let policy = RetryPolicy {
            schedule: vec![Duration::ZERO],
            ..RetryPolicy::default()
        };
        assert_eq!(decide(&policy, 1, &response(500, None), now(), 1.0), after_s(0));
        assert_eq!(
            decide(&policy, 1, &response(503, Some(Seconds(0))), now(), 1.0),
            after_s(1)
        );
        assert_eq!(decide(&policy, 1, &response(503, Some(At(0))), now(), 1.0), after_s(1));
    }

    #[test]
    fn an_empty_or_an_overflowing_schedule_does_not_panic() {
        let once = RetryPolicy {
            schedule: vec![],
            ..RetryPolicy::default()
        };
        assert_eq!(decide(&once, 1, &response(500, None), now(), 0.5), Failed);
        let endless = RetryPolicy {
            schedule: vec![Duration::MAX],
            ..RetryPolicy::default()
        };
        assert_eq!(
            decide(&endless, 1, &response(500, None), now(), 1.0),
            RetryAt(Timestamp::from_millis(i64::MAX))
        );
    }

    #[test]
    fn no_wait_is_longer_than_the_longest() {
        let wait_max = RetryPolicy::default().wait_max();
        assert_eq!(wait_max, Duration::from_mins(1584), "a day, and a tenth of it");
        let quick = RetryPolicy {
            schedule: vec![Duration::from_secs(5)],
            ..RetryPolicy::default()
        };
        assert_eq!(
            quick.wait_max(),
            Duration::from_secs(DAY_S),
            "the longest wait that a receiver can request"
        );
    }

    #[test]
    fn the_default_schedule_is_that_of_standard_webhooks() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.schedule.len() + 1, 10, "attempts");
        assert_eq!(
            policy.schedule.iter().sum::<Duration>(),
            Duration::from_secs(75 * 3600 + 35 * 60 + 5)
        );
    }
}
