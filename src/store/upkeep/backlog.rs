//! How much work is due, and how the pools are used: what `/metrics` asks when it is read.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, DbBackend, Statement, prelude::Uuid};

use crate::{
    domain::timestamp::Timestamp,
    metrics::{Backlog, PoolUse},
    store::{
        Database, StoreError,
        engine::{Engine, side::Side},
        health,
    },
};

/// Deliveries that are counted at most.
const COUNTED_MAX: i64 = 100_000;

/// Webhooks that are looked at, at most.
const WEBHOOKS_MAX: i64 = 10_000;

pub(in crate::store) fn backlog_sql(backend: DbBackend) -> String {
    // Both say that the index is searched for each webhook, where a planner would rather read the whole queue: CROSS JOIN
    // is an order for SQLite, and so is an ordered LIMIT inside for PostgreSQL.
    let due = if backend == DbBackend::Postgres {
        "LATERAL (SELECT 1 FROM queue
                        WHERE owed AND lease_token IS NULL AND webhook_id = ready.webhook_id AND due_at <= $2
                        ORDER BY due_at LIMIT $3) AS of_one"
    } else {
        "queue WHERE owed AND lease_token IS NULL AND queue.webhook_id = ready.webhook_id AND due_at <= $2"
    };
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
        owed AS (
            SELECT walk.webhook_id, resume_at, consecutive_failures
            FROM walk JOIN webhooks ON webhooks.id = walk.webhook_id
            WHERE webhooks.enabled LIMIT $1
        ),
        ready AS (SELECT webhook_id FROM owed WHERE resume_at <= $2 AND consecutive_failures < $4)
        SELECT
            (SELECT count(*) FROM (
                SELECT 1 FROM ready CROSS JOIN {due} LIMIT $3) AS counted) AS due,
            (SELECT min(oldest) FROM (
                SELECT (SELECT due_at FROM queue WHERE owed AND lease_token IS NULL AND webhook_id = ready.webhook_id
                        ORDER BY due_at LIMIT 1) AS oldest
                FROM ready) AS heads) AS oldest,
            (SELECT count(*) FROM owed WHERE consecutive_failures >= $4) AS breakers_open"
    )
}

/// The due work of the enabled webhooks of every organization. What a webhook that is switched off holds is not due,
/// nor what waits behind an open breaker or a rate.
///
/// The walk jumps from webhook to webhook in the index, as a claim's does; each one's oldest is one step in it, and the
/// count ends at its limit: the cost is bounded, however long the queue is.
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
        return Err(StoreError::Corrupt("a count gave no row".to_owned()));
    };
    let (due, oldest): (i64, Option<Timestamp>) = (row.try_get("", "due")?, row.try_get("", "oldest")?);
    let breakers_open: i64 = row.try_get("", "breakers_open")?;
    let (dead_rows, oldest_snapshot_age) = dead_rows(db).await?;
    Ok(Backlog {
        due: u64::try_from(due).unwrap_or(0),
        breakers_open: u64::try_from(breakers_open).unwrap_or(0),
        oldest_age: oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
        dead_rows,
        oldest_snapshot_age,
    })
}

pub(in crate::store) const DEAD_ROWS: &str = "
    SELECT COALESCE((SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'queue'::regclass), 0) AS dead,
        COALESCE((SELECT max(EXTRACT(EPOCH FROM clock_timestamp() - xact_start)) FROM pg_stat_activity
            WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()), 0)::float8 AS oldest_s";

/// The dead rows of the queue, and for how long the oldest snapshot has been held, which keeps them from being vacuumed:
/// by a dump, a transaction that was forgotten, a replica's feedback. SQLite has no such rows.
async fn dead_rows(db: &Database) -> Result<(u64, Duration), StoreError> {
    if db.backend() != DbBackend::Postgres {
        return Ok((0, Duration::ZERO));
    }
    let statement = Statement::from_string(DbBackend::Postgres, DEAD_ROWS);
    let Some(row) = db.read().query_one_raw(statement).await? else {
        return Err(StoreError::Corrupt("a count gave no row".to_owned()));
    };
    let (dead, oldest_s): (i64, f64) = (row.try_get("", "dead")?, row.try_get("", "oldest_s")?);
    let age = Duration::try_from_secs_f64(oldest_s).unwrap_or_default();
    Ok((u64::try_from(dead).unwrap_or(0), age))
}

/// How the connections of each pool are used.
#[must_use]
pub fn pools(db: &Database) -> Vec<PoolUse> {
    let postgres = match &db.engine {
        Engine::Postgres(postgres) => postgres,
        Engine::Sqlite(sqlite) => {
            let of = |(name, busy, connections_max): (&'static str, u32, u32)| PoolUse {
                name,
                busy,
                idle: connections_max - busy,
                connections_max,
            };
            return sqlite.readers.pools().map(of).into();
        }
    };
    let of = |(side, name): (Side, &'static str)| {
        let fill = postgres.side(side).fill();
        let count = |connections: usize| u32::try_from(connections).unwrap_or(u32::MAX);
        PoolUse {
            name,
            busy: count(fill.open - fill.idle),
            idle: count(fill.idle),
            connections_max: count(fill.max),
        }
    };
    Side::ALL.into_iter().map(of).collect()
}

/// What SQLite has done since the start: statements and commits. Nothing on PostgreSQL, which counts by itself.
#[must_use]
pub fn sqlite_counts(db: &Database) -> Option<(u64, u64)> {
    let Engine::Sqlite(sqlite) = &db.engine else {
        return None;
    };
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Some((read(&sqlite.counts.statements), read(&sqlite.counts.commits)))
}
