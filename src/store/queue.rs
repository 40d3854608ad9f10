//! The queue of due deliveries: what a node claims, and how it gives back what it did not attempt.
//!
//! A claim is a lease: a token only the claimer knows, and an end after which any node may claim again. The claim
//! counts the attempt, so a node that dies in the middle of one never repeats its number.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Set, Statement,
    sea_query::{Expr, ExprTrait as _, LockBehavior, LockType},
};
use uuid::Uuid;

use super::{
    Database, StoreError,
    entity::{delivery, event, webhook},
    error::readable,
    events::{self, Publication},
    webhooks::open_secret,
};
use crate::domain::{
    delivery::DeliveryStatus, destination::Destination, event_id::EventId, secret::Secret, timestamp::Timestamp,
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

/// How a claim is bounded.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    /// Deliveries in one claim at most.
    pub batch_max: u64,
    /// Attempts under way for one webhook at most, over all nodes.
    pub per_webhook_max: u64,
    /// How long a lease lasts.
    pub lease: Duration,
}

/// What a claim gave.
#[derive(Debug, Default)]
pub struct Claim {
    /// The claimed deliveries.
    pub leases: Vec<Lease>,
    /// Whether asking again at once is worth it: something was claimed, or not every webhook was looked at.
    pub more: bool,
    /// The webhook to go on from at the next claim, so that each gets its turn.
    pub cursor: Option<Uuid>,
}

/// How many webhooks one claim looks at, at most.
const WEBHOOKS_A_CLAIM_MAX: u64 = 256;

/// Claims due deliveries fairly: webhook by webhook, starting behind `cursor`, each up to its room.
pub async fn claim(
    db: &Database,
    cursor: Option<Uuid>,
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    // Most questions are asked when nothing is due; they must not take the write lock.
    let ready = ready_webhooks(db, cursor, now).await?;
    // A walk that began behind a cursor has not seen the webhooks before it.
    let mut claim = Claim {
        cursor,
        more: cursor.is_some(),
        ..Claim::default()
    };
    if ready.is_empty() {
        claim.cursor = None;
        return Ok(claim);
    }
    let tx = db.begin().await?;
    for webhook_id in ready {
        let left = limits.batch_max.saturating_sub(claim.leases.len() as u64);
        if left == 0 {
            break;
        }
        claim.cursor = Some(webhook_id);
        let leases = claim_of_webhook(&tx, db.engine(), webhook_id, left, limits, now).await?;
        claim.leases.extend(leases);
    }
    tx.commit().await?;
    claim.more |= !claim.leases.is_empty();
    Ok(claim)
}

/// The enabled webhooks that have due work, in the order of their ids, from the one behind `cursor`.
///
/// A loose index scan: each step jumps to the next webhook, however long the queue of one of them is.
async fn ready_webhooks(db: &Database, cursor: Option<Uuid>, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
    const WALK: &str = "
        WITH RECURSIVE walk(webhook_id) AS (
            SELECT (SELECT webhook_id FROM deliveries WHERE status = 'pending' AND webhook_id > $1
                    ORDER BY webhook_id LIMIT 1)
            UNION ALL
            SELECT (SELECT webhook_id FROM deliveries WHERE status = 'pending' AND webhook_id > walk.webhook_id
                    ORDER BY webhook_id LIMIT 1)
            FROM walk WHERE walk.webhook_id IS NOT NULL
        )
        SELECT walk.webhook_id FROM walk JOIN webhooks ON webhooks.id = walk.webhook_id
        WHERE webhooks.enabled AND EXISTS (
            SELECT 1 FROM deliveries
            WHERE status = 'pending' AND deliveries.webhook_id = walk.webhook_id AND due_at <= $2)
        LIMIT $3";
    let values = [
        cursor.unwrap_or(Uuid::nil()).into(),
        now.as_millis().into(),
        i64::try_from(WEBHOOKS_A_CLAIM_MAX).unwrap_or(i64::MAX).into(),
    ];
    let rows = db
        .read
        .query_all_raw(Statement::from_sql_and_values(db.engine(), WALK, values))
        .await?;
    rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
}

/// Claims what one webhook has room for.
async fn claim_of_webhook(
    tx: &DatabaseTransaction,
    engine: DbBackend,
    webhook_id: Uuid,
    left: u64,
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    if engine == DbBackend::Postgres && !take_turn(tx, webhook_id).await? {
        return Ok(Vec::new());
    }
    // Counted by a statement of its own, behind the lock: in one statement with it, claimers that overlap
    // would count from snapshots that do not show each other's leases.
    let under_way = delivery::Entity::find()
        .filter(delivery::Column::WebhookId.eq(webhook_id))
        .filter(delivery::Column::LeaseToken.is_not_null())
        .filter(delivery::Column::DueAt.gt(now.as_millis()))
        .count(tx)
        .await?;
    let room = Ord::min(limits.per_webhook_max.saturating_sub(under_way), left);
    if room == 0 {
        return Ok(Vec::new());
    }
    let mut due = delivery::Entity::find()
        .filter(delivery::Column::WebhookId.eq(webhook_id))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending.as_str()))
        .filter(delivery::Column::DueAt.lte(now.as_millis()))
        .order_by_asc(delivery::Column::DueAt)
        .limit(room);
    if engine == DbBackend::Postgres {
        due = due.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    let mut leases = Vec::new();
    for row in due.all(tx).await? {
        leases.push(lease_row(tx, row, limits.lease, now).await?);
    }
    Ok(leases)
}

