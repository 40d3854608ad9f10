//! Nodes: which processes share a database, and what happens to the leases of one that has died.
//!
//! A node that was silent for [`SILENCE_MAX`] is taken for dead, and what it held is due again at once: long before
//! its leases end by themselves. All by the database's time, so that the nodes' clocks need not agree.

use std::time::Duration;

use sea_orm::{DbBackend, FromQueryResult, Statement, Value};

use crate::{
    domain::{id::NodeId, timestamp::Timestamp},
    store::{Database, StoreError},
};

/// How long a node may be silent before the others take over what it held.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The database's time, in milliseconds since the Unix epoch.
pub(in crate::store) const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// What a heartbeat found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// The nodes that are alive, in the order of their ids; this one among them.
    pub nodes: Vec<NodeId>,
    /// Leases of nodes that have died, which are due again.
    pub released: u64,
}

/// Says that this node is alive and reads who else is, in one round trip. With `may_judge`, what nodes held that were
/// silent for too long is due again; it is false as long as this node cannot know of their silence.
///
/// An embedded database has one process, and nobody to tell.
pub async fn beat(db: &Database, may_judge: bool, now: Timestamp) -> Result<Pulse, StoreError> {
    #[derive(FromQueryResult)]
    struct Row {
        id: NodeId,
        released: i64,
    }
    if !db.has_other_nodes() {
        return Ok(Pulse {
            nodes: vec![db.node],
            released: 0,
        });
    }
    // Skips locked rows: these are not taken in the global lock order, so waiting could deadlock. What is skipped stays
    // with a node that is gone, until its leases end or the next node dies; so the dead node's row goes last, by itself.
    let beat = format!(
        "WITH beat AS (
            INSERT INTO nodes (id, seen_at) VALUES ($1, {NOW})
            ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
         ), dead AS (
            SELECT id FROM nodes WHERE $2 AND id <> $1 AND seen_at < {NOW} - $3
         ), held AS (
            SELECT organization_id, delivery_id FROM queue
            WHERE lease_token IS NOT NULL AND lease_node IN (SELECT id FROM dead) FOR UPDATE SKIP LOCKED
         ), dropped AS (
            DELETE FROM queue USING held
            WHERE queue.organization_id = held.organization_id AND queue.delivery_id = held.delivery_id AND NOT owed
         ), freed AS (
            UPDATE queue SET lease_token = NULL, lease_node = NULL, due_at = $4 FROM held
            WHERE queue.organization_id = held.organization_id AND queue.delivery_id = held.delivery_id AND owed
         ), forgotten AS (
            DELETE FROM nodes WHERE id IN (SELECT id FROM dead) AND NOT EXISTS (SELECT 1 FROM held)
         )
         SELECT id, (SELECT count(*) FROM held) AS released FROM nodes
         WHERE id = $1 OR seen_at >= {NOW} - $3
         UNION SELECT $1, (SELECT count(*) FROM held) ORDER BY id"
    );
    let values: [Value; 4] = [
        db.node.into(),
        may_judge.into(),
        i64::try_from(SILENCE_MAX.as_millis()).unwrap_or(i64::MAX).into(),
        now.into(),
    ];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, beat, values);
    let rows = Row::find_by_statement(statement).all(&db.read()).await?;
    Ok(Pulse {
        released: rows.first().map_or(0, |row| row.released.unsigned_abs()),
        nodes: rows.into_iter().map(|row| row.id).collect(),
    })
}

/// Says that this node is no more, as it stops.
pub async fn leave(db: &Database) -> Result<(), StoreError> {
    if !db.has_other_nodes() {
        return Ok(());
    }
    let leave = Statement::from_sql_and_values(db.backend(), "DELETE FROM nodes WHERE id = $1", [db.node.into()]);
    db.write_one(leave).await?;
    Ok(())
}
