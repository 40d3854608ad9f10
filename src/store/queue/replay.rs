//! Replay: many deliveries of one webhook again.

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Statement, Value,
    sea_query::{Expr, LockType},
};

use super::manual;
use crate::{
    domain::{
        delivery::DeliveryStatus,
        id::{DeliveryId, OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        engine::{
            Connection,
            among::{among_ids, ids_value},
        },
        entity::delivery,
        search::{has_status, published_between},
        webhooks,
    },
};

/// Which deliveries to replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayFilter {
    /// Of this webhook.
    pub webhook_id: WebhookId,
    /// Of events published at this instant or later.
    pub since: Timestamp,
    /// Of events published before this instant.
    pub until: Timestamp,
    /// With this status.
    pub status: DeliveryStatus,
}

/// How many deliveries one transaction requeues, so that none of them takes long.
const BATCH_MAX: u64 = 1000;

/// How many deliveries a replay would requeue. `None` if the webhook does not exist.
pub async fn count(db: &Database, org: OrganizationId, filter: &ReplayFilter) -> Result<Option<u64>, StoreError> {
    if webhooks::find(db, org, filter.webhook_id).await?.is_none() {
        return Ok(None);
    }
    let matching = delivery::Entity::find().filter(matching(org, filter));
    Ok(Some(matching.count(&db.read_long()).await?))
}

/// Requeues deliveries, each with a new schedule, and returns how many. `None` if the webhook does not exist.
///
/// In several transactions: after a crash between two of them, the same call requeues the rest.
pub async fn replay(
    db: &Database,
    org: OrganizationId,
    filter: &ReplayFilter,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let mut replayed = 0;
    let mut after = DeliveryId::NIL;
    loop {
        let (filter, from) = (*filter, after);
        let write = db.write_for(org, move |tx| {
            Box::pin(async move { replay_batch(tx, org, &filter, from, now).await })
        });
        match write.await? {
            ReplayBatch::Done { count, last } => {
                replayed += count;
                after = last;
                if let Some(lanes) = db.hand_over.get() {
                    lanes.due();
                }
            }
            ReplayBatch::Empty => return Ok(Some(replayed)),
            ReplayBatch::NoWebhook => return Ok((replayed > 0).then_some(replayed)),
        }
    }
}

/// The result of one transaction of a replay.
enum ReplayBatch {
    /// It requeued `count` deliveries; the next one continues after `last`.
    Done { count: u64, last: DeliveryId },
    /// Nothing is left.
    Empty,
    /// The webhook does not exist or is being deleted.
    NoWebhook,
}

async fn replay_batch(
    tx: &Connection<'_>,
    org: OrganizationId,
    filter: &ReplayFilter,
    after: DeliveryId,
    now: Timestamp,
) -> Result<ReplayBatch, StoreError> {
    // A webhook that is being deleted must not get deliveries that nothing would cancel.
    if manual::lock_webhook(tx, org, filter.webhook_id).await?.is_none() {
        return Ok(ReplayBatch::NoWebhook);
    }
    let ids = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .filter(matching(org, filter))
        .filter(delivery::Column::Id.gt(after))
        .order_by_asc(delivery::Column::Id)
        .limit(BATCH_MAX)
        .lock(LockType::Update);
    let ids: Vec<DeliveryId> = ids.into_tuple().all(tx).await?;
    let Some(last) = ids.last().copied() else {
        return Ok(ReplayBatch::Empty);
    };
    let count = requeue(tx, org, ids, now).await?;
    Ok(ReplayBatch::Done { count, last })
}

fn matching(org: OrganizationId, filter: &ReplayFilter) -> Condition {
    Condition::all()
        .add(delivery::Column::OrganizationId.eq(org))
        .add(delivery::Column::WebhookId.eq(filter.webhook_id))
        .add(has_status(filter.status))
        .add(published_between(Some(filter.since), Some(filter.until)))
}

pub(in crate::store) fn requeue_sql(backend: DbBackend) -> String {
    let among = match backend {
        DbBackend::Postgres => "= ANY($3)",
        _ => "IN (SELECT unhex(value) FROM json_each($3))",
    };
    // A lease that has ended without a record belongs to a node that died during a retry; its queue entry is taken
    // over.
    format!(
        "INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count)
         SELECT organization_id, id, webhook_id, TRUE, $2, attempt_count FROM deliveries
         WHERE organization_id = $1 AND id {among} AND NOT EXISTS (
             SELECT 1 FROM queue
             WHERE queue.organization_id = $1 AND queue.delivery_id = deliveries.id AND due_at > $2)
         ON CONFLICT (organization_id, delivery_id) DO UPDATE
             SET owed = TRUE, due_at = excluded.due_at, lease_token = NULL, lease_node = NULL
         RETURNING delivery_id"
    )
}

/// Requeues those that nobody is retrying; returns how many. All of them have ended, and are locked.
async fn requeue(
    tx: &Connection<'_>,
    org: OrganizationId,
    ids: Vec<DeliveryId>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let backend = tx.get_database_backend();
    let values: [Value; 3] = [org.into(), now.into(), ids_value(backend, ids)];
    let rows = tx
        .query_all_raw(Statement::from_sql_and_values(backend, requeue_sql(backend), values))
        .await?;
    let ids: Vec<DeliveryId> = rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?;
    let updated = delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, Expr::value(DeliveryStatus::Pending))
        .col_expr(delivery::Column::DeliveredAt, Expr::value(None::<Timestamp>))
        .col_expr(delivery::Column::UndeliveredAt, Expr::value(None::<Timestamp>))
        .col_expr(
            delivery::Column::ScheduleStart,
            Expr::col(delivery::Column::AttemptCount),
        )
        .filter(delivery::Column::OrganizationId.eq(org))
        .filter(among_ids(backend, "id", ids))
        .exec(tx)
        .await?;
    Ok(updated.rows_affected)
}
