//! Replay: many deliveries of one webhook again.

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement, Value,
    sea_query::{Expr, LockType},
};
use uuid::Uuid;

use super::{
    Database, StoreError,
    deliveries::{made_between, stands_so},
    entity::{delivery, webhook},
};
use crate::domain::{delivery::DeliveryStatus, timestamp::Timestamp};

/// Which deliveries are meant.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Of this webhook.
    pub webhook_id: Uuid,
    /// Of events that were published at this instant or after it.
    pub since: Timestamp,
    /// Of events that were published before this instant.
    pub until: Timestamp,
    /// That stand so.
    pub status: DeliveryStatus,
}

/// How many deliveries one transaction puts back, so that none of them takes long.
const BATCH_MAX: u64 = 1000;

/// How many deliveries a replay would put back. `None` where there is no such webhook.
pub async fn count(db: &Database, org: Uuid, span: &Span) -> Result<Option<u64>, StoreError> {
    if webhook::Entity::find_by_id((org, span.webhook_id))
        .one(&db.read)
        .await?
        .is_none()
    {
        return Ok(None);
    }
    let meant = delivery::Entity::find().filter(meant(org, span));
    Ok(Some(meant.count(&db.read).await?))
}

/// Puts deliveries back in the queue, each with a new schedule, and says how many. `None` where there is no such
/// webhook.
///
/// In several transactions: after a crash between two of them, the same call puts back the rest.
pub async fn replay(db: &Database, org: Uuid, span: &Span, now: Timestamp) -> Result<Option<u64>, StoreError> {
    let mut replayed = 0;
    let mut after = Uuid::nil();
    loop {
        let tx = db.begin().await?;
        // A webhook that is being deleted must not be owed deliveries that nobody cancels.
        let mut webhook = webhook::Entity::find_by_id((org, span.webhook_id));
        if db.engine() == DbBackend::Postgres {
            webhook = webhook.lock(LockType::KeyShare);
        }
        if webhook.one(&tx).await?.is_none() {
            return Ok((replayed > 0).then_some(replayed));
        }
        let mut ids = delivery::Entity::find()
            .select_only()
            .column(delivery::Column::Id)
            .filter(meant(org, span))
            .filter(delivery::Column::Id.gt(after))
            .order_by_asc(delivery::Column::Id)
            .limit(BATCH_MAX);
        if db.engine() == DbBackend::Postgres {
            ids = ids.lock(LockType::Update);
        }
        let ids: Vec<Uuid> = ids.into_tuple().all(&tx).await?;
        let Some(last) = ids.last().copied() else {
            return Ok(Some(replayed));
        };
        replayed += put_back(&tx, org, ids, now).await?;
        tx.commit().await?;
        after = last;
    }
}

fn meant(org: Uuid, span: &Span) -> Condition {
    Condition::all()
        .add(delivery::Column::OrganizationId.eq(org))
        .add(delivery::Column::WebhookId.eq(span.webhook_id))
        .add(stands_so(span.status))
        .add(made_between(Some(span.since), Some(span.until)))
}

/// Puts those back that nobody retries just now; answers how many. All of them have ended, and are locked.
async fn put_back(tx: &impl ConnectionTrait, org: Uuid, ids: Vec<Uuid>, now: Timestamp) -> Result<u64, StoreError> {
    let (now, engine) = (now.as_millis(), tx.get_database_backend());
    let list: Vec<String> = (1..=ids.len()).map(|place| format!("${}", place + 2)).collect();
    // A lease that has ended without a record is one whose node died in a retry; its place is taken.
    let put_back = format!(
        "INSERT INTO queue (organization_id, delivery_id, webhook_id, owed, due_at, attempt_count)
         SELECT organization_id, id, webhook_id, TRUE, $2, attempt_count FROM deliveries
         WHERE organization_id = $1 AND id IN ({}) AND NOT EXISTS (
             SELECT 1 FROM queue
             WHERE queue.organization_id = $1 AND queue.delivery_id = deliveries.id AND due_at > $2)
         ON CONFLICT (organization_id, delivery_id) DO UPDATE
             SET owed = TRUE, due_at = excluded.due_at, lease_token = NULL, lease_node = NULL
         RETURNING delivery_id",
        list.join(",")
    );
    let values = [org.into(), now.into()]
        .into_iter()
        .chain(ids.into_iter().map(Value::from));
    let rows = tx
        .query_all_raw(Statement::from_sql_and_values(engine, put_back, values))
        .await?;
    let ids: Vec<Uuid> = rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?;
    let updated = delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, Expr::value(DeliveryStatus::Pending.as_str()))
        .col_expr(delivery::Column::DeliveredAt, Expr::value(None::<i64>))
        .col_expr(delivery::Column::UndeliveredAt, Expr::value(None::<i64>))
        .col_expr(
            delivery::Column::ScheduleStart,
            Expr::col(delivery::Column::AttemptCount),
        )
        .filter(delivery::Column::OrganizationId.eq(org))
        .filter(delivery::Column::Id.is_in(ids))
        .exec(tx)
        .await?;
    Ok(updated.rows_affected)
}
