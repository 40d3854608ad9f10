//! How many deliveries a webhook's rate lets start now.
//!
//! The algorithm is the generic cell rate algorithm of the `governor` crate. Its state is one number, which the store
//! keeps with the webhook: so the rate holds over all nodes, and over a restart.

use std::{cell::Cell, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::FakeRelativeClock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use serde::Serialize;

use crate::domain::timestamp::Timestamp;

/// How many deliveries to a webhook may start each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RateLimit(NonZeroU32);

impl RateLimit {
    /// The highest rate; a webhook that takes more needs no limit.
    pub const PER_SECOND_MAX: u32 = 1000;

    /// A rate of 1 to [`Self::PER_SECOND_MAX`] a second.
    #[must_use]
    pub fn new(per_second: u32) -> Option<Self> {
        let rate = NonZeroU32::new(per_second).map(Self);
        rate.filter(|_| per_second <= Self::PER_SECOND_MAX)
    }

    /// Deliveries a second.
    #[must_use]
    pub const fn per_second(self) -> u32 {
        self.0.get()
    }
}

/// How far ahead of the present a limiter's state can be: a second's worth may start at once, and is used up then.
pub const AHEAD_MAX: Duration = Duration::from_secs(1);

/// What a rate lets start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// How many may start now.
    pub count: u64,
    /// The limiter's state after that: nanoseconds since the Unix epoch.
    pub state: Option<i64>,
    /// When the next may start, where fewer than were asked for may start now.
    pub resume_at: Option<Timestamp>,
}

/// Asks for `wanted` starts at `now`, within `rate` (and no more than a second's worth at once), where the limiter's
/// state is `state`. One that is further ahead than it can be is of a clock that was wrong, and counts as used up now.
#[must_use]
pub fn admit(rate: RateLimit, state: Option<i64>, now: Timestamp, wanted: u64) -> Admission {
    let clock = FakeRelativeClock::default();
    let since_epoch = now.since(Timestamp::from_millis(0));
    let most = Nanos::from(since_epoch + AHEAD_MAX);
    let kept =
        Kept(Cell::new(state.map(|nanos| {
            Nanos::from(u64::try_from(nanos).unwrap_or_default()).min(most)
        })));
    // Made at the clock's zero, so that the state counts from the epoch.
    let limiter = RateLimiter::<_, _, _, NoOpMiddleware<Nanos>>::new(Quota::per_second(rate.0), kept, clock.clone());
    clock.advance(since_epoch);
    let mut count = 0;
    let mut resume_at = None;
    while count < wanted {
        match limiter.check() {
            Ok(()) => count += 1,
            Err(refused) => {
                let wait = refused.wait_time_from(Nanos::from(since_epoch));
                // Rounded up: a millisecond early would be refused again.
                resume_at = Some(now.plus(wait + Duration::from_millis(1)));
                break;
            }
        }
    }
    let state = limiter.into_state_store().0.get();
    Admission {
        count,
        state: state.map(|nanos| i64::try_from(nanos.as_u64()).unwrap_or(i64::MAX)),
        resume_at,
    }
}

/// The state of one limiter, lent to `governor` for one question.
struct Kept(Cell<Option<Nanos>>);

impl StateStore for Kept {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &Self::Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (decision, state) = decide(self.0.get())?;
        self.0.set(Some(state));
        Ok(decision)
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
    fn a_second_s_worth_starts_at_once_and_then_one_by_one() {
        let first = admit(per_second(5), None, NOW, 100);
        assert_eq!(first.count, 5);
        let resume_at = first.resume_at.unwrap();
        assert!((200..=201).contains(&resume_at.since(NOW).as_millis()), "{resume_at}");
        assert_eq!(admit(per_second(5), first.state, NOW, 1).count, 0);
        let second = admit(per_second(5), first.state, resume_at, 100);
        assert_eq!(second.count, 1);
    }

    #[test]
    fn what_was_asked_for_is_all_that_is_used() {
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
