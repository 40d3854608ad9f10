//! Corrects times left behind by a wrong clock: what lies further ahead than it legally can is moved back to that
//! limit.
//!
//! A clock that was an hour or a month ahead and is right again would otherwise hold up deliveries, leases, breakers
//! and idempotency keys for as long. On PostgreSQL the database's clock counts, on SQLite this machine's at the start.

use std::time::Duration;

use sea_orm::{DbBackend, Statement, Value};

use crate::{
    config::TimeBounds,
    domain::{health::PROBE_PAUSE_MAX, timestamp::Timestamp},
    store::{Database, StoreError, health, idempotency},
};

/// Times that are too far ahead by less than this are left alone: nobody notices, and the clocks of two nodes may
/// differ a little.
pub const TOLERANCE: Duration = Duration::from_secs(5);

/// The most queue entries that one statement changes.
const BATCH_MAX: u64 = 10_000;

/// How long a request may hold its idempotency key: the longest times of its body, its attempt and its statements.
const KEY_LEASE_MAX: Duration = Duration::from_mins(5);

/// The pause of a rate limit: the wait for one token at the lowest rate, plus the millisecond from rounding up.
pub const RATE_PAUSE_MAX: Duration = Duration::from_millis(1001);

/// Moves back what lies too far ahead of `now`. Returns how many rows changed.
pub async fn clamp(db: &Database, bounds: TimeBounds, now: Timestamp) -> Result<u64, StoreError> {
    let now = now.plus(TOLERANCE);
    let skip = skip(db.backend());
    let entries = |whose: &str| {
        format!(
            "UPDATE queue SET due_at = $1 WHERE (organization_id, delivery_id) IN (
                SELECT organization_id, delivery_id FROM queue WHERE {whose} AND due_at > $1 LIMIT {BATCH_MAX} {skip})"
        )
    };
    let mut clamped = 0;
    for (whose, ahead) in [
        ("lease_token IS NULL", bounds.wait),
        ("lease_token IS NOT NULL", bounds.lease),
    ] {
        clamped += repeat(db, &entries(whose), now.plus(ahead)).await?;
    }
    clamped += clamp_webhooks(db, now).await?;
    clamped += clamp_keys(db, now).await?;
    if clamped > 0 {
        tracing::warn!(
            kallima.rows = clamped,
            "stored times were too far ahead and have been corrected: the clock was ahead when they were stored"
        );
    }
    Ok(clamped)
}

/// Repeats a statement that changes a bounded number of rows until it finds no more.
async fn repeat(db: &Database, sql: &str, limit: Timestamp) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let statement = Statement::from_sql_and_values(db.backend(), sql, [limit.into()]);
        let changed = db.write_one(statement).await?.rows_affected();
        total += changed;
        if changed < BATCH_MAX {
            return Ok(total);
        }
    }
}

/// Skips locked rows: these are not taken in the global lock order, so waiting could deadlock.
fn skip(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres {
        "FOR UPDATE SKIP LOCKED"
    } else {
        ""
    }
}

pub(in crate::store) fn clamp_webhooks_sql(backend: DbBackend) -> String {
    let skip = skip(backend);
    format!(
        "UPDATE webhooks
         SET resume_at = CASE WHEN consecutive_failures >= $4 THEN CASE WHEN resume_at > $2 THEN $2 ELSE resume_at END
                 WHEN resume_at > $3 THEN $3 ELSE resume_at END,
             failing_since = CASE WHEN failing_since > $1 THEN $1 ELSE failing_since END
         WHERE (organization_id, id) IN (
             SELECT organization_id, id FROM webhooks
             WHERE resume_at > $2 OR consecutive_failures < $4 AND resume_at > $3 OR failing_since > $1 {skip})"
    )
}

/// The breaker's next probe, the pause of a rate limit, the start of consecutive failures. A rate limit's state is
/// clamped whenever it is used ([`crate::domain::rate::admit`]).
async fn clamp_webhooks(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    let values: [Value; 4] = [
        now.into(),
        now.plus(PROBE_PAUSE_MAX).into(),
        now.plus(RATE_PAUSE_MAX).into(),
        health::breaker_failures_column().into(),
    ];
    let statement = Statement::from_sql_and_values(db.backend(), clamp_webhooks_sql(db.backend()), values);
    Ok(db.write_one(statement).await?.rows_affected())
}

pub(in crate::store) fn clamp_keys_sql(backend: DbBackend) -> String {
    let skip = skip(backend);
    format!(
        "UPDATE idempotency_keys
         SET expires_at = CASE WHEN expires_at > $1 THEN $1 ELSE expires_at END,
             leased_until = CASE WHEN leased_until > $2 THEN $2 ELSE leased_until END
         WHERE (organization_id, key) IN (
             SELECT organization_id, key FROM idempotency_keys WHERE expires_at > $1 OR leased_until > $2 {skip})"
    )
}

async fn clamp_keys(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    let values: [Value; 2] = [now.plus(idempotency::REMEMBERED).into(), now.plus(KEY_LEASE_MAX).into()];
    let statement = Statement::from_sql_and_values(db.backend(), clamp_keys_sql(db.backend()), values);
    Ok(db.write_one(statement).await?.rows_affected())
}
