//! Rate limits and monthly quotas of organizations, as this node knows them; and permits that organizations share
//! (see [`fairness`](crate::domain::fairness)): for requests in progress, and for attempts that requests wait for.
//!
//! The **rate** is a token bucket (GCRA) per organization, in this node's memory: each node grants the full rate, and a
//! restart refills the bucket. Every request takes from it, so it is `governor`'s, which needs no lock; the rate of a
//! webhook ([`rate`](crate::domain::rate)) is a stored number that nodes share. The **quota** is counted by the
//! [`meter`](super::meter) of a request.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as _,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::{
    clock::Clock,
    domain::{fairness::Shares, id::OrganizationId, limits::Limits},
    store::{Database, StoreError, organizations},
};

/// How long limits are cached: a change takes effect on every node within this time.
const CACHED: Duration = Duration::from_secs(3);

/// How long an empty bucket takes to fill. After that long without a request, an organization can be evicted.
const FILLED: Duration = Duration::from_mins(1);

/// No eviction below this many organizations.
const SWEEP_MIN: usize = 1024;

/// Who holds a permit: an organization, or platform tokens that act for none yet.
type Party = Option<OrganizationId>;

/// Permits that organizations share.
#[derive(Debug)]
pub struct Permits(Mutex<Shares<Party>>);

impl Permits {
    /// `max` permits that anybody may take, and a reserve for those who hold less than their fair share.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Mutex::new(Shares::new(max)))
    }

    /// How many permits are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().taken()
    }

    /// Takes a permit. Refuses if all are taken and the organization holds its fair share.
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

/// A permit, released when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    party: Party,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.lock().release(self.party);
    }
}

/// What a request holds while it is in progress: a permit of the entrance until its caller is known, then one of the
/// caller's organization; nothing once it is refused.
#[derive(Clone, Debug)]
pub(super) struct RequestPermit(Arc<Mutex<Option<Held>>>);

#[derive(Debug)]
enum Held {
    #[expect(dead_code, reason = "held until it is dropped")]
    Entrance(OwnedSemaphorePermit),
    Permit(Permit),
}

impl RequestPermit {
    /// Takes a permit of the entrance; `None` if there is none left.
    pub(super) fn enter(entrance: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(entrance).try_acquire_owned().ok()?;
        Some(Self(Arc::new(Mutex::new(Some(Held::Entrance(permit))))))
    }

    /// Exchanges the permit for one of this organization.
    pub(super) fn exchange_for(&self, permits: &Arc<Permits>, party: Party) -> Result<(), Problem> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*held, Some(Held::Permit(permit)) if permit.party == party) {
            // Released first: a request holds only one permit, whichever organization it acts for.
            *held = None;
            *held = Some(Held::Permit(permits.take(party)?));
        }
        Ok(())
    }
}

/// The clock of the buckets.
#[derive(Clone, Debug)]
pub(super) struct Monotonic(Clock);

impl governor::clock::Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

pub(super) type Bucket = RateLimiter<NotKeyed, InMemoryState, Monotonic, StateInformationMiddleware>;

/// What this node knows of an organization.
#[derive(Clone, Debug)]
pub(super) struct OrganizationLimits {
    pub(super) limits: Limits,
    pub(super) bucket: Option<Arc<Bucket>>,
    read_at: Duration,
}

/// The limits and buckets of organizations that made requests recently.
#[derive(Debug)]
pub struct Limiter {
    clock: Monotonic,
    known: Mutex<HashMap<OrganizationId, OrganizationLimits>>,
}

impl Limiter {
    /// A limiter without any organization.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock: Monotonic(clock),
            known: Mutex::default(),
        }
    }

    /// Forgets everything: limits are read again, and buckets are full.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// What applies to an organization; `None` if it does not exist.
    pub(super) async fn of(
        &self,
        db: &Database,
        org: OrganizationId,
    ) -> Result<Option<OrganizationLimits>, StoreError> {
        let now = self.clock.now();
        let known = self.lock().get(&org).cloned();
        if let Some(known) = known.filter(|known| now.saturating_sub(known.read_at) < CACHED) {
            return Ok(Some(known));
        }
        let limits = organizations::limits(db, org).await?;
        Ok(limits.map(|limits| self.learn(org, limits, now)))
    }

    /// Caches limits. The bucket keeps its level unless its size has changed.
    fn learn(&self, org: OrganizationId, limits: Limits, now: Duration) -> OrganizationLimits {
        let mut known = self.lock();
        let before = known
            .get(&org)
            .filter(|before| before.limits.requests_per_minute_max == limits.requests_per_minute_max);
        let bucket = match before {
            Some(before) => before.bucket.clone(),
            None => limits.requests_per_minute_max.map(|limit| Arc::new(self.bucket(limit))),
        };
        let learned = OrganizationLimits {
            limits,
            bucket,
            read_at: now,
        };
        // The map doubles between sweeps, so the amortized cost of a sweep is constant.
        if known.len() >= SWEEP_MIN && known.len() == known.capacity() {
            known.retain(|_, known| now.saturating_sub(known.read_at) < FILLED);
        }
        known.insert(org, learned.clone());
        learned
    }

    fn bucket(&self, limit: NonZeroU32) -> Bucket {
        RateLimiter::direct_with_clock(Quota::per_minute(limit), self.clock.clone()).with_middleware()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrganizationId, OrganizationLimits>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
