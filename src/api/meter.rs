//! What a request uses of its organization's [`limits`](super::limits), and the headers that report it.
//!
//! The **quota** is counted in the database, for all nodes together. A write is counted before it starts and uncounted if
//! it is refused, so concurrent writes never exceed the quota; a crash in between counts at most one write too many. An
//! organization without a quota costs no statement.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use governor::Quota;

use super::{ApiState, limits::OrganizationLimits, problem::Problem};
use crate::{
    domain::{id::OrganizationId, timestamp::Timestamp},
    store::quota,
};

/// Names of the headers: limit, remaining, reset.
pub(super) const RATE_LIMIT: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];
/// The same of the quota.
pub(super) const QUOTA: [HeaderName; 3] = [
    HeaderName::from_static("x-quota-limit"),
    HeaderName::from_static("x-quota-remaining"),
    HeaderName::from_static("x-quota-reset"),
];

/// How much is left of a limit, and until when.
#[derive(Clone, Copy, Debug)]
struct Reading {
    limit: u32,
    remaining: u32,
    reset_at: Timestamp,
}

/// What a request has used of its organization's limits: shared between the handler and `context`, which writes the headers.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<Mutex<Readings>>);

#[derive(Debug, Default)]
struct Readings {
    rate: Option<Reading>,
    quota: Option<Reading>,
    /// Whose quota to read for the headers if the request has not read it.
    quota_of: Option<(OrganizationId, u32)>,
}

impl Meter {
    /// The meter of a request.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Counts a request against the organization's rate. False if the organization does not exist.
    pub(super) async fn admit(&self, state: &ApiState, org: OrganizationId) -> Result<bool, Problem> {
        let Some(OrganizationLimits { limits, bucket, .. }) = state.limiter.of(&state.db, org).await? else {
            return Ok(false);
        };
        self.lock().quota_of = limits.writes_per_month_max.map(|limit| (org, limit.get()));
        let (Some(bucket), Some(limit)) = (bucket, limits.requests_per_minute_max) else {
            return Ok(true);
        };
        let checked = bucket.check();
        let remaining = checked
            .as_ref()
            .map_or(0, governor::middleware::StateSnapshot::remaining_burst_capacity);
        let used = limit.get().saturating_sub(remaining);
        let filled_in = Quota::per_minute(limit).replenish_interval() * used;
        self.lock().rate = Some(Reading {
            limit: limit.get(),
            remaining,
            reset_at: state.clock.now().plus(filled_in),
        });
        match checked {
            Ok(_) => Ok(true),
            Err(not_until) => {
                let wait = not_until.wait_time_from(state.clock.monotonic());
                Err(Problem::rate_limit_exceeded(limit.get(), whole_seconds(wait)))
            }
        }
    }

    /// Whether the organization has a quota of writes.
    pub(super) fn has_quota(&self) -> bool {
        self.lock().quota_of.is_some()
    }

    /// Runs a write within the organization's quota. One that is refused, or fails, does not count.
    pub(super) fn write<'a, T: 'a>(
        &'a self,
        state: &'a ApiState,
        work: impl Future<Output = Result<T, Problem>> + 'a,
    ) -> impl Future<Output = Result<T, Problem>> + 'a {
        // Boxed: nested in a handler's future, it would be moved around as part of one large value.
        self.write_boxed(state, Box::pin(work))
    }

    async fn write_boxed<T>(
        &self,
        state: &ApiState,
        work: Pin<Box<impl Future<Output = Result<T, Problem>>>>,
    ) -> Result<T, Problem> {
        let Some((org, limit)) = self.lock().quota_of else {
            return work.await;
        };
        let now = state.clock.now();
        let month = now.month_start();
        let Some(used) = quota::reserve(&state.db, org, month, limit).await? else {
            self.read_quota(limit, limit, month);
            let wait = now.next_month_start().since(now);
            return Err(Problem::quota_exceeded(limit, whole_seconds(wait)));
        };
        self.read_quota(limit, used, month);
        let done = work.await;
        if done.is_err() {
            match quota::refund(&state.db, org, month).await {
                Ok(used) => self.read_quota(limit, used, month),
                Err(error) => {
                    tracing::warn!(exception.message = %error, kallima.organization.id = %org, "refused write still counts against the quota");
                }
            }
        }
        done
    }

    fn read_quota(&self, limit: u32, used: u32, month: Timestamp) {
        self.lock().quota = Some(Reading {
            limit,
            remaining: limit.saturating_sub(used),
            reset_at: month.next_month_start(),
        });
    }

    /// Writes the headers that say what is left.
    pub(super) async fn write_headers(&self, state: &ApiState, headers: &mut HeaderMap) {
        let unread = {
            let readings = self.lock();
            readings.quota_of.filter(|_| readings.quota.is_none())
        };
        if let Some((org, limit)) = unread {
            let month = state.clock.now().month_start();
            // Better a response without these headers than none.
            if let Ok(used) = quota::used(&state.db, org, month).await {
                self.read_quota(limit, used, month);
            }
        }
        let (rate, quota) = {
            let readings = self.lock();
            (readings.rate, readings.quota)
        };
        for (names, reading) in [(RATE_LIMIT, rate), (QUOTA, quota)] {
            let Some(Reading {
                limit,
                remaining,
                reset_at,
            }) = reading
            else {
                continue;
            };
            let [limit_name, remaining_name, reset_name] = names;
            headers.insert(limit_name, limit.into());
            headers.insert(remaining_name, remaining.into());
            headers.extend(http_date(reset_at).map(|date| (reset_name, date)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Readings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounds up, to at least one: a retry after this time is never too early.
fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000))
        .unwrap_or(u64::MAX)
        .max(1)
}

/// An HTTP-date (RFC 9110, section 5.6.7), rounded up to the whole second that it can express.
fn http_date(at: Timestamp) -> Option<HeaderValue> {
    let seconds = whole_seconds(at.since(Timestamp::from_millis(0)));
    HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))).ok()
}
