//! Rate limits and monthly quotas of organizations, and the headers that tell of them; and permits that organizations share
//! (see [`fairness`](crate::domain::fairness)): for requests under way, and for attempts that a request makes.
//!
//! The **rate** is a token bucket (GCRA) an organization, kept in the memory of this node: each node grants the whole rate,
//! and a restart fills the bucket. The **quota** is counted in the database, for all nodes together. A write reserves its
//! place before it begins and gives it back when it is refused, so that writes at once never overshoot the quota; a crash
//! in between can only count one write too many. An organization without a quota costs no statement at all.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::Clock as _,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ApiState, problem::Problem};
use crate::{
    clock::Clock,
    domain::{fairness::Shares, id::OrganizationId, limits::Limits, timestamp::Timestamp},
    store::{Database, StoreError, organizations, quota},
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

/// How long limits that were read are believed: a change takes effect on every node within this time.
const BELIEVED: Duration = Duration::from_secs(3);

/// How long it takes an empty bucket to fill. An organization that was silent for so long can be forgotten.
const FILLED: Duration = Duration::from_mins(1);

/// Below so many organizations none is forgotten.
const SWEEP_MIN: usize = 1024;

/// Who has a permit: an organization, or platform tokens as long as they speak for none.
type Party = Option<OrganizationId>;

/// Permits that organizations share.
#[derive(Debug)]
pub struct Permits(Mutex<Shares<Party>>);

impl Permits {
    /// So many that any one may have, and a reserve for those who have less than their fair share.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Mutex::new(Shares::new(max)))
    }

    /// Takes a permit; refuses where the organization has its fair share, and all others are taken.
    pub(super) fn take(self: &Arc<Self>, party: Party) -> Result<Permit, Problem> {
        if !self.lock().take(party) {
            return Err(Problem::overloaded());
        }
        Ok(Permit {
            permits: Arc::clone(self),
            party,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shares<Party>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit that was taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    party: Party,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.lock().give_back(self.party);
    }
}

/// What a request holds while it is under way: a place in the entrance until its caller is known, a permit of the caller's
/// organization from then on; nothing once it is refused.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Mutex<Option<Held>>>);

#[derive(Debug)]
enum Held {
    #[expect(dead_code, reason = "held until it is dropped")]
    Entrance(OwnedSemaphorePermit),
    Permit(Permit),
}

impl Place {
    /// A place in the entrance; `None` if all are taken.
    pub(super) fn enter(entrance: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(entrance).try_acquire_owned().ok()?;
        Some(Self(Arc::new(Mutex::new(Some(Held::Entrance(permit))))))
    }

    /// The request is one of this organization.
    pub(super) fn belong_to(&self, permits: &Arc<Permits>, party: Party) -> Result<(), Problem> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*held, Some(Held::Permit(permit)) if permit.party == party) {
            // Given back first: a request has one permit, whomever it speaks for.
            *held = None;
            *held = Some(Held::Permit(permits.take(party)?));
        }
        Ok(())
    }
}

/// The clock of the buckets.
#[derive(Clone, Debug)]
struct Monotonic(Clock);

impl governor::clock::Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Monotonic, StateInformationMiddleware>;

/// What this node knows of an organization.
#[derive(Clone, Debug)]
struct Known {
    limits: Limits,
    bucket: Option<Arc<Bucket>>,
    read_at: Duration,
}

/// The limits of the organizations that were heard of lately, and their buckets.
#[derive(Debug)]
pub struct Limiter {
    clock: Monotonic,
    known: Mutex<HashMap<OrganizationId, Known>>,
}

