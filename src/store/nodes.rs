//! Nodes: which processes share a database, and what happens to the leases of one that has died.
//!
//! A node that was silent for [`SILENCE_MAX`] is taken for dead, and what it held is due again at once: long before
//! its leases end by themselves. All by the database's time, so that the nodes' clocks need not agree.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, sea_query::Expr};

use super::{Database, StoreError, queue};
use crate::domain::timestamp::Timestamp;

/// How long a node may be silent before the others take over what it held.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The database's time, in milliseconds since the Unix epoch.
pub(super) const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Whether a lease is held by a node that is not in the list. The first condition follows from the second; it is what the
/// index of leases is chosen by.
const NODE_IS_GONE: &str =
    "lease_token IS NOT NULL AND lease_node IS NOT NULL AND lease_node NOT IN (SELECT id FROM nodes)";

/// Says that this node is alive. An embedded database has one process, and nobody to tell.
pub async fn beat(db: &Database) -> Result<(), StoreError> {
    if db.engine() != DbBackend::Postgres {
        return Ok(());
    }
    let beat = format!(
        "INSERT INTO nodes (id, seen_at) VALUES ($1, {NOW}) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
    );
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, beat, [db.node.into()]);
    db.write.execute_raw(statement).await?;
    Ok(())
}

/// Makes due again what nodes held that are silent for too long, or gone; answers how many deliveries that were.
pub async fn take_over(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    if db.engine() != DbBackend::Postgres {
        return Ok(0);
    }
    let forget = format!("DELETE FROM nodes WHERE id <> $1 AND seen_at < {NOW} - $2");
    let silence_ms = i64::try_from(SILENCE_MAX.as_millis()).unwrap_or(i64::MAX);
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, forget, [db.node.into(), silence_ms.into()]);
    db.write.execute_raw(statement).await?;
    // Nearly always nobody has died, and then one question is all.
    let orphan = format!("SELECT 1 FROM queue WHERE {NODE_IS_GONE} LIMIT 1");
    let orphan = Statement::from_string(DbBackend::Postgres, orphan);
    if db.read.query_one_raw(orphan).await?.is_none() {
        return Ok(0);
    }
    queue::release(db, Expr::cust(NODE_IS_GONE), now).await
}

/// Says that this node is no more, as it stops.
pub async fn leave(db: &Database) -> Result<(), StoreError> {
    if db.engine() != DbBackend::Postgres {
        return Ok(());
    }
    let leave =
        Statement::from_sql_and_values(DbBackend::Postgres, "DELETE FROM nodes WHERE id = $1", [db.node.into()]);
    db.write.execute_raw(leave).await?;
    Ok(())
}
