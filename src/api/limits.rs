//! Rate limits and monthly quotas of organizations, as this node knows them; and permits that organizations share
//! (see [`fairness`](crate::domain::fairness)): for requests under way, and for attempts that a request makes.
//!
//! The **rate** is a token bucket (GCRA) an organization, kept in the memory of this node: each node grants the whole rate,
//! and a restart fills the bucket. The **quota** is counted by the [`meter`](super::meter) of a request.

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

    /// Permits that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().taken()
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
        self.permits.lock().release(self.party);
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
pub(super) struct Known {
    pub(super) limits: Limits,
    pub(super) bucket: Option<Arc<Bucket>>,
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
    pub(super) async fn of(&self, db: &Database, org: OrganizationId) -> Result<Option<Known>, StoreError> {
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
