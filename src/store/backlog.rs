//! How much work is due, and how the pools are used: what `/metrics` asks when it is read.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use super::{Database, StoreError};
use crate::{
    domain::{health::BREAKER_FAILURES, timestamp::Timestamp},
    metrics::{Backlog, PoolUse},
};

/// Deliveries that are counted at most.
const COUNTED_MAX: i64 = 100_000;

/// Webhooks that are looked at, at most.
const WEBHOOKS_MAX: i64 = 10_000;

/// The due work of the enabled webhooks of every organization. What a webhook that is switched off holds is not due,
/// nor what waits behind an open breaker or a rate.
///
/// The walk jumps from webhook to webhook in the index, as a claim's does; each one's oldest is one step in it, and the
/// count ends at its limit: the cost is bounded, however long the queue is.
pub async fn backlog(db: &Database, now: Timestamp) -> Result<Backlog, StoreError> {
    const BACKLOG: &str = "
        WITH RECURSIVE walk(webhook_id) AS (
            SELECT (SELECT webhook_id FROM queue WHERE owed ORDER BY webhook_id LIMIT 1)
            UNION ALL
            SELECT (SELECT webhook_id FROM queue WHERE owed AND webhook_id > walk.webhook_id
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
                SELECT 1 FROM ready JOIN queue ON queue.webhook_id = ready.webhook_id
                WHERE owed AND due_at <= $2 LIMIT $3) AS due),
            (SELECT min(oldest) FROM (
                SELECT (SELECT due_at FROM queue WHERE owed AND webhook_id = ready.webhook_id
                        ORDER BY due_at LIMIT 1) AS oldest
                FROM ready) AS heads),
            (SELECT count(*) FROM owed WHERE consecutive_failures >= $4)";
    let values = [
        WEBHOOKS_MAX.into(),
        now.as_millis().into(),
        COUNTED_MAX.into(),
        i64::from(BREAKER_FAILURES).into(),
    ];
    let statement = Statement::from_sql_and_values(db.engine(), BACKLOG, values);
    let Some(row) = db.read.query_one_raw(statement).await? else {
        return Err(StoreError::Corrupt("a count gave no row".to_owned()));
    };
    let (due, oldest): (i64, Option<i64>) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    let breakers_open: i64 = row.try_get_by_index(2)?;
    Ok(Backlog {
        due: u64::try_from(due).unwrap_or(0),
        breakers_open: u64::try_from(breakers_open).unwrap_or(0),
        oldest_age: oldest.map_or(Duration::ZERO, |oldest| now.since(Timestamp::from_millis(oldest))),
    })
}

/// How the connections of each pool are used.
#[must_use]
pub fn pools(db: &Database) -> Vec<PoolUse> {
    let of = |name, size: u32, idle: usize, connections_max| {
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        PoolUse {
            name,
            busy: size.saturating_sub(idle),
            idle,
            connections_max,
        }
    };
    if db.engine() == DbBackend::Postgres {
        let pool = db.write.get_postgres_connection_pool();
        return vec![of(
            "shared",
            pool.size(),
            pool.num_idle(),
            pool.options().get_max_connections(),
        )];
    }
    [("write", &db.write), ("read", &db.read)]
        .map(|(name, connection)| {
            let pool = connection.get_sqlite_connection_pool();
            of(name, pool.size(), pool.num_idle(), pool.options().get_max_connections())
        })
        .into()
}
