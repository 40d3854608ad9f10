//! Claiming due deliveries, fairly and without reading the whole queue.
//!
//! A claim walks the webhooks that have deliveries in the queue, from one to the next by an index, a bounded number of
//! steps behind a cursor that goes round. Of each webhook that is ready (switched on, its breaker and its rate allow
//! it, something is due) it takes no more than its room: the cap less what is under way, or one while the breaker is
//! open. However long the queue of one webhook, the others' turn comes after the same few steps.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, DbBackend, EntityTrait as _, FromQueryResult, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Set, Statement, Unchanged, Value,
    sea_query::{LockBehavior, LockType},
};
use uuid::Uuid;

use super::{
    Database, StoreError, database,
    entity::{queued, webhook},
    health,
    queue::Lease,
    webhooks::read_rate,
};
use crate::domain::{rate, timestamp::Timestamp};

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

/// How many webhooks one claim walks past, at most: each costs three look-ups in an index.
const STEPS_MAX: i32 = 1024;

/// Claims due deliveries, webhook by webhook behind `cursor`.
pub async fn claim(
    db: &Database,
    cursor: Option<Uuid>,
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Claim, StoreError> {
    // Most questions are asked when nothing is due; they must not take the write lock.
    let walk = walk(db, cursor, now).await?;
    let mut claim = Claim {
        leases: Vec::new(),
        // A walk that began behind a cursor has not seen the webhooks before it.
        more: cursor.is_some() || walk.goes_on_at.is_some(),
        cursor: walk.goes_on_at,
    };
    if walk.ready.is_empty() {
        return Ok(claim);
    }
    let tx = db.begin().await?;
    let rooms = rooms(&tx, db.engine(), &walk.ready, limits, now).await?;
    claim.leases = match db.engine() {
        DbBackend::Postgres => take_at_once(db, &tx, &rooms, limits, now).await?,
        _ => take_one_by_one(db, &tx, &rooms, limits, now).await?,
    };
    note_rates(&tx, rooms, &claim.leases, now).await?;
    tx.commit().await?;
    if claim.leases.len() as u64 >= limits.batch_max {
        // Not every webhook of the walk had its turn; the next claim begins with the first that had none.
        claim.cursor = claim.leases.iter().map(|lease| lease.webhook_id).max();
    }
    claim.more |= !claim.leases.is_empty();
    Ok(claim)
}

/// What a walk over the webhooks with queued deliveries found.
struct Walk {
    /// Those that are ready, in the order of their ids.
    ready: Vec<Uuid>,
    /// Where the walk stopped, unless it came to the end.
    goes_on_at: Option<Uuid>,
}

/// Walks from webhook to webhook behind `cursor`.
///
/// A loose index scan: each step jumps to the next webhook, however long the queue of one of them is.
async fn walk(db: &Database, cursor: Option<Uuid>, now: Timestamp) -> Result<Walk, StoreError> {
    const WALK: &str = "
        WITH RECURSIVE walk(webhook_id, step) AS (
            SELECT (SELECT webhook_id FROM queue WHERE owed AND webhook_id > $1
                    ORDER BY webhook_id LIMIT 1), 1
            UNION ALL
            SELECT (SELECT webhook_id FROM queue WHERE owed AND webhook_id > walk.webhook_id
                    ORDER BY webhook_id LIMIT 1), step + 1
            FROM walk WHERE walk.webhook_id IS NOT NULL AND step < $2
        ), judged(webhook_id, step, ready) AS (
            SELECT walk.webhook_id, step, CASE WHEN webhooks.enabled AND webhooks.resume_at <= $3 AND EXISTS (
                SELECT 1 FROM queue WHERE owed AND queue.webhook_id = walk.webhook_id AND due_at <= $3
            ) THEN 1 ELSE 0 END
            FROM walk JOIN webhooks ON webhooks.id = walk.webhook_id
        )
        SELECT webhook_id, step, ready FROM judged WHERE ready = 1 OR step = $2 ORDER BY webhook_id";
    #[derive(FromQueryResult)]
    struct Passed {
        webhook_id: Uuid,
        step: i32,
        ready: i32,
    }
    let values: [Value; 3] = [
        cursor.unwrap_or(Uuid::nil()).into(),
        STEPS_MAX.into(),
        now.as_millis().into(),
    ];
    let statement = Statement::from_sql_and_values(db.engine(), WALK, values);
    let steps = Passed::find_by_statement(statement).all(&db.read).await?;
    Ok(Walk {
        ready: steps
            .iter()
            .filter(|step| step.ready == 1)
            .map(|step| step.webhook_id)
            .collect(),
        goes_on_at: steps
            .iter()
            .find(|step| step.step == STEPS_MAX)
            .map(|step| step.webhook_id),
    })
}

/// How many deliveries of one webhook may be claimed now.
struct Room {
    webhook: webhook::Model,
    /// By the cap, the breaker and the rate together.
    places: u64,
    /// By the cap and the breaker alone.
    places_but_for_rate: u64,
}

/// Locks the rows of the webhooks, so that claimers of one webhook take turns, and measures their rooms. A webhook
/// that another node has locked just now is left out.
async fn rooms(
    tx: &DatabaseTransaction,
    engine: DbBackend,
    ready: &[Uuid],
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Room>, StoreError> {
    let mut query = webhook::Entity::find()
        .filter(webhook::Column::Id.is_in(ready.iter().copied()))
        .filter(webhook::Column::Enabled.eq(true))
        .filter(webhook::Column::ResumeAt.lte(now.as_millis()))
        .order_by_asc(webhook::Column::Id);
    if engine == DbBackend::Postgres {
        query = query.lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked);
    }
    let webhooks = query.all(tx).await?;
    // Counted by a statement of its own, behind the locks: in one statement with them, claimers that overlap would
    // count from snapshots that do not show each other's leases.
    let under_way = under_way(tx, &webhooks, now).await?;
    let room = |webhook: webhook::Model| {
        let cap = if health::read(&webhook)?.breaker_open() {
            1
        } else {
            limits.per_webhook_max
        };
        let places_but_for_rate = cap.saturating_sub(under_way.get(&webhook.id).copied().unwrap_or_default());
        let places = read_rate(webhook.rate_limit).map_or(places_but_for_rate, |limit| {
            rate::admit(limit, webhook.rate_state, now, places_but_for_rate).count
        });
        Ok(Room {
            webhook,
            places,
            places_but_for_rate,
        })
    };
    webhooks.into_iter().map(room).collect()
}

/// Attempts under way, by webhook.
async fn under_way(
    tx: &DatabaseTransaction,
    webhooks: &[webhook::Model],
    now: Timestamp,
) -> Result<HashMap<Uuid, u64>, StoreError> {
    let counts: Vec<(Uuid, i64)> = queued::Entity::find()
        .select_only()
        .column(queued::Column::WebhookId)
        .column_as(queued::Column::DeliveryId.count(), "under_way")
        .filter(queued::Column::WebhookId.is_in(webhooks.iter().map(|webhook| webhook.id)))
        .filter(queued::Column::LeaseToken.is_not_null())
        .filter(queued::Column::DueAt.gt(now.as_millis()))
        .group_by(queued::Column::WebhookId)
        .into_tuple()
        .all(tx)
        .await?;
    Ok(counts
        .into_iter()
        .map(|(id, count)| (id, u64::try_from(count).unwrap_or_default()))
        .collect())
}

/// A claimed row.
#[derive(FromQueryResult)]
struct Taken {
    organization_id: Uuid,
    delivery_id: Uuid,
    webhook_id: Uuid,
    attempt_count: i32,
}

impl Taken {
    fn lease(self, token: Uuid) -> Lease {
        Lease {
            organization_id: self.organization_id,
            delivery_id: self.delivery_id,
            webhook_id: self.webhook_id,
            token,
            number: u32::try_from(self.attempt_count).unwrap_or(u32::MAX),
        }
    }
}

/// Takes what is due of all these webhooks by one statement.
async fn take_at_once(
    db: &Database,
    tx: &DatabaseTransaction,
    rooms: &[Room],
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    const ROOM_COLUMNS: usize = 2;
    let open: Vec<&Room> = rooms.iter().filter(|room| room.places > 0).collect();
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let (token, places, here) = (
        Uuid::new_v4(),
        database::placeholders(open.len(), ROOM_COLUMNS),
        open.len() * ROOM_COLUMNS,
    );
    let [p_token, p_node, p_lease_end, p_now, p_batch] = [1, 2, 3, 4, 5].map(|number| format!("${}", here + number));
    let take = format!(
        "WITH room(room_webhook, places) AS (VALUES {places}),
         due AS (
             SELECT next.organization_id AS due_organization, next.delivery_id AS due_delivery
             FROM room CROSS JOIN LATERAL (
                 SELECT organization_id, delivery_id FROM queue
                 WHERE owed AND webhook_id = room_webhook AND due_at <= {p_now}
                 ORDER BY due_at LIMIT places FOR UPDATE SKIP LOCKED) AS next
             LIMIT {p_batch})
         UPDATE queue SET lease_token = {p_token}, lease_node = {p_node}, due_at = {p_lease_end},
             attempt_count = attempt_count + 1
         FROM due WHERE organization_id = due_organization AND delivery_id = due_delivery
         RETURNING organization_id, delivery_id, webhook_id, attempt_count"
    );
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut values: Vec<Value> = open
        .iter()
        .flat_map(|room| [room.webhook.id.into(), count(room.places).into()])
        .collect();
    values.extend([
        token.into(),
        db.node.into(),
        now.plus(limits.lease).as_millis().into(),
        now.as_millis().into(),
        count(limits.batch_max).into(),
    ]);
    let statement = Statement::from_sql_and_values(db.engine(), take, values);
    let rows = Taken::find_by_statement(statement).all(tx).await?;
    Ok(rows.into_iter().map(|row| row.lease(token)).collect())
}

/// Takes what is due webhook by webhook: SQLite has no LATERAL, and needs no round trip for a statement.
async fn take_one_by_one(
    db: &Database,
    tx: &DatabaseTransaction,
    rooms: &[Room],
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    const TAKE: &str = "
        UPDATE queue SET lease_token = $1, lease_node = $2, due_at = $3, attempt_count = attempt_count + 1
        WHERE (organization_id, delivery_id) IN (
            SELECT organization_id, delivery_id FROM queue
            WHERE owed AND webhook_id = $4 AND due_at <= $5 ORDER BY due_at LIMIT $6)
        RETURNING organization_id, delivery_id, webhook_id, attempt_count";
    let token = Uuid::new_v4();
    let mut leases: Vec<Lease> = Vec::new();
    for room in rooms {
        let places = room.places.min(limits.batch_max.saturating_sub(leases.len() as u64));
        if places == 0 {
            continue;
        }
        let values: [Value; 6] = [
            token.into(),
            db.node.into(),
            now.plus(limits.lease).as_millis().into(),
            room.webhook.id.into(),
            now.as_millis().into(),
            i64::try_from(places).unwrap_or(i64::MAX).into(),
        ];
        let statement = Statement::from_sql_and_values(db.engine(), TAKE, values);
        let rows = Taken::find_by_statement(statement).all(tx).await?;
        leases.extend(rows.into_iter().map(|row| row.lease(token)));
    }
    Ok(leases)
}

/// Writes down what was used of each rate, and when the next place comes where the rate is why no more was taken.
async fn note_rates(
    tx: &DatabaseTransaction,
    rooms: Vec<Room>,
    leases: &[Lease],
    now: Timestamp,
) -> Result<(), StoreError> {
    for Room {
        webhook,
        places,
        places_but_for_rate,
    } in rooms
    {
        let Some(limit) = read_rate(webhook.rate_limit) else {
            continue;
        };
        let taken = leases.iter().filter(|lease| lease.webhook_id == webhook.id).count() as u64;
        let used = rate::admit(limit, webhook.rate_state, now, taken);
        let held_up = taken == places && places < places_but_for_rate;
        let resume_at = if held_up {
            rate::admit(limit, used.state, now, 1).resume_at
        } else {
            None
        };
        let row = webhook::ActiveModel {
            organization_id: Unchanged(webhook.organization_id),
            id: Unchanged(webhook.id),
            rate_state: Set(used.state),
            resume_at: Set(resume_at.map_or(webhook.resume_at, Timestamp::as_millis)),
            ..Default::default()
        };
        webhook::Entity::update(row).exec_without_returning(tx).await?;
    }
    Ok(())
}
