//! How much work is due, and how the pools are used: the queries of `/metrics`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, prelude::Uuid};
use strum::VariantArray as _;

use crate::{
    domain::{id::DeliveryId, timestamp::Timestamp},
    metrics::{Backlog, PendingCounts, PoolUse},
    store::{
        Database, StoreError,
        engine::{DatabaseEngine, side::Side},
        health,
    },
};

/// The most deliveries that are counted.
const COUNTED_MAX: i64 = 100_000;

/// The most webhooks that are visited.
const WEBHOOKS_MAX: i64 = 10_000;

pub(in crate::store) fn backlog_sql(backend: DbBackend) -> String {
    // Both forms make the engine search the index for each webhook, where a planner would rather read the whole queue:
    // for SQLite it is the CROSS JOIN, for PostgreSQL the inner ORDER BY with a LIMIT.
    let count = |states: &str, due: &str| {
        let of_one = format!("owed AND lease_token IS NULL AND queue.webhook_id = creditors.webhook_id {due}");
        let rows = if backend == DbBackend::Postgres {
            format!(
                "LATERAL (SELECT 1 FROM queue WHERE {of_one} ORDER BY due_at LIMIT $3) AS of_one WHERE state IN ({states})"
            )
        } else {
            format!("queue WHERE {of_one} AND state IN ({states})")
        };
        format!("(SELECT count(*) FROM (SELECT 1 FROM creditors CROSS JOIN {rows} LIMIT $3) AS counted)")
    };
    let (due, rate) = (
        count("'ready'", "AND due_at <= $2"),
        count("'rate'", "AND due_at <= $2"),
    );
    let scheduled = count("'ready', 'rate'", "AND due_at > $2");
    let (breaker, disabled) = (count("'breaker'", ""), count("'disabled'", ""));
    format!(
        "
        WITH RECURSIVE walk(webhook_id) AS (
            SELECT (SELECT webhook_id FROM queue WHERE owed AND lease_token IS NULL AND webhook_id > $5
                    ORDER BY webhook_id LIMIT 1)
            UNION ALL
            SELECT (SELECT webhook_id FROM queue WHERE owed AND lease_token IS NULL AND webhook_id > walk.webhook_id
                    ORDER BY webhook_id LIMIT 1)
            FROM walk WHERE walk.webhook_id IS NOT NULL
        ),
        creditors AS (
            SELECT walk.webhook_id,
                CASE WHEN NOT enabled THEN 'disabled' WHEN consecutive_failures >= $4 THEN 'breaker'
                    WHEN resume_at > $2 THEN 'rate' ELSE 'ready' END AS state
            FROM walk JOIN webhooks ON webhooks.id = walk.webhook_id LIMIT $1
        ),
        held AS (
            SELECT delivery_id, attempt_count FROM queue
            WHERE owed AND lease_token IS NOT NULL AND lease_node > $5 ORDER BY lease_node LIMIT $3
        )
        SELECT {due} AS due, {rate} AS rate, {scheduled} AS scheduled, {breaker} AS breaker, {disabled} AS disabled,
            (SELECT count(*) FROM held) AS leased,
            (SELECT min(oldest) FROM (
                SELECT (SELECT due_at FROM queue
                        WHERE owed AND lease_token IS NULL AND webhook_id = creditors.webhook_id
                        ORDER BY due_at LIMIT 1) AS oldest
                FROM creditors WHERE state = 'ready') AS heads) AS oldest,
            (SELECT delivery_id FROM held WHERE attempt_count <= 1 ORDER BY delivery_id LIMIT 1) AS unattempted,
            (SELECT count(*) FROM creditors WHERE state = 'breaker') AS breakers_open"
    )
}

