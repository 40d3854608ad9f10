//! Which deliveries a publication owes to which webhooks, and which of them this node leases at once.

use std::{sync::Arc, time::Duration};

use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::lease::{Full, Target, WebhookState};
use crate::{
    domain::{
        destination::Destination,
        event_filter::EventFilter,
        health::BREAKER_FAILURES,
        id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
        rate::RateLimit,
        timestamp::Timestamp,
    },
    store::{Database, StoreError, entity::webhook, secrets},
};

/// Which of the deliveries it publishes this node leases.
pub(super) struct LeaseAtOnce {
    pub(super) token: LeaseToken,
    pub(super) until: Timestamp,
    /// What it does not lease.
    pub(super) full: Full,
    /// When the lanes were queried, which is before any webhook is read.
    pub(super) read_at: Duration,
}

impl LeaseAtOnce {
    /// For publications of these organizations; `None` if this node leases nothing: no server runs here, or it must not
    /// work.
    pub(super) fn of(db: &Database, organizations: &[OrganizationId]) -> Option<Self> {
        let read_at = db.clock.monotonic();
        let room = db.hand_over.get()?.room(organizations)?;
        Some(Self {
            token: LeaseToken::new(Uuid::new_v4()),
            until: db.clock.now().plus(room.lease),
            full: room.full,
            read_at,
        })
    }
}

/// A delivery that a publication owes to a webhook.
pub(super) struct Owed {
    pub(super) delivery_id: DeliveryId,
    pub(super) subscriber: Subscriber,
    pub(super) is_leased: bool,
}

/// A webhook that may want an event.
#[derive(Clone, Debug, FromQueryResult)]
pub(super) struct Subscriber {
    pub(super) organization_id: OrganizationId,
    pub(super) id: WebhookId,
    pub(super) url: String,
    pub(super) secret: Vec<u8>,
    pub(super) events: Option<String>,
    pub(super) consecutive_failures: i32,
    pub(super) rate_limit: Option<RateLimit>,
}

impl From<webhook::Model> for Subscriber {
    fn from(row: webhook::Model) -> Self {
        Self {
            organization_id: row.organization_id,
            id: row.id,
            url: row.url,
            secret: row.secret,
            events: row.events,
            consecutive_failures: row.consecutive_failures,
            rate_limit: row.rate_limit,
        }
    }
}

impl Subscriber {
    /// Its filter.
    pub(super) fn filter(&self) -> Result<EventFilter, StoreError> {
        webhook::read_filter(self.events.as_deref())
    }

    /// Whether its breaker is closed and it has no rate limit.
    pub(super) fn is_plain(&self) -> bool {
        i64::from(self.consecutive_failures) < i64::from(BREAKER_FAILURES) && self.rate_limit.is_none()
    }

    /// The webhook as attempts need it: it is enabled, otherwise it would not be owed anything.
    pub(super) fn state(&self, db: &Database) -> WebhookState {
        let secret = secrets::open(db, self.organization_id, self.id, &self.secret);
        match (Destination::from_stored(&self.url), secret) {
            (Ok(url), Ok(secret)) => WebhookState::Present(Arc::new(Target {
                url,
                secret,
                enabled: true,
                breaker_open: false,
                rated: false,
            })),
            _ => WebhookState::Unreadable,
        }
    }
}
