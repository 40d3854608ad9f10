//! Attempts that have ended and wait to be recorded. Their leases are renewed for as long as that takes, so that nobody
//! repeats them: the receiver has the event.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    domain::id::{DeliveryId, LeaseToken},
    store::queue::lease::Lease,
};

/// The leases of these attempts, each with the monotonic time at which its attempt ended.
#[derive(Debug, Default)]
pub(super) struct Records {
    waiting: Mutex<Leases>,
}

/// By delivery and token: the leases of one claim share a token, and a delivery may be leased again.
type Leases = HashMap<(DeliveryId, LeaseToken), (Lease, Duration)>;

/// An attempt that waits to be recorded, until this is dropped.
pub(super) struct AwaitingRecord<'a> {
    records: &'a Records,
    key: (DeliveryId, LeaseToken),
}

impl Records {
    fn waiting(&self) -> MutexGuard<'_, Leases> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lease of an attempt that ended at `at`.
    pub(super) fn hold(&self, lease: &Lease, at: Duration) -> AwaitingRecord<'_> {
        let key = (lease.delivery_id, lease.token);
        self.waiting().insert(key, (lease.clone(), at));
        AwaitingRecord { records: self, key }
    }

    /// The leases of those that have waited since `then` or longer.
    pub(super) fn waiting_since(&self, then: Duration) -> Vec<Lease> {
        let waiting = self.waiting();
        let late = waiting.values().filter(|(_, at)| *at <= then);
        late.map(|(lease, _)| lease.clone()).collect()
    }
}

impl Drop for AwaitingRecord<'_> {
    fn drop(&mut self) {
        self.records.waiting().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::id::{OrganizationId, WebhookId};

    #[test]
    fn attempts_of_one_claim_wait_each_for_its_own_record() {
        let lease = |number| Lease {
            organization_id: OrganizationId::new(Uuid::from_u128(1)),
            delivery_id: DeliveryId::new(Uuid::from_u128(number)),
            webhook_id: WebhookId::new(Uuid::from_u128(1)),
            token: LeaseToken::new(Uuid::from_u128(1)),
            number: 1,
        };
        let records = Records::default();
        let first = records.hold(&lease(1), Duration::ZERO);
        let _second = records.hold(&lease(2), Duration::ZERO);
        assert_eq!(records.waiting_since(Duration::ZERO).len(), 2);
        drop(first);
        let left = records.waiting_since(Duration::ZERO);
        assert_eq!(
            left.iter().map(|lease| lease.delivery_id).collect::<Vec<_>>(),
            [lease(2).delivery_id]
        );
    }
}
