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
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement, Value, sea_query::LockType,
};
use tokio::sync::watch;

use crate::{
    domain::{
        id::{OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        entity::{queued, webhook},
    },
};

/// The most deliveries that one transaction cancels: it takes some ten milliseconds.
const BATCH_MAX: i64 = 500;

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
        while cancel_batch(db, row.organization_id, row.id, now).await? == BATCH_MAX.unsigned_abs() {
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        left += u64::from(!remove(db, row.organization_id, row.id).await?);
    }
    Ok(left)
}

pub(in crate::store) const CANCEL_ONE: &str = "
    UPDATE deliveries SET status = 'canceled', undelivered_at = $3, attempt_count = queue.attempt_count
    FROM queue
    WHERE queue.organization_id = $1 AND queue.delivery_id = $2
        AND deliveries.organization_id = $1 AND deliveries.id = $2";

fn chosen_sql(backend: DbBackend) -> String {
    // Skips locked rows: these are not taken in the global lock order, so waiting could deadlock.
    let skip = if backend == DbBackend::Postgres {
        "FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    format!(
        "SELECT delivery_id FROM queue WHERE organization_id = $1 AND webhook_id = $2 AND owed
         ORDER BY due_at LIMIT {BATCH_MAX} {skip}"
    )
}

pub(in crate::store) static CANCEL_BATCH: LazyLock<String> = LazyLock::new(|| {
    let chosen = chosen_sql(DbBackend::Postgres);
    format!(
        "WITH chosen AS ({chosen}), canceled AS (
            UPDATE deliveries SET status = 'canceled', undelivered_at = $3, attempt_count = queue.attempt_count
            FROM chosen JOIN queue ON queue.organization_id = $1 AND queue.delivery_id = chosen.delivery_id
            WHERE deliveries.organization_id = $1 AND deliveries.id = chosen.delivery_id
         ), removed AS (
            DELETE FROM queue USING chosen
            WHERE queue.organization_id = $1 AND queue.delivery_id = chosen.delivery_id AND lease_token IS NULL
         ), leased AS (
            UPDATE queue SET owed = FALSE FROM chosen
            WHERE queue.organization_id = $1 AND queue.delivery_id = chosen.delivery_id AND lease_token IS NOT NULL
         )
         SELECT delivery_id FROM chosen"
    )
});

/// Cancels a batch of a deleted webhook's pending deliveries; returns how many.
///
/// An attempt in progress may still end: its queue entry stays, no longer owed, and its record is kept.
pub(in crate::store) async fn cancel_batch(
    db: &Database,
    org: OrganizationId,
    webhook: WebhookId,
    now: Timestamp,
) -> Result<u64, StoreError> {
    const REMOVE: &str = "DELETE FROM queue WHERE organization_id = $1 AND delivery_id = $2 AND lease_token IS NULL";
    const OWE_NO_MORE: &str = "UPDATE queue SET owed = FALSE WHERE organization_id = $1 AND delivery_id = $2";
    let write = db.write_for(org, move |tx| {
        Box::pin(async move {
            let backend = tx.get_database_backend();
            let key: [Value; 2] = [org.into(), webhook.into()];
            if backend == DbBackend::Postgres {
                let values = key.into_iter().chain([now.into()]);
                let rows = tx
                    .query_all_raw(Statement::from_sql_and_values(backend, CANCEL_BATCH.as_str(), values))
                    .await?;
                return Ok(rows.len() as u64);
            }
            let rows = tx
                .query_all_raw(Statement::from_sql_and_values(backend, chosen_sql(backend), key))
                .await?;
            for row in &rows {
                let delivery: crate::domain::id::DeliveryId = row.try_get("", "delivery_id")?;
                let key: [Value; 2] = [org.into(), delivery.into()];
                let cancel = key.clone().into_iter().chain([now.into()]);
                tx.execute_raw(Statement::from_sql_and_values(backend, CANCEL_ONE, cancel))
                    .await?;
                tx.execute_raw(Statement::from_sql_and_values(backend, REMOVE, key.clone()))
                    .await?;
                tx.execute_raw(Statement::from_sql_and_values(backend, OWE_NO_MORE, key))
                    .await?;
            }
            Ok::<_, StoreError>(rows.len() as u64)
        })
    });
    write.await
}

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
            let queued = queued::Entity::find()
                .filter(queued::Column::OrganizationId.eq(org))
                .filter(queued::Column::WebhookId.eq(id))
                .limit(1)
                .count(tx)
                .await?;
            if queued > 0 {
                return Ok(false);
            }
            webhook::Entity::delete_by_id(key).exec(tx).await?;
            Ok::<_, StoreError>(true)
        })
    });
    write.await
}
