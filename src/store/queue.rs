//! The queue: what is still to do. A delivery has a place in it from the event that owes it until it has ended, and for
//! as long as somebody retries it after that.
//!
//! A lease is a token only its holder knows, and an end after which any node may claim the delivery. Taking it counts
//! the attempt, so a node that dies in the middle of one never repeats its number.
//!
//! Who waits for locks takes them in one order: webhooks, places in the queue, deliveries. Replay and retention lock
//! deliveries that have no place, and so nobody who could wait for them.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _,
    QuerySelect as _, Set, TryInsertResult, Unchanged, UpdateMany,
    sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, Query},
};
use uuid::Uuid;

use super::{
    Database, StoreError, database,
    entity::{delivery, event, queued, webhook},
    error::readable,
    events::{self, Publication},
    secrets::open_secret,
};
use crate::domain::{
    delivery::DeliveryStatus, destination::Destination, event_id::EventId, secret::Secret, timestamp::Timestamp,
    trace::TraceParent,
};

/// A claimed delivery: the right to make attempt `number`, until the lease ends.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Whose delivery it is.
    pub organization_id: Uuid,
    /// The delivery.
    pub delivery_id: Uuid,
    /// The webhook it is owed to.
    pub webhook_id: Uuid,
    /// Known to the claimer alone: fences every later write.
    pub token: Uuid,
    /// The number of the attempt that may be made.
    pub number: u32,
}

/// What came of asking for one delivery by its id.
#[derive(Debug)]
pub enum Taken {
    /// It is leased to the caller.
    Leased(Lease),
    /// There is no such delivery.
    NotFound,
    /// An attempt of it is under way.
    UnderWay,
    /// Its webhook was deleted, so there is nowhere to send it.
    WebhookDeleted,
}

/// Leases one delivery now, whatever its state, for a manual attempt.
pub async fn take(db: &Database, org: Uuid, id: Uuid, lease: Duration, now: Timestamp) -> Result<Taken, StoreError> {
    let tx = db.begin().await?;
    let delivery = delivery::Entity::find_by_id((org, id));
    let Some(row) = delivery.clone().one(&tx).await? else {
        return Ok(Taken::NotFound);
    };
    let webhook = webhook::Entity::find_by_id((org, row.webhook_id));
    let place = queued::Entity::find_by_id((org, id));
    let (webhook, place, delivery) = if db.engine() == DbBackend::Postgres {
        (
            webhook.lock(LockType::KeyShare),
            place.lock_exclusive(),
            delivery.lock_exclusive(),
        )
    } else {
        (webhook, place, delivery)
    };
    if webhook.one(&tx).await?.is_none() {
        return Ok(Taken::WebhookDeleted);
    }
    let place = place.one(&tx).await?;
    let Some(row) = delivery.one(&tx).await? else {
        return Ok(Taken::NotFound);
    };
    let under_way = |place: &queued::Model| place.lease_token.is_some() && place.due_at > now.as_millis();
    if place.as_ref().is_some_and(under_way) {
        return Ok(Taken::UnderWay);
    }
    let (owed, begun) = place
        .as_ref()
        .map_or((false, row.attempt_count), |place| (place.owed, place.attempt_count));
    let mut leased = queued::ActiveModel {
        organization_id: Unchanged(org),
        delivery_id: Unchanged(id),
        webhook_id: Unchanged(row.webhook_id),
        owed: Unchanged(owed),
        ..Default::default()
    };
    let lease = hold(&mut leased, db, begun + 1, now.plus(lease));
    if place.is_some() {
        queued::Entity::update(leased).exec_without_returning(&tx).await?;
    } else if !insert_place(&tx, leased).await? {
        // A replay has put it in the queue since we looked, and it is attempted at once.
        return Ok(Taken::UnderWay);
    }
    if !owed {
        // A lease that is lost leaves nothing behind that would know the number.
        let begun = delivery::ActiveModel {
            organization_id: Unchanged(org),
            id: Unchanged(id),
            attempt_count: Set(begun + 1),
            ..Default::default()
        };
        delivery::Entity::update(begun).exec_without_returning(&tx).await?;
    }
    tx.commit().await?;
    Ok(Taken::Leased(lease))
}

/// Puts a delivery in the queue; false where it is there already.
async fn insert_place(tx: &impl ConnectionTrait, place: queued::ActiveModel) -> Result<bool, StoreError> {
    let insert = queued::Entity::insert(place.reset_all()).on_conflict_do_nothing();
    let inserted = insert.exec_without_returning(tx).await?;
    Ok(matches!(inserted, TryInsertResult::Inserted(1..)))
}

