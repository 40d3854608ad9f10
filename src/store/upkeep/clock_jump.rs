//! Detects a clock that has jumped since the service last ran. What is deleted by a wrong clock is gone, so retention
//! waits until somebody confirms the time: a server that was off for a month, or a restored copy, looks the same as a
//! clock that is a month ahead. Nothing else waits.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement, Value};

use crate::{
    domain::timestamp::Timestamp,
    store::{Database, StoreError},
};

/// How long the service may not have run before somebody must confirm the time.
pub const JUMP_MAX: Duration = Duration::from_hours(24);

/// How much time has passed since the service last ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// At most [`JUMP_MAX`].
    Little,
    /// More than that, since this time.
    Much(Timestamp),
}

/// Records that the service runs at `now`, unless the time has jumped.
pub async fn note(db: &Database, now: Timestamp) -> Result<Passed, StoreError> {
    const BEGIN: &str = "INSERT INTO last_run (what, seen_at) VALUES ('server', $1) ON CONFLICT (what) DO NOTHING";
    // Never backwards: a clock that was behind for a while, and is right again, has not jumped.
    const NOTE: &str =
        "UPDATE last_run SET seen_at = CASE WHEN seen_at > $1 THEN seen_at ELSE $1 END WHERE seen_at >= $2";
    let statement = |sql, values: Vec<Value>| Statement::from_sql_and_values(db.backend(), sql, values);
    db.write_one(statement(BEGIN, vec![now.into()])).await?;
    let noted = db
        .write_one(statement(NOTE, vec![now.into(), now.minus(JUMP_MAX).into()]))
        .await?;
    if noted.rows_affected() > 0 {
        return Ok(Passed::Little);
    }
    let row = db
        .read()
        .query_one_raw(statement("SELECT seen_at FROM last_run", Vec::new()))
        .await?;
    let seen_at = row.map(|row| row.try_get("", "seen_at")).transpose()?;
    Ok(Passed::Much(seen_at.unwrap_or(now)))
}

/// Accepts `now` as right, whatever was recorded before.
pub async fn accept(db: &Database, now: Timestamp) -> Result<(), StoreError> {
    const ACCEPT: &str = "INSERT INTO last_run (what, seen_at) VALUES ('server', $1)
        ON CONFLICT (what) DO UPDATE SET seen_at = excluded.seen_at";
    let accept = Statement::from_sql_and_values(db.backend(), ACCEPT, [now.into()]);
    db.write_one(accept).await?;
    Ok(())
}
