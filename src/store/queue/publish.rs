//! Publishing: an event, a delivery for each webhook that wants it and its queue entry, in one transaction.
//!
//! In the plain case the queue entry is leased to this node at once, and the delivery goes straight to the lanes when
//! the transaction has committed: nobody has to claim it. A node that dies then leaves a leased entry like any other.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sea_orm::{EntityTrait as _, FromQueryResult};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    lease::{Grant, Judgement, Lease, Leased, Message, Target},
    publish_rows,
};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        destination::Destination,
        event::{Publication, Recorded},
        event_filter::EventFilter,
        health::BREAKER_FAILURES,
        id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
        rate::RateLimit,
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        engine::Connection,
        entity::{event, webhook},
        idempotency::{self, Entered},
        once::{Keyed, Once, Publish},
        secrets,
        to_its_end::ToItsEnd,
    },
};

/// Records an event and one delivery for each enabled webhook that wants it. When this returns, all of it is durable, and
/// what this node has leased is in its lanes.
pub async fn record(
    db: &Database,
    publication: Publication,
    key: Option<Keyed<Recorded>>,
) -> Result<Once<Recorded>, StoreError> {
    let publish = Publish { publication, key };
    if let Some(shared) = &db.shared {
        return shared.publications.submit(publish).await;
    }
    // Whoever publishes may go away before the commit is answered: what is leased by then is handed over all the same.
    ToItsEnd::new(record_and_hand_over(db.clone(), publish)).await
}

async fn record_and_hand_over(db: Database, publish: Publish) -> Result<Once<Recorded>, StoreError> {
    let lease = LeaseAtOnce::of(&db);
    let inner = db.clone();
    let write = db.write_for(publish.publication.organization_id, move |tx| {
        Box::pin(async move {
            let (recorded, handed) = record_alone(&inner, tx, &publish, lease.as_ref()).await?;
            Ok::<_, StoreError>((recorded, handed, lease))
        })
    });
    let (recorded, handed, lease) = write.await?;
    handed.hand_over(&db, lease);
    Ok(recorded)
}

async fn record_alone(
    db: &Database,
    tx: &Connection<'_>,
    publish: &Publish,
    lease: Option<&LeaseAtOnce>,
) -> Result<(Once<Recorded>, Handed), StoreError> {
    let Publish { publication, key } = publish;
    let mut handed = Handed::default();
    if let Some(key) = key {
        match idempotency::enter(db, tx, &key.request, db.clock.now()).await? {
            Entered::Free => {}
            Entered::Taken(before) => return Ok((before, handed)),
        }
    }
    let recorded = if publish_rows::insert_event(tx, publication).await? {
        let subscribers = publish_rows::subscribers(tx, publication.organization_id).await?;
        let owed = publish_rows::insert_owed(db, tx, publication, subscribers.into_iter(), lease).await?;
        handed.add(db, publication, owed, lease);
        Recorded::New
    } else {
        compare(tx, publication).await?
    };
    if let Some(key) = key {
        idempotency::keep(db, tx, key, &recorded, db.clock.now()).await?;
    }
    Ok((Once::Now(recorded), handed))
}

/// Holds a publication against the event recorded under its id.
pub(super) async fn compare(tx: &Connection<'_>, publication: &Publication) -> Result<Recorded, StoreError> {
    let id = (publication.organization_id, publication.event_id.clone());
    let row = event::Entity::find_by_id(id).one(tx).await?;
    let vanished = || StoreError::Corrupt("an event vanished while it was published".to_owned());
    let row = row.ok_or_else(vanished)?;
    let same = row.event_type == publication.event_type && data(&row.payload)? == data(&publication.payload)?;
    Ok(if same {
        Recorded::Before(row.into())
    } else {
        Recorded::Conflict
    })
}