/// Leases a place in the queue to the caller, for attempt `number`.
fn hold(place: &mut queued::ActiveModel, db: &Database, number: i32, until: Timestamp) -> Lease {
    let token = Uuid::new_v4();
    place.attempt_count = Set(number);
    place.due_at = Set(until.as_millis());
    place.lease_token = Set(Some(token));
    place.lease_node = Set(Some(db.node));
    Lease {
        organization_id: *place.organization_id.as_ref(),
        delivery_id: *place.delivery_id.as_ref(),
        webhook_id: *place.webhook_id.as_ref(),
        token,
        number: u32::try_from(number).unwrap_or(u32::MAX),
    }
}

/// Records a test event with a delivery to this webhook alone, leased to the caller from the start.
///
/// `None` where there is no such webhook.
pub async fn record_test(
    db: &Database,
    webhook_id: Uuid,
    test: &Publication,
    delivery_id: Uuid,
    lease: Duration,
) -> Result<Option<Lease>, StoreError> {
    let tx = db.begin().await?;
    let mut query = webhook::Entity::find_by_id((test.organization_id, webhook_id));
    if db.engine() == DbBackend::Postgres {
        query = query.lock(LockType::KeyShare);
    }
    if query.one(&tx).await?.is_none() {
        return Ok(None);
    }
    events::event_row(test).insert(&tx).await?;
    events::delivery_row(test, webhook_id, delivery_id).insert(&tx).await?;
    let mut place = events::queued_row(test, webhook_id, delivery_id);
    let lease = hold(&mut place, db, 1, test.created_at.plus(lease));
    place.insert(&tx).await?;
    tx.commit().await?;
    Ok(Some(lease))
}

/// All that an attempt needs to know, as it stands when the attempt starts.
#[derive(Debug)]
pub struct Work {
    /// Where to send.
    pub url: Destination,
    /// What to sign with.
    pub secret: Secret,
    /// Whether deliveries to the webhook are attempted; manual and test attempts are made all the same.
    pub enabled: bool,
    /// The event's id.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: String,
    /// The exact bytes to sign and send.
    pub payload: Bytes,
    /// The trace that the publisher named.
    pub traceparent: Option<TraceParent>,
    /// Where the delivery stood before the attempt.
    pub status: DeliveryStatus,
    /// Attempts made before its present schedule began.
    pub schedule_start: u32,
}

/// Reads what leased attempts need, by three statements for all of them. Those whose lease is lost or whose webhook is
/// gone are left out; one that cannot be read does not stop the others.
///
/// Read when the attempts start, not when they were claimed: a rotated secret or a new URL counts at once.
pub async fn works(db: &Database, leases: Vec<Lease>) -> Result<Vec<(Lease, Result<Work, StoreError>)>, StoreError> {
    let held = Query::select()
        .columns([queued::Column::OrganizationId, queued::Column::DeliveryId])
        .from(queued::Entity)
        .and_where(held(&leases))
        .take();
    let key = [delivery::Column::OrganizationId, delivery::Column::Id].map(Expr::col);
    let rows = delivery::Entity::find()
        .filter(Expr::tuple(key).in_subquery(held))
        .all(&db.read)
        .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    // By their keys, not by a join: see `deliveries`.
    let keys = rows.iter().map(|row| (row.organization_id, row.event_id.clone()));
    let key = [event::Column::OrganizationId, event::Column::Id];
    let events = event::Entity::find()
        .filter(database::among(key, keys))
        .all(&db.read)
        .await?;
    let keys = rows.iter().map(|row| (row.organization_id, row.webhook_id));
    let key = [webhook::Column::OrganizationId, webhook::Column::Id];
    let webhooks = webhook::Entity::find()
        .filter(database::among(key, keys))
        .all(&db.read)
        .await?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
    let events: HashMap<_, _> = events.into_iter().map(Sent::of).collect();
    let webhooks: HashMap<_, _> = webhooks.into_iter().map(|row| (row.id, row)).collect();
    let works = leases.into_iter().filter_map(|lease| {
        let row = rows.remove(&lease.delivery_id)?;
        let event = events.get(&(row.organization_id, row.event_id.clone()))?;
        let work = work(db, &row, event, webhooks.get(&row.webhook_id)?);
        Some((lease, work))
    });
    Ok(works.collect())
}

/// The fence: the leases that nobody else has taken meanwhile.
pub(super) fn held<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Expr {
    let key = [
        queued::Column::OrganizationId,
        queued::Column::DeliveryId,
        queued::Column::LeaseToken,
    ];
    let leases = leases.into_iter();
    database::among(
        key,
        leases.map(|lease| (lease.organization_id, lease.delivery_id, lease.token)),
    )
}

