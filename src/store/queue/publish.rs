//! Publishing: an event, a delivery for each webhook that wants it, and their queue entries, in one transaction.
//!
//! In the plain case the queue entry is leased to this node at once, and the delivery goes straight to the lanes after
//! the commit: nobody has to claim it. If the node then dies, it leaves a leased entry like any other.

use std::sync::Arc;

use sea_orm::EntityTrait as _;
use serde::Deserialize;

use super::{
    lease::{Grant, Lease, Leased, Message, WebhookState},
    owed::{LeaseAtOnce, Owed},
    publish_rows,
};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::{Publication, Recorded},
        id::WebhookId,
    },
    store::{
        Database, StoreError,
        engine::Connection,
        entity::event,
        idempotency::{self, Entered},
        once::{Keyed, Once, Publish},
        to_completion::ToCompletion,
    },
};

/// Records an event and one delivery for each enabled webhook that wants it. When this returns, all of it is durable,
/// and what this node has leased is in its lanes.
pub async fn record(
    db: &Database,
    publication: Publication,
    key: Option<Keyed<Recorded>>,
) -> Result<Once<Recorded>, StoreError> {
    let publish = Publish { publication, key };
    if let Some(shared) = &db.shared {
        return shared.publications.submit(publish).await;
    }
    // The caller may go away before the commit returns: what is leased by then is handed over all the same.
    ToCompletion::new(record_and_hand_over(db.clone(), publish)).await
}

async fn record_and_hand_over(db: Database, publish: Publish) -> Result<Once<Recorded>, StoreError> {
    let lease = LeaseAtOnce::of(&db, &[publish.publication.organization_id]);
    let inner = db.clone();
    let write = db.write_for(publish.publication.organization_id, move |tx| {
        Box::pin(async move {
            let (recorded, owed) = record_alone(&inner, tx, &publish, lease.as_ref()).await?;
            Ok::<_, StoreError>((recorded, owed, publish, lease))
        })
    });
    let (recorded, owed, publish, lease) = write.await?;
    // Not in the transaction: opening the secrets would hold up all other writes.
    let mut handed = Handed::default();
    handed.add(&db, &publish.publication, owed, lease.as_ref());
    handed.hand_over(&db, lease);
    Ok(recorded)
}

/// Records a publication. Also returns the deliveries it owes.
async fn record_alone(
    db: &Database,
    tx: &Connection<'_>,
    publish: &Publish,
    lease: Option<&LeaseAtOnce>,
) -> Result<(Once<Recorded>, Vec<Owed>), StoreError> {
    let Publish { publication, key } = publish;
    let mut owed = Vec::new();
    if let Some(key) = key {
        match idempotency::enter(db, tx, &key.request, db.clock.now()).await? {
            Entered::Free => {}
            Entered::InUse(before) => return Ok((before, owed)),
        }
    }
    let recorded = if publish_rows::insert_event(tx, publication).await? {
        let subscribers = publish_rows::subscribers(tx, publication.organization_id).await?;
        owed = publish_rows::insert_owed(db, tx, publication, subscribers.into_iter(), lease).await?;
        Recorded::New
    } else {
        compare(tx, publication).await?
    };
    if let Some(key) = key {
        idempotency::keep(db, tx, key, &recorded, db.clock.now()).await?;
    }
    Ok((Once::Now(recorded), owed))
}

/// Compares a publication with the event recorded under its id.
pub(super) async fn compare(tx: &Connection<'_>, publication: &Publication) -> Result<Recorded, StoreError> {
    let id = (publication.organization_id, publication.event_id.clone());
    let row = event::Entity::find_by_id(id).one(tx).await?;
    let vanished = || StoreError::Corrupt("an event vanished while it was published".to_owned());
    let row = row.ok_or_else(vanished)?;
    let same = row.event_type == publication.event_type && data(&row.payload)? == data(&publication.payload)?;
    Ok(if same {
        Recorded::Existing(row.into())
    } else {
        Recorded::Conflict
    })
}

/// The `data` member of a payload. Two are equal if they hold the same values, however they are written.
fn data(payload: &[u8]) -> Result<serde_json::Value, StoreError> {
    #[derive(Deserialize)]
    struct Payload {
        data: serde_json::Value,
    }
    serde_json::from_slice::<Payload>(payload)
        .map(|payload| payload.data)
        .map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}

/// Deliveries leased to this node, and whether there are due ones that are not leased to anyone.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) leased: Vec<Leased>,
    pub(super) states: Vec<(WebhookId, WebhookState)>,
    pub(super) is_any_due: bool,
}

impl Handed {
    /// Adds an event's deliveries.
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
            if self.states.iter().all(|(webhook, _)| *webhook != subscriber.id) {
                self.states.push((subscriber.id, subscriber.state(db)));
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
            lanes.take(self.leased, self.states, lease.read_at);
        }
        if self.is_any_due {
            lanes.due();
        }
    }
}