/// The `data` member of a payload. Two are the same if they hold the same values, however they are written.
fn data(payload: &[u8]) -> Result<serde_json::Value, StoreError> {
    #[derive(Deserialize)]
    struct Payload {
        data: serde_json::Value,
    }
    serde_json::from_slice::<Payload>(payload)
        .map(|payload| payload.data)
        .map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}

/// What this node leases of the deliveries that it publishes.
pub(super) struct LeaseAtOnce {
    pub(super) token: LeaseToken,
    pub(super) until: Timestamp,
    /// Webhooks whose lanes are full.
    pub(super) full: HashSet<WebhookId>,
    /// When the lanes were asked, which is before any webhook is read.
    pub(super) judged_at: Duration,
}

impl LeaseAtOnce {
    /// `None` if this node leases nothing: no server runs here, or its lanes are full.
    pub(super) fn of(db: &Database) -> Option<Self> {
        let judged_at = db.clock.monotonic();
        let room = db.hand_over.get()?.room()?;
        Some(Self {
            token: LeaseToken::new(Uuid::new_v4()),
            until: db.clock.now().plus(room.lease),
            full: room.full.into_iter().collect(),
            judged_at,
        })
    }
}

/// What a publication owes to one webhook.
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
    /// What it wants.
    pub(super) fn filter(&self) -> Result<EventFilter, StoreError> {
        webhook::read_filter(self.events.as_deref())
    }

    /// Whether the breaker is closed, and there is no rate.
    pub(super) fn is_plain(&self) -> bool {
        i64::from(self.consecutive_failures) < i64::from(BREAKER_FAILURES) && self.rate_limit.is_none()
    }

    /// The webhook as attempts need it: it is enabled, or it would not be owed anything.
    pub(super) fn judgement(&self, db: &Database) -> Judgement {
        let secret = secrets::open(db, self.organization_id, self.id, &self.secret);
        match (Destination::from_stored(&self.url), secret) {
            (Ok(url), Ok(secret)) => Judgement::Known(Arc::new(Target {
                url,
                secret,
                enabled: true,
                breaker_open: false,
                rated: false,
            })),
            _ => Judgement::Unreadable,
        }
    }
}

/// Deliveries that became this node's own, and whether others are due that are nobody's.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) leased: Vec<Leased>,
    pub(super) judgements: Vec<(WebhookId, Judgement)>,
    pub(super) is_any_due: bool,
}

impl Handed {
    /// Takes in what an event owes.
    pub(super) fn add(
        &mut self,
        db: &Database,
        publication: &Publication,
        owed: Vec<Owed>,
        lease: Option<&LeaseAtOnce>,
    ) {
        let message = Arc::new(Message {
            event_id: publication.event_id.clone(),
            event_type: publication.event_type.clone(),
            payload: publication.payload.clone(),
            traceparent: publication.traceparent,
        });
        for Owed {
            delivery_id,
            subscriber,
            is_leased,
        } in owed
        {
            let Some(lease) = lease.filter(|_| is_leased) else {
                self.is_any_due = true;
                continue;
            };
            if self.judgements.iter().all(|(webhook, _)| *webhook != subscriber.id) {
                self.judgements.push((subscriber.id, subscriber.judgement(db)));
            }
            self.leased.push(Leased {
                lease: Lease {
                    organization_id: publication.organization_id,
                    delivery_id,
                    webhook_id: subscriber.id,
                    token: lease.token,
                    number: 1,
                },
                until: lease.until,
                message: Arc::clone(&message),
                status: DeliveryStatus::Pending,
                schedule_start: 0,
                grant: Grant::Plain,
            });
        }
    }

    /// Hands over what is durable now.
    pub(super) fn hand_over(self, db: &Database, lease: Option<LeaseAtOnce>) {
        let Some(lanes) = db.hand_over.get() else { return };
        if let Some(lease) = lease.filter(|_| !self.leased.is_empty()) {
            lanes.take(self.leased, self.judgements, lease.judged_at);
        }
        if self.is_any_due {
            lanes.due();
        }
    }
}
