//! Nodes: which processes share a database, and what happens to the leases of one that has died.
//!
//! A node that was silent for [`SILENCE_MAX`] is considered dead, and what it held is due again at once: long before
//! its leases end by themselves. All by the database's time, so that the nodes' clocks need not agree.

use std::{sync::LazyLock, time::Duration};

use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement, Value};

use crate::{
    domain::{id::NodeId, timestamp::Timestamp},
    store::{Database, StoreError},
};

/// How long a node may be silent before the others take over what it held.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// How far this node's clock and the database's may differ before it is logged. If the database's clock is this far
/// from what the node expects, it has jumped: then nothing is known about the others' silence.
pub const CLOCK_MOVED_MAX: Duration = Duration::from_secs(2);

/// The database's time, in milliseconds since the Unix epoch.
pub(in crate::store) const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// The result of a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// The nodes that are alive, ordered by id, including this one.
    pub nodes: Vec<NodeId>,
    /// Leases of dead nodes, which are due again.
    pub released: u64,
    /// By how many milliseconds this node's clock was adjusted to the database's.
    pub clock_moved_ms: i64,
}

// Skips locked rows: these are not taken in the global lock order, so waiting could deadlock. What is skipped stays
// with the dead node until its leases end or the next node dies; so the dead node's row is deleted last, on its own.
pub(in crate::store) static BEAT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH moment AS MATERIALIZED (
            SELECT {NOW} AS time
         ), beat AS (
            INSERT INTO nodes (id, seen_at) VALUES ($1, {NOW})
            ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
         ), dead AS (
            SELECT id FROM nodes WHERE $2 AND id <> $1 AND seen_at < {NOW} - $3 AND abs({NOW} - $4) <= $5
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
         SELECT id, (SELECT count(*) FROM held) AS released, (SELECT time FROM moment) AS database_time FROM nodes
         WHERE id = $1 OR seen_at >= {NOW} - $3
         UNION SELECT $1, (SELECT count(*) FROM held), (SELECT time FROM moment) ORDER BY id"
    )
});

/// Reports that this node is alive and reads which others are, in one round trip. With `may_take_over`, leases of nodes
/// that were silent for too long are released; it is false as long as this node cannot know about their silence. The
/// node's clock follows the database's.
///
/// An embedded database has one process, and no one to report to: this only checks whether it takes writes.
pub async fn beat(db: &Database, may_take_over: bool) -> Result<Heartbeat, StoreError> {
    #[derive(FromQueryResult)]
    struct Row {
        id: NodeId,
        released: i64,
        database_time: Timestamp,
    }
    if !db.has_other_nodes() {
        db.takes_writes().await?;
        return Ok(Heartbeat {
            nodes: vec![db.node],
            ..Heartbeat::default()
        });
    }
    let sent_at = db.clock.now();
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    // A clock that a test controls has nothing to do with the server's.
    let moved_max = if db.clock.can_follow() {
        millis(CLOCK_MOVED_MAX)
    } else {
        i64::MAX
    };
    let values: [Value; 5] = [
        db.node.into(),
        may_take_over.into(),
        millis(SILENCE_MAX).into(),
        sent_at.into(),
        moved_max.into(),
    ];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, BEAT.as_str(), values);
    let rows = Row::find_by_statement(statement).all(&db.read()).await?;
    let received_at = db.clock.now();
    let follow = |row: &Row| db.clock.follow(sent_at, row.database_time, received_at);
    Ok(Heartbeat {
        released: rows.first().map_or(0, |row| row.released.unsigned_abs()),
        clock_moved_ms: rows.first().map_or(0, follow),
        nodes: rows.into_iter().map(|row| row.id).collect(),
    })
}

/// Reads the database's clock, and lets this node's follow it. An embedded database uses this machine's.
pub async fn follow_clock(db: &Database) -> Result<(), StoreError> {
    if !db.has_other_nodes() {
        return Ok(());
    }
    let sent_at = db.clock.now();
    let now = Statement::from_string(db.backend(), format!("SELECT {NOW}"));
    let row = db.read().query_one_raw(now).await?;
    let received_at = db.clock.now();
    let theirs = row.map(|row| row.try_get_by_index(0)).transpose()?;
    if let Some(theirs) = theirs {
        db.clock.follow(sent_at, theirs, received_at);
    }
    Ok(())
}

/// Reports that this node is gone, when it stops, or for as long as it cannot do anything.
pub async fn leave(db: &Database) -> Result<(), StoreError> {
    if !db.has_other_nodes() {
        return Ok(());
    }
    let leave = Statement::from_sql_and_values(db.backend(), "DELETE FROM nodes WHERE id = $1", [db.node.into()]);
    db.write_one(leave).await?;
    Ok(())
}
