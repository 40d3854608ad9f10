//! What a sandbox does to its database, past what the API can do: emptying it, and looking whether the engine is at rest.
//! On SQLite alone.

use sea_orm::{ConnectionTrait as _, FromQueryResult as _, Statement};

use super::{
    Database, StoreError,
    entity::{columns, webhook},
    examples::{self, Examples},
    secrets::open_secret,
};
use crate::domain::{
    id::{DeliveryId, OrganizationId, WebhookId},
    secret::Secret,
    timestamp::Timestamp,
};

/// Deletes everything but organizations and tokens; rows that refer to others go first.
const EMPTY: [&str; 8] = [
    "DELETE FROM attempts",
    "DELETE FROM queue",
    "DELETE FROM deliveries",
    "DELETE FROM events",
    "DELETE FROM audit_entries",
    "DELETE FROM idempotency_keys",
    "DELETE FROM quota_usage",
    "DELETE FROM webhooks",
];

// Held deliveries are not waited for, and neither are deliveries to a webhook that was deleted.
const REST: &str = "
    SELECT CAST(count(*) FILTER (WHERE lease_token IS NOT NULL OR starts_at <= $1) AS BIGINT) AS busy,
        CAST(min(CASE WHEN lease_token IS NULL AND starts_at > $1 THEN starts_at END) AS BIGINT) AS next_at
    FROM (SELECT lease_token, max(due_at, resume_at) AS starts_at FROM queue
        JOIN webhooks ON webhooks.organization_id = queue.organization_id AND webhooks.id = queue.webhook_id
        WHERE lease_token IS NOT NULL OR enabled)";

/// Whether the engine has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// An attempt is in progress, or due.
    Busy,
    /// Nothing is due before this instant; never, if there is none.
    Until(Option<Timestamp>),
}

/// Puts the database back to its organizations and tokens, with these examples. What waits in this node's memory is
/// forgotten; an attempt in progress ends, and changes nothing.
pub async fn reset(db: &Database, org: OrganizationId, examples: Option<Examples>) -> Result<(), StoreError> {
    let inner = db.clone();
    let write = db.write(move |tx| {
        Box::pin(async move {
            for statement in EMPTY {
                tx.execute_unprepared(statement).await?;
            }
            if let Some(examples) = examples {
                examples::insert(&inner, tx, org, examples).await?;
            }
            Ok::<_, StoreError>(())
        })
    });
    write.await?;
    if let Some(lanes) = db.hand_over.get() {
        lanes.emptied();
    }
    Ok(())
}

/// What the engine has to do at `now`.
pub async fn rest(db: &Database, now: Timestamp) -> Result<Rest, StoreError> {
    let rest = Statement::from_sql_and_values(db.backend(), REST, [now.into()]);
    let Some(row) = db.read().query_one_raw(rest).await? else {
        return Ok(Rest::Until(None));
    };
    let busy: i64 = row.try_get("", "busy")?;
    if busy > 0 {
        return Ok(Rest::Busy);
    }
    Ok(Rest::Until(row.try_get("", "next_at")?))
}

/// Tells the engine that something may be due, since the clock was moved.
pub fn clock_moved(db: &Database) {
    if let Some(lanes) = db.hand_over.get() {
        lanes.due();
    }
}

/// The webhook that a delivery is owed to, and its secret as it is now; `None` if either is gone.
pub async fn secret_of(db: &Database, id: DeliveryId) -> Result<Option<(WebhookId, Secret)>, StoreError> {
    let columns = columns::<webhook::Entity>("webhooks");
    let find = format!(
        "SELECT {columns} FROM webhooks JOIN deliveries
         ON deliveries.organization_id = webhooks.organization_id AND deliveries.webhook_id = webhooks.id
         WHERE deliveries.id = $1"
    );
    let find = Statement::from_sql_and_values(db.backend(), find, [id.into()]);
    let row = webhook::Model::find_by_statement(find).one(&db.read()).await?;
    row.map(|row| Ok((row.id, open_secret(db, &row)?))).transpose()
}
