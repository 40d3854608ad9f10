//! How many deliveries a webhook's rate limit lets start now.
//!
//! The algorithm is the generic cell rate algorithm (GCRA). Its state is a single number, stored with the webhook: so
//! the limit holds across nodes and restarts.

use std::{num::NonZeroU32, time::Duration};

use serde::Serialize;

use crate::domain::timestamp::Timestamp;

/// How many deliveries to a webhook may start per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RateLimit(NonZeroU32);

impl RateLimit {
    /// The highest limit; a webhook that takes more needs none.
    pub const PER_SECOND_MAX: u32 = 1000;

    /// A limit of 1 to [`Self::PER_SECOND_MAX`] per second.
    #[must_use]
    pub fn new(per_second: u32) -> Option<Self> {
        let rate = NonZeroU32::new(per_second).map(Self);
        rate.filter(|_| per_second <= Self::PER_SECOND_MAX)
    }

    /// Deliveries per second.
    #[must_use]
    pub const fn per_second(self) -> u32 {
        self.0.get()
    }
}

/// How far ahead of the present a limiter's state can be: one second's worth may start at once, which uses up the
/// limit.
pub const AHEAD_MAX: Duration = Duration::from_secs(1);

const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// What a rate limit admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// How many may start now.
    pub count: u64,
    /// The limiter's state afterwards: nanoseconds since the Unix epoch.
    pub state: Option<i64>,
    /// When the next one may start, if fewer than requested may start now.
    pub resume_at: Option<Timestamp>,
}

/// Requests `wanted` starts at `now`, within `rate` (and no more than one second's worth at once), given the limiter's
/// `state`. A state further ahead than possible comes from a clock that was wrong, and counts as used up now.
#[must_use]
pub fn admit(rate: RateLimit, state: Option<i64>, now: Timestamp, wanted: u64) -> Admission {
    let step = NANOS_PER_SECOND / i64::from(rate.per_second());
    let nanos = now.as_millis().saturating_mul(NANOS_PER_MILLI);
    let used_up = nanos.saturating_add(NANOS_PER_SECOND);
    // The theoretical arrival time: when everything used is available again.
    let arrival = state.map_or(nanos, |state| state.clamp(nanos, used_up));
    let free = (used_up - arrival) / step;
    let count = i64::try_from(wanted).unwrap_or(i64::MAX).min(free);
    let after = arrival + count * step;
    let next_at = after + step - NANOS_PER_SECOND;
    // Rounded up: a millisecond early would be refused again.
    let next_at = Timestamp::from_millis(next_at / NANOS_PER_MILLI + i64::from(next_at % NANOS_PER_MILLI > 0));
    let count = count.unsigned_abs();
    Admission {
        count,
        state: if count == 0 {
            state.map(|state| state.min(used_up))
        } else {
            Some(after)
        },
        resume_at: (count < wanted).then_some(next_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_second(count: u32) -> RateLimit {
        RateLimit::new(count).unwrap()
    }

    const NOW: Timestamp = Timestamp::from_millis(1_776_938_400_000);

    #[test]
    fn one_second_s_worth_starts_at_once_and_then_one_by_one() {
        let first = admit(per_second(5), None, NOW, 100);
        assert_eq!(first.count, 5);
        let resume_at = first.resume_at.unwrap();
        assert!((200..=201).contains(&resume_at.since(NOW).as_millis()), "{resume_at}");
        assert_eq!(admit(per_second(5), first.state, NOW, 1).count, 0);
        let second = admit(per_second(5), first.state, resume_at, 100);
        assert_eq!(second.count, 1);
    }

    #[test]
    fn only_what_was_requested_is_used() {
        let first = admit(per_second(5), None, NOW, 2);
        assert_eq!((first.count, first.resume_at), (2, None));
        assert_eq!(admit(per_second(5), first.state, NOW, 100).count, 3);
        assert_eq!(
            admit(per_second(5), first.state, NOW, 0),
            Admission { count: 0, ..first }
        );
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let (mut state, mut started) = (None, 0);
        for millis in (0..60_000).step_by(10) {
            let now = NOW.plus(Duration::from_millis(millis));
            let admission = admit(per_second(7), state, now, 10);
            (state, started) = (admission.state, started + admission.count);
        }
        assert!((7 * 60..=7 * 60 + 7).contains(&started), "{started} in a minute");
    }

    #[test]
    fn a_clock_that_jumped_forward_and_back_stops_nothing() {
        let ahead = NOW.plus(Duration::from_hours(1));
        let used = admit(per_second(5), None, ahead, 100);
        assert_eq!(used.count, 5);
        let back = admit(per_second(5), used.state, NOW, 1);
        assert!(back.count == 0 && back.resume_at.unwrap().since(NOW) < Duration::from_secs(1));
        let second = NOW.plus(Duration::from_secs(1));
        assert_eq!(admit(per_second(5), back.state, second, 100).count, 5);
    }

    #[test]
    fn a_lower_rate_counts_at_once() {
        let before = admit(per_second(1000), None, NOW, 1000);
        let after = admit(per_second(1), before.state, NOW, 1);
        assert_eq!(after.count, 0);
    }
}
