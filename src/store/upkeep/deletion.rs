//! Deleting webhooks: a deleted webhook's pending deliveries are canceled in bounded batches, and then its row is
//! removed.
//!
//! ```text
//! DELETE ──▶ marked: no reader finds it, nobody publishes to it or claims from it
//!              │ cancel_batch, repeatedly, after a crash too
//!              ▼
//!            nothing in the queue ──▶ the row is removed
//! ```
//! A publication that has seen the webhook before it was marked still locks its row until it commits; removing the row
//! waits for it, then checks the queue again, and so leaves no delivery that nobody would cancel.

use std::{sync::LazyLock, time::Duration};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Statement, Value, sea_query::LockType,
};
use tokio::sync::watch;

use crate::{
    domain::{
        id::{DeliveryId, OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::{Database, StoreError, engine::Connection, entity::webhook},
};

/// The most deliveries that one transaction cancels: it takes some ten milliseconds.
const BATCH_MAX: usize = 500;

/// How many webhooks are handled together.
const WEBHOOKS_AT_A_TIME: u64 = 100;

/// The pause after a full batch, and between rounds.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// The pause while nothing is being deleted: a deletion on this node ends it.
const IDLE_PAUSE: Duration = Duration::from_mins(1);

/// Cancels the pending deliveries of deleted webhooks and removes the webhooks, until `stop` is set.
pub async fn run(db: Database, mut stop: watch::Receiver<bool>) {
    loop {
        let next = async {
            let pause = match round(&db).await {
                Ok(0) => IDLE_PAUSE,
                Ok(_) => ROUND_PAUSE,
                Err(error) => {
                    tracing::warn!(exception.message = %error, "deleted webhooks could not be cleared; retrying later");
                    ROUND_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = db.deleted.notified() => {}
            }
        };
        // A round that is dropped in the middle does no harm: each batch is a transaction.
        tokio::select! {
            () = next => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// Goes over the webhooks that are being deleted. Returns how many are left.
pub async fn round(db: &Database) -> Result<u64, StoreError> {
    let deleted = webhook::Entity::find()
        .filter(webhook::Column::DeletedAt.is_not_null())
        .order_by_asc(webhook::Column::DeletedAt)
        .limit(WEBHOOKS_AT_A_TIME)
        .all(&db.read())
        .await?;
    let mut left = 0;
    for row in deleted {
        let now = db.clock.now();
        let mut from = cancel_batch(db, row.organization_id, row.id, now, None).await?;
        while from.is_some() {
            tokio::time::sleep(BATCH_PAUSE).await;
            from = cancel_batch(db, row.organization_id, row.id, now, from).await?;
        }
        left += u64::from(!remove(db, row.organization_id, row.id).await?);
    }
    Ok(left)
}

/// Finds the webhook's deliveries that wait, in the order of the index that a claim walks: `$2` is where the last batch
/// ended, so that none reads again what another has read.
pub(in crate::store) fn waiting_sql(backend: DbBackend) -> String {
    // Skips locked rows: these are not taken in the global lock order, so waiting could deadlock.
    let (by, skip) = match backend {
        DbBackend::Postgres => ("", "FOR UPDATE SKIP LOCKED"),
        _ => ("INDEXED BY queue_due", ""),
    };
    format!(
        "SELECT organization_id, delivery_id, attempt_count, due_at FROM queue {by}
         WHERE webhook_id = $1 AND owed AND lease_token IS NULL AND due_at >= $2
         ORDER BY due_at LIMIT {BATCH_MAX} {skip}"
    )
}

/// Finds the webhook's deliveries that are leased. It reads all leases, of which nodes hold few, by the index of these; the
/// ORDER BY is for a planner that would rather read the whole queue.
pub(in crate::store) fn leased_sql(backend: DbBackend, condition: &str) -> String {
    let (by, skip) = match backend {
        DbBackend::Postgres => ("", "FOR UPDATE SKIP LOCKED"),
        _ => ("INDEXED BY queue_leased", ""),
    };
    format!(
        "SELECT organization_id, delivery_id, attempt_count, due_at FROM queue {by}
         WHERE webhook_id = $1 AND owed AND lease_token IS NOT NULL {condition}
         ORDER BY lease_node, due_at LIMIT {BATCH_MAX} {skip}"
    )
}

pub(in crate::store) static CANCEL_BATCH: LazyLock<String> = LazyLock::new(|| {
    let waiting = waiting_sql(DbBackend::Postgres);
    let condition = format!("AND (SELECT count(*) FROM waiting) < {BATCH_MAX}");
    let leased = leased_sql(DbBackend::Postgres, &condition);
    format!(
        "WITH waiting AS MATERIALIZED ({waiting}), leased AS MATERIALIZED ({leased}), chosen AS MATERIALIZED (
            SELECT * FROM waiting UNION ALL SELECT * FROM leased
         ), canceled AS (
            UPDATE deliveries SET status = 'canceled', undelivered_at = $3, attempt_count = chosen.attempt_count
            FROM chosen
            WHERE deliveries.organization_id = chosen.organization_id AND deliveries.id = chosen.delivery_id
         ), removed AS (
            DELETE FROM queue USING waiting
            WHERE queue.organization_id = waiting.organization_id AND queue.delivery_id = waiting.delivery_id
         ), owed_no_more AS (
            UPDATE queue SET owed = FALSE FROM leased
            WHERE queue.organization_id = leased.organization_id AND queue.delivery_id = leased.delivery_id
         )
         SELECT due_at FROM waiting UNION ALL SELECT NULL FROM leased"
    )
});

pub(in crate::store) const CANCEL_ONE: &str = "
    UPDATE deliveries SET status = 'canceled', undelivered_at = $3, attempt_count = queue.attempt_count
    FROM queue
    WHERE queue.organization_id = $1 AND queue.delivery_id = $2
        AND deliveries.organization_id = $1 AND deliveries.id = $2";

/// Cancels a batch of a deleted webhook's pending deliveries: those that wait and are due at `from` or later, then those that
/// are leased. Returns where the next batch begins; `None` if this was the last one.
///
/// An attempt in progress may still end: its queue entry stays, no longer owed, and its record is kept.
pub(in crate::store) async fn cancel_batch(
    db: &Database,
    org: OrganizationId,
    webhook: WebhookId,
    now: Timestamp,
    from: Option<Timestamp>,
) -> Result<Option<Timestamp>, StoreError> {
    let from = from.unwrap_or(Timestamp::from_millis(i64::MIN));
    let write = db.write_for(org, move |tx| {
        Box::pin(async move {
            let canceled = if tx.get_database_backend() == DbBackend::Postgres {
                let values: [Value; 3] = [webhook.into(), from.into(), now.into()];
                let cancel = Statement::from_sql_and_values(DbBackend::Postgres, CANCEL_BATCH.as_str(), values);
                let rows = tx.query_all_raw(cancel).await?;
                let due = rows.iter().map(|row| row.try_get("", "due_at"));
                due.collect::<Result<Vec<Option<Timestamp>>, _>>()?
            } else {
                cancel_one_by_one(tx, webhook, from, now).await?
            };
            let reached = canceled.iter().flatten().max().copied();
            let is_last = canceled.len() < BATCH_MAX;
            Ok::<_, StoreError>((!is_last).then(|| reached.unwrap_or(from)))
        })
    });
    write.await
}

/// The same on SQLite. Returns when each of the deliveries that waited was due.
async fn cancel_one_by_one(
    tx: &Connection<'_>,
    webhook: WebhookId,
    from: Timestamp,
    now: Timestamp,
) -> Result<Vec<Option<Timestamp>>, StoreError> {
    const REMOVE: &str = "DELETE FROM queue WHERE organization_id = $1 AND delivery_id = $2 AND lease_token IS NULL";
    const OWE_NO_MORE: &str = "UPDATE queue SET owed = FALSE WHERE organization_id = $1 AND delivery_id = $2";
    let backend = DbBackend::Sqlite;
    let waiting = Statement::from_sql_and_values(backend, waiting_sql(backend), [webhook.into(), from.into()]);
    let waiting = tx.query_all_raw(waiting).await?;
    let mut leased = Vec::new();
    if waiting.len() < BATCH_MAX {
        let find = Statement::from_sql_and_values(backend, leased_sql(backend, ""), [webhook.into()]);
        leased = tx.query_all_raw(find).await?;
    }
    let mut canceled = Vec::new();
    for (row, waits) in waiting
        .iter()
        .map(|row| (row, true))
        .chain(leased.iter().map(|row| (row, false)))
    {
        let (org, delivery): (OrganizationId, DeliveryId) =
            (row.try_get("", "organization_id")?, row.try_get("", "delivery_id")?);
        let due_at: Timestamp = row.try_get("", "due_at")?;
        let key: [Value; 2] = [org.into(), delivery.into()];
        let cancel = key.clone().into_iter().chain([now.into()]);
        tx.execute_raw(Statement::from_sql_and_values(backend, CANCEL_ONE, cancel))
            .await?;
        let then = if waits { REMOVE } else { OWE_NO_MORE };
        tx.execute_raw(Statement::from_sql_and_values(backend, then, key))
            .await?;
        canceled.push(waits.then_some(due_at));
    }
    Ok(canceled)
}

// Whatever is in the queue is in one of these indexes: it waits or is leased.
pub(in crate::store) const STILL_QUEUED: &str = "
    SELECT 1 AS is_queued
    WHERE (SELECT delivery_id FROM queue WHERE webhook_id = $1 AND owed AND lease_token IS NULL
            ORDER BY due_at LIMIT 1) IS NOT NULL
        OR (SELECT delivery_id FROM queue WHERE webhook_id = $1 AND lease_token IS NOT NULL
            ORDER BY lease_node, due_at LIMIT 1) IS NOT NULL";

/// Removes a webhook that has nothing in the queue. Returns false if it still has.
async fn remove(db: &Database, org: OrganizationId, id: WebhookId) -> Result<bool, StoreError> {
    let write = db.write_for(org, move |tx| {
        Box::pin(async move {
            let key = (org, id);
            if webhook::Entity::find_by_id(key)
                .lock(LockType::Update)
                .one(tx)
                .await?
                .is_none()
            {
                return Ok(true);
            }
            let queued = Statement::from_sql_and_values(tx.get_database_backend(), STILL_QUEUED, [id.into()]);
            if tx.query_one_raw(queued).await?.is_some() {
                return Ok(false);
            }
            webhook::Entity::delete_by_id(key).exec(tx).await?;
            Ok::<_, StoreError>(true)
        })
    });
    write.await
}
