//! Recording attempts on SQLite, where a statement costs no round trip: row by row, each text prepared once.

use sea_orm::{ConnectionTrait as _, Statement, Value};

use super::lease::Finished;
use crate::{
    domain::{delivery::DeliveryStatus, outcome::ErrorWord, word::Word as _},
    store::{StoreError, engine::Connection},
};

pub(in crate::store) const LEAVE_IF_WELL: &str = "
    DELETE FROM queue WHERE organization_id = $1 AND delivery_id = $2 AND lease_token = $3 AND NOT EXISTS (
        SELECT 1 FROM webhooks WHERE organization_id = $1 AND id = $4 AND (failing_since IS NOT NULL OR recovery_owed))";
const LEAVE: &str = "DELETE FROM queue WHERE organization_id = $1 AND delivery_id = $2";
const PLAN: &str = "
    UPDATE queue SET lease_token = NULL, lease_node = NULL, due_at = $3 WHERE organization_id = $1 AND delivery_id = $2";
// The first success counts, and so does the first end without one; a later retry moves neither. A canceled delivery
// stays canceled, whatever the result of an attempt that was in progress.
pub(in crate::store) const UPDATE_DELIVERY: &str = "
    UPDATE deliveries SET attempt_count = $4, response_status = $5, response_body = $6, error = $7,
        status = CASE WHEN status = 'canceled' THEN status ELSE COALESCE($3, status) END,
        delivered_at = CASE WHEN status = 'canceled' THEN delivered_at ELSE COALESCE(delivered_at, $8) END,
        undelivered_at = CASE WHEN status = 'canceled' OR $3 IS NULL THEN undelivered_at WHEN $9 IS NULL THEN NULL
            ELSE COALESCE(undelivered_at, $9) END
    WHERE organization_id = $1 AND id = $2";
pub(in crate::store) const INSERT_ATTEMPT: &str = "
    INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms, response_status,
        response_body, error)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Records a success of a healthy webhook. Returns false if it is another case, or the lease was lost: then nothing
/// changes.
pub(super) async fn record_plain(tx: &Connection<'_>, finished: &Finished) -> Result<bool, StoreError> {
    if !finished.is_plain() {
        return Ok(false);
    }
    let lease = &finished.lease;
    let values: [Value; 4] = [
        lease.organization_id.into(),
        lease.delivery_id.into(),
        lease.token.into(),
        lease.webhook_id.into(),
    ];
    if run(tx, LEAVE_IF_WELL, values).await? == 0 {
        return Ok(false);
    }
    record_outcome(tx, finished, Some(finished.status)).await?;
    Ok(true)
}

/// Records attempts whose leases hold. A delivery that is no longer owed keeps its status, unless it was delivered now.
pub(super) async fn record_all(tx: &Connection<'_>, ended: &[(&Finished, bool)]) -> Result<(), StoreError> {
    for (finished, is_owed) in ended {
        record(tx, finished, *is_owed).await?;
    }
    Ok(())
}

async fn record(tx: &Connection<'_>, finished: &Finished, is_owed: bool) -> Result<(), StoreError> {
    let lease = &finished.lease;
    let key: [Value; 2] = [lease.organization_id.into(), lease.delivery_id.into()];
    match finished.next_attempt_at.filter(|_| is_owed) {
        Some(planned) => {
            let [organization, delivery] = key;
            run(tx, PLAN, [organization, delivery, planned.into()]).await?;
        }
        None => {
            run(tx, LEAVE, key).await?;
        }
    }
    let is_new = is_owed || finished.status == DeliveryStatus::Delivered;
    record_outcome(tx, finished, is_new.then_some(finished.status)).await
}

async fn record_outcome(
    tx: &Connection<'_>,
    finished: &Finished,
    status: Option<DeliveryStatus>,
) -> Result<(), StoreError> {
    let Finished {
        lease,
        outcome,
        trigger,
        started_at,
        ended_at,
        ..
    } = finished;
    let (response_status, body): (Value, Value) = (
        outcome.response_status.map(i32::from).into(),
        outcome.response_body.clone().into(),
    );
    let error: Value = outcome.error.map(ErrorWord::as_str).into();
    let ended = |is_so: bool| is_so.then_some(*ended_at);
    let delivery: [Value; 9] = [
        lease.organization_id.into(),
        lease.delivery_id.into(),
        status.map(DeliveryStatus::as_str).into(),
        lease.number_column().into(),
        response_status.clone(),
        body.clone(),
        error.clone(),
        ended(status == Some(DeliveryStatus::Delivered)).into(),
        ended(matches!(
            status,
            Some(DeliveryStatus::Failed | DeliveryStatus::Canceled)
        ))
        .into(),
    ];
    run(tx, UPDATE_DELIVERY, delivery).await?;
    let attempt: [Value; 9] = [
        lease.organization_id.into(),
        lease.delivery_id.into(),
        lease.number_column().into(),
        trigger.as_str().into(),
        (*started_at).into(),
        finished.duration_column().into(),
        response_status,
        body,
        error,
    ];
    run(tx, INSERT_ATTEMPT, attempt).await?;
    Ok(())
}

/// Runs a statement; returns how many rows it changed.
async fn run<const N: usize>(tx: &Connection<'_>, sql: &str, values: [Value; N]) -> Result<u64, StoreError> {
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}
