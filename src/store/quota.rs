//! How many writes an organization has made in a calendar month (UTC). Counted only for organizations that have a
//! quota.

use sea_orm::{ConnectionTrait as _, QueryResult, Statement, Value};

use super::{Database, StoreError, engine::Connection};
use crate::domain::{id::OrganizationId, timestamp::Timestamp};

/// The writes of the month that began at `month_start`.
pub async fn used(db: &Database, org: OrganizationId, month_start: Timestamp) -> Result<u32, StoreError> {
    const USED: &str = "SELECT writes FROM quota_usage WHERE organization_id = $1 AND month_started_at = $2";
    let values = [org.into(), month_start.into()];
    Ok(count(&db.read(), USED, values).await?.unwrap_or(0))
}

pub(in crate::store) const RESERVE: &str = "
    INSERT INTO quota_usage (organization_id, month_started_at, writes) VALUES ($1, $2, 1)
    ON CONFLICT (organization_id, month_started_at)
    DO UPDATE SET writes = quota_usage.writes + 1 WHERE quota_usage.writes < $3
    RETURNING writes";

/// Counts one more write if there are fewer than `writes_max`. Returns the new count, or `None` if the quota is used
/// up: a single statement checks and counts, so that concurrent writes never overshoot.
pub async fn reserve(
    db: &Database,
    org: OrganizationId,
    month_start: Timestamp,
    writes_max: u32,
) -> Result<Option<u32>, StoreError> {
    let values = [org.into(), month_start.into(), i64::from(writes_max).into()];
    db.write_for(org, move |tx| Box::pin(async move { count(tx, RESERVE, values).await }))
        .await
}

pub(in crate::store) const REFUND: &str = "
    UPDATE quota_usage SET writes = writes - 1
    WHERE organization_id = $1 AND month_started_at = $2 AND writes > 0
    RETURNING writes";

/// Takes back the count of a write that was refused. Returns the new count.
pub async fn refund(db: &Database, org: OrganizationId, month_start: Timestamp) -> Result<u32, StoreError> {
    let values = [org.into(), month_start.into()];
    let left = db.write_for(org, move |tx| Box::pin(async move { count(tx, REFUND, values).await }));
    Ok(left.await?.unwrap_or(0))
}

async fn count<const N: usize>(tx: &Connection<'_>, sql: &str, values: [Value; N]) -> Result<Option<u32>, StoreError> {
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    let rows = tx.query_all_raw(statement).await?;
    let number = |row: &QueryResult| row.try_get::<i64>("", "writes");
    let count = rows.first().map(number).transpose()?;
    Ok(count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
}