/// The pending work of every organization, by what it waits for.
///
/// The walk jumps from webhook to webhook in the index, as a claim's does; finding the oldest of each is one step in
/// it, and each count ends at its limit: so the cost is bounded, however long the queue is.
pub async fn backlog(db: &Database, now: Timestamp) -> Result<Backlog, StoreError> {
    let values = [
        WEBHOOKS_MAX.into(),
        now.into(),
        COUNTED_MAX.into(),
        health::breaker_failures_column().into(),
        Uuid::nil().into(),
    ];
    let statement = Statement::from_sql_and_values(db.backend(), backlog_sql(db.backend()), values);
    let Some(row) = db.read_long().query_one_raw(statement).await? else {
        return Err(StoreError::Corrupt("a count returned no row".to_owned()));
    };
    let count = |column: &str| row.try_get::<i64>("", column).map(i64::unsigned_abs);
    let (oldest, unattempted): (Option<Timestamp>, Option<DeliveryId>) =
        (row.try_get("", "oldest")?, row.try_get("", "unattempted")?);
    let oldest_due_age = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
    let unattempted_age = unattempted.map_or(Duration::ZERO, |delivery| now.since(delivery.made_at()));
    let (dead_rows, oldest_snapshot_age) = dead_rows(db).await?;
    Ok(Backlog {
        pending: PendingCounts {
            due: count("due")?,
            scheduled: count("scheduled")?,
            leased: count("leased")?,
            breaker: count("breaker")?,
            rate: count("rate")?,
            disabled: count("disabled")?,
        },
        breakers_open: count("breakers_open")?,
        oldest_due_age,
        oldest_owed_age: oldest_due_age.max(unattempted_age),
        dead_rows,
        oldest_snapshot_age,
    })
}

pub(in crate::store) const DEAD_ROWS: &str = "
    SELECT COALESCE((SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'queue'::regclass), 0) AS dead,
        COALESCE((SELECT max(EXTRACT(EPOCH FROM clock_timestamp() - xact_start)) FROM pg_stat_activity
            WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()), 0)::float8 AS oldest_s";

/// The dead rows of the queue, and the age of the oldest snapshot, which keeps them from being vacuumed: held by a
/// dump, a forgotten transaction, a replica's feedback. SQLite has no such rows.
async fn dead_rows(db: &Database) -> Result<(u64, Duration), StoreError> {
    if db.backend() != DbBackend::Postgres {
        return Ok((0, Duration::ZERO));
    }
    let statement = Statement::from_string(DbBackend::Postgres, DEAD_ROWS);
    let Some(row) = db.read().query_one_raw(statement).await? else {
        return Err(StoreError::Corrupt("a count returned no row".to_owned()));
    };
    let (dead, oldest_s): (i64, f64) = (row.try_get("", "dead")?, row.try_get("", "oldest_s")?);
    let age = Duration::try_from_secs_f64(oldest_s).unwrap_or_default();
    Ok((u64::try_from(dead).unwrap_or(0), age))
}

/// How the connections of each pool are used.
#[must_use]
pub fn pools(db: &Database) -> Vec<PoolUse> {
    let postgres = match &db.engine {
        DatabaseEngine::Postgres(postgres) => postgres,
        DatabaseEngine::Sqlite(sqlite) => {
            let of = |(name, busy, connections_max): (&'static str, u32, u32)| PoolUse {
                name,
                busy,
                idle: connections_max - busy,
                connections_max,
            };
            return sqlite.readers.pools().map(of).into();
        }
    };
    let of = |side: Side| {
        let fill = postgres.side(side).fill();
        let count = |connections: usize| u32::try_from(connections).unwrap_or(u32::MAX);
        PoolUse {
            name: side.into(),
            busy: count(fill.open - fill.idle),
            idle: count(fill.idle),
            connections_max: count(fill.max),
        }
    };
    Side::VARIANTS.iter().copied().map(of).collect()
}

/// SQLite's statements and commits since the start. `None` on PostgreSQL, which counts for itself.
#[must_use]
pub fn sqlite_counts(db: &Database) -> Option<(u64, u64)> {
    let DatabaseEngine::Sqlite(sqlite) = &db.engine else {
        return None;
    };
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Some((read(&sqlite.counts.statements), read(&sqlite.counts.commits)))
}
