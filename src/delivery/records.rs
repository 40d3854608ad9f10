//! The attempts that have ended and wait for their record. Their leases are renewed for as long as that takes, so that
//! nobody makes them again: the receiver has the event.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{domain::id::LeaseToken, store::queue::lease::Lease};

/// The leases of these attempts, each with the time at which the attempt ended, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Records {
    waiting: Mutex<HashMap<LeaseToken, (Lease, Duration)>>,
}

/// An attempt that waits for its record, until this is dropped.
pub(super) struct Kept<'a> {
    records: &'a Records,
    token: LeaseToken,
}

impl Records {
    fn waiting(&self) -> MutexGuard<'_, HashMap<LeaseToken, (Lease, Duration)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the lease of an attempt that has ended `at`.
    pub(super) fn keep(&self, lease: &Lease, at: Duration) -> Kept<'_> {
        self.waiting().insert(lease.token, (lease.clone(), at));
        Kept {
            records: self,
            token: lease.token,
        }
    }

    /// The leases of those that have waited since then, or longer.
    pub(super) fn waiting_since(&self, then: Duration) -> Vec<Lease> {
        let waiting = self.waiting();
        let late = waiting.values().filter(|(_, at)| *at <= then);
        late.map(|(lease, _)| lease.clone()).collect()
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.records.waiting().remove(&self.token);
    }
}