/// An event with its payload, which all its deliveries share.
struct Sent {
    row: event::Model,
    payload: Bytes,
}

impl Sent {
    fn of(mut row: event::Model) -> ((Uuid, String), Self) {
        let payload = std::mem::take(&mut row.payload).into();
        ((row.organization_id, row.id.clone()), Self { row, payload })
    }
}

fn work(db: &Database, delivery: &delivery::Model, event: &Sent, webhook: &webhook::Model) -> Result<Work, StoreError> {
    let Sent { row: event, payload } = event;
    Ok(Work {
        url: readable(
            Destination::from_stored(&webhook.url).ok(),
            "webhooks.url",
            &webhook.url,
        )?,
        secret: open_secret(db, webhook)?,
        enabled: webhook.enabled,
        event_id: readable(EventId::parse(&event.id), "events.id", &event.id)?,
        event_type: event.event_type.clone(),
        payload: payload.clone(),
        traceparent: event.traceparent.as_deref().and_then(TraceParent::parse),
        status: readable(
            DeliveryStatus::parse(&delivery.status),
            "deliveries.status",
            &delivery.status,
        )?,
        schedule_start: u32::try_from(delivery.schedule_start).unwrap_or_default(),
    })
}

/// Gives back the leases of automatic attempts that were not made: they do not count, and any node may claim the
/// deliveries now.
pub async fn give_back(db: &Database, leases: &[Lease], now: Timestamp) -> Result<(), StoreError> {
    if leases.is_empty() {
        return Ok(());
    }
    freed(now)
        .col_expr(
            queued::Column::AttemptCount,
            Expr::col(queued::Column::AttemptCount).sub(1),
        )
        .filter(held(leases))
        .exec(&db.write)
        .await?;
    Ok(())
}

/// Lets a lease that still holds last until `until`.
pub async fn renew(db: &Database, lease: &Lease, until: Timestamp) -> Result<(), StoreError> {
    queued::Entity::update_many()
        .col_expr(queued::Column::DueAt, Expr::value(until.as_millis()))
        .filter(held([lease]))
        .exec(&db.write)
        .await?;
    Ok(())
}

/// Makes everything leased due again: right when the only process that could hold a lease has just started.
///
/// On PostgreSQL other nodes may be alive: what dead ones held is taken over by [`super::nodes`].
pub async fn recover(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    if db.engine() == DbBackend::Postgres {
        return Ok(0);
    }
    release(db, queued::Column::LeaseToken.is_not_null(), now).await
}

/// Makes due again what is leased by those whom `whose` means, and ends their retries; answers how many leases that were.
pub(super) async fn release(db: &Database, whose: Expr, now: Timestamp) -> Result<u64, StoreError> {
    let tx = db.begin().await?;
    let ended = drop_places(db.engine(), &tx, whose.clone().and(queued::Column::Owed.eq(false))).await?;
    // Not those of retries that began since: they are nobody's but the retry's.
    let due = freed(now)
        .filter(lockable(db.engine(), whose.and(queued::Column::Owed.eq(true))))
        .exec(&tx)
        .await?;
    tx.commit().await?;
    Ok(ended + due.rows_affected)
}

/// Takes places off the queue; answers how many.
pub(super) async fn drop_places(
    engine: DbBackend,
    connection: &impl ConnectionTrait,
    which: Expr,
) -> Result<u64, StoreError> {
    let dropped = queued::Entity::delete_many()
        .filter(lockable(engine, which))
        .exec(connection)
        .await?;
    Ok(dropped.rows_affected)
}

/// Of these places, those that nobody else has locked just now. Found by no order that others lock them in, they must
/// not be waited for; what is left is found again the next time.
fn lockable(engine: DbBackend, which: Expr) -> Expr {
    let key = [queued::Column::OrganizationId, queued::Column::DeliveryId];
    let mut places = Query::select()
        .columns(key)
        .from(queued::Entity)
        .and_where(which)
        .take();
    if engine == DbBackend::Postgres {
        places.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    Expr::tuple(key.map(Expr::col)).in_subquery(places)
}

/// The end of a lease without an attempt: the delivery is due now.
fn freed(now: Timestamp) -> UpdateMany<queued::Entity> {
    queued::Entity::update_many()
        .col_expr(queued::Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(queued::Column::LeaseNode, Expr::value(None::<Uuid>))
        .col_expr(queued::Column::DueAt, Expr::value(now.as_millis()))
}