impl Limiter {
    /// One that knows nobody yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock: Monotonic(clock),
            known: Mutex::default(),
        }
    }

    /// What holds for an organization; none where there is no such organization.
    async fn of(&self, db: &Database, org: OrganizationId) -> Result<Option<Known>, StoreError> {
        let now = self.clock.now();
        let known = self.lock().get(&org).cloned();
        if let Some(known) = known.filter(|known| now.saturating_sub(known.read_at) < BELIEVED) {
            return Ok(Some(known));
        }
        let limits = organizations::limits(db, org).await?;
        Ok(limits.map(|limits| self.learn(org, limits, now)))
    }

    /// Keeps what was read. The bucket stays as full as it is, unless its size has changed.
    fn learn(&self, org: OrganizationId, limits: Limits, now: Duration) -> Known {
        let mut known = self.lock();
        let before = known
            .get(&org)
            .filter(|before| before.limits.requests_per_minute_max == limits.requests_per_minute_max);
        let bucket = match before {
            Some(before) => before.bucket.clone(),
            None => limits.requests_per_minute_max.map(|limit| Arc::new(self.bucket(limit))),
        };
        let learned = Known {
            limits,
            bucket,
            read_at: now,
        };
        // Doubling between sweeps, so that a sweep costs each newcomer the same small share.
        if known.len() >= SWEEP_MIN && known.len() == known.capacity() {
            known.retain(|_, known| now.saturating_sub(known.read_at) < FILLED);
        }
        known.insert(org, learned.clone());
        learned
    }

    fn bucket(&self, limit: NonZeroU32) -> Bucket {
        RateLimiter::direct_with_clock(Quota::per_minute(limit), self.clock.clone()).with_middleware()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrganizationId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much is left of a limit, and until when.
#[derive(Clone, Copy, Debug)]
struct Reading {
    limit: u32,
    remaining: u32,
    reset_at: Timestamp,
}

/// What a request has used of its organization's limits: shared between the handler and `context`, which tells the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<Mutex<Readings>>);

#[derive(Debug, Default)]
struct Readings {
    rate: Option<Reading>,
    quota: Option<Reading>,
    /// Whose quota is to be told, should it not have been read by then.
    quota_of: Option<(OrganizationId, u32)>,
}

impl Meter {
    /// The meter of a request.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Counts a request against the organization's rate. False where there is no such organization.
    pub(super) async fn admit(&self, state: &ApiState, org: OrganizationId) -> Result<bool, Problem> {
        let Some(Known { limits, bucket, .. }) = state.limiter.of(&state.db, org).await? else {
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

    /// Does a write within the organization's quota. One that is refused, or fails, does not count.
    pub(super) fn write<'a, T: Send + 'a>(
        &'a self,
        state: &'a ApiState,
        work: impl Future<Output = Result<T, Problem>> + Send + 'a,
    ) -> impl Future<Output = Result<T, Problem>> + Send + 'a {
        // On the heap: a future inside a future inside a handler's future would be moved about as one large value.
        self.write_boxed(state, Box::pin(work))
    }

    async fn write_boxed<T>(
        &self,
        state: &ApiState,
        work: Pin<Box<dyn Future<Output = Result<T, Problem>> + Send + '_>>,
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
            match quota::give_back(&state.db, org, month).await {
                Ok(used) => self.read_quota(limit, used, month),
                Err(error) => tracing::warn!(%error, organization_id = %org, "a refused write counts as one"),
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

    /// Tells the client what is left.
    pub(super) async fn tell(&self, state: &ApiState, headers: &mut HeaderMap) {
        let unread = {
            let readings = self.lock();
            readings.quota_of.filter(|_| readings.quota.is_none())
        };
        if let Some((org, limit)) = unread {
            let month = state.clock.now().month_start();
            // A response without these headers is better than none.
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

/// At least one, and never too early.
fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000))
        .unwrap_or(u64::MAX)
        .max(1)
}

/// An HTTP-date (RFC 9110, section 5.6.7), which knows whole seconds: never too early.
fn http_date(at: Timestamp) -> Option<HeaderValue> {
    let seconds = whole_seconds(at.since(Timestamp::from_millis(0)));
    HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))).ok()
}