/// Locks a webhook's row so that claimers of one webhook take turns. False where another has it just now.
async fn take_turn(tx: &DatabaseTransaction, webhook_id: Uuid) -> Result<bool, StoreError> {
    let turn = webhook::Entity::find()
        .filter(webhook::Column::Id.eq(webhook_id))
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked);
    Ok(turn.one(tx).await?.is_some())
}

async fn lease_row(
    tx: &DatabaseTransaction,
    row: delivery::Model,
    lease: Duration,
    now: Timestamp,
) -> Result<Lease, StoreError> {
    let (token, number) = (Uuid::new_v4(), row.attempt_count + 1);
    let leased = delivery::ActiveModel {
        organization_id: Set(row.organization_id),
        id: Set(row.id),
        attempt_count: Set(number),
        lease_token: Set(Some(token)),
        due_at: Set(Some(now.plus(lease).as_millis())),
        ..Default::default()
    };
    delivery::Entity::update(leased).exec_without_returning(tx).await?;
    Ok(Lease {
        organization_id: row.organization_id,
        delivery_id: row.id,
        webhook_id: row.webhook_id,
        token,
        number: u32::try_from(number).unwrap_or(u32::MAX),
    })
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
    let mut query = delivery::Entity::find_by_id((org, id));
    if db.engine() == DbBackend::Postgres {
        query = query.lock_exclusive();
    }
    let Some(row) = query.one(&tx).await? else {
        return Ok(Taken::NotFound);
    };
    if webhook::Entity::find_by_id((org, row.webhook_id))
        .one(&tx)
        .await?
        .is_none()
    {
        return Ok(Taken::WebhookDeleted);
    }
    if row.lease_token.is_some() && row.due_at > Some(now.as_millis()) {
        return Ok(Taken::UnderWay);
    }
    let lease = lease_row(&tx, row, lease, now).await?;
    tx.commit().await?;
    Ok(Taken::Leased(lease))
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
    let row = events::delivery_row(test, webhook_id, delivery_id).insert(&tx).await?;
    let lease = lease_row(&tx, row, lease, test.created_at).await?;
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
    pub payload: Vec<u8>,
    /// Where the delivery stood before the attempt.
    pub status: DeliveryStatus,
}

/// Reads what a leased attempt needs. `None` where the lease is lost or the webhook is gone.
///
/// Read when the attempt starts, not when it was claimed: a rotated secret or a new URL counts at once.
pub async fn work(db: &Database, lease: &Lease) -> Result<Option<Work>, StoreError> {
    let found = delivery::Entity::find_by_id((lease.organization_id, lease.delivery_id))
        .filter(delivery::Column::LeaseToken.eq(lease.token))
        .find_also_related(event::Entity)
        .one(&db.read)
        .await?;
    let Some((row, Some(event))) = found else {
        return Ok(None);
    };
    let webhook = webhook::Entity::find_by_id((row.organization_id, row.webhook_id))
        .one(&db.read)
        .await?;
    let Some(webhook) = webhook else { return Ok(None) };
    Ok(Some(Work {
        url: readable(
            Destination::from_stored(&webhook.url).ok(),
            "webhooks.url",
            &webhook.url,
        )?,
        secret: open_secret(db, &webhook)?,
        enabled: webhook.enabled,
        event_id: readable(EventId::parse(&event.id), "events.id", &event.id)?,
        event_type: event.event_type,
        payload: event.payload,
        status: readable(DeliveryStatus::parse(&row.status), "deliveries.status", &row.status)?,
    }))
}

/// Gives back a lease whose attempt was not made: it does not count, and any node may claim the delivery now.
pub async fn give_back(db: &Database, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
    delivery::Entity::update_many()
        .col_expr(delivery::Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(
            delivery::Column::AttemptCount,
            Expr::col(delivery::Column::AttemptCount).sub(1),
        )
        .col_expr(delivery::Column::DueAt, Expr::value(now.as_millis()))
        .filter(delivery::Column::OrganizationId.eq(lease.organization_id))
        .filter(delivery::Column::Id.eq(lease.delivery_id))
        .filter(delivery::Column::LeaseToken.eq(lease.token))
        .exec(&db.write)
        .await?;
    Ok(())
}

/// Makes everything leased due again: right when the only process that could hold a lease has just started.
///
/// On PostgreSQL other nodes may be alive, so nothing is taken from them: their leases end by themselves.
pub async fn recover(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    if db.engine() == DbBackend::Postgres {
        return Ok(0);
    }
    let recovered = delivery::Entity::update_many()
        .col_expr(delivery::Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(delivery::Column::DueAt, Expr::value(now.as_millis()))
        .filter(delivery::Column::LeaseToken.is_not_null())
        .exec(&db.write)
        .await?;
    Ok(recovered.rows_affected)
}
