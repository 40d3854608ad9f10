//! Recording many attempts on PostgreSQL, where a statement costs a round trip: one for all of them.

use std::{collections::HashSet, sync::LazyLock};

use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement, Value, prelude::Uuid};

use super::lease::{Fence, Finished};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        id::{DeliveryId, LeaseToken},
        outcome::ErrorWord,
        timestamp::Timestamp,
        word::Word as _,
    },
    store::{
        Database, StoreError,
        engine::{Connection, among::array},
    },
};

/// The columns of attempts as arrays, in the order of `ATTEMPTS`.
fn arrays(ended: &[&Finished]) -> [Value; 11] {
    let outcomes = || ended.iter().map(|finished| &finished.outcome);
    [
        array(ended, |finished| Uuid::from(finished.lease.organization_id)),
        array(ended, |finished| Uuid::from(finished.lease.delivery_id)),
        array(ended, |finished| Uuid::from(finished.lease.webhook_id)),
        array(ended, |finished| Uuid::from(finished.lease.token)),
        array(ended, |finished| finished.lease.number_column()),
        array(ended, |finished| finished.trigger.as_str().to_owned()),
        array(ended, |finished| finished.started_at.as_millis()),
        array(ended, |finished| finished.duration_column()),
        array(outcomes(), |outcome| outcome.response_status.map_or(0, i32::from)),
        array(outcomes(), |outcome| outcome.response_body.clone().unwrap_or_default()),
        array(outcomes(), |outcome| outcome.response_body.is_some()),
    ]
}

/// Rows of attempts from the arrays of [`arrays`]. The driver's arrays cannot hold NULL: a status of 0 and an empty
/// body stand for it.
const ATTEMPTS: &str = "ended AS MATERIALIZED (
        SELECT organization_id, delivery_id, webhook_id, token, number, attempt_trigger, started_at, duration_ms,
            NULLIF(status, 0) AS response_status, CASE WHEN has_body THEN body END AS response_body
        FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::bigint[], $8::bigint[],
                    $9::int[], $10::text[], $11::bool[])
            AS e(organization_id, delivery_id, webhook_id, token, number, attempt_trigger, started_at, duration_ms,
                 status, body, has_body))";

/// The recorded attempts, by delivery and token.
#[derive(FromQueryResult)]
struct RecordedAttempt {
    delivery_id: DeliveryId,
    token: LeaseToken,
}

pub(in crate::store) static RECORD_PLAIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH {ATTEMPTS}, gone AS (
            DELETE FROM queue USING ended
            WHERE queue.organization_id = ended.organization_id AND queue.delivery_id = ended.delivery_id
                AND lease_token = token AND NOT EXISTS (
                    SELECT 1 FROM webhooks WHERE webhooks.organization_id = ended.organization_id
                        AND webhooks.id = ended.webhook_id AND (failing_since IS NOT NULL OR recovery_owed))
            RETURNING queue.delivery_id, lease_token
        ), recorded AS MATERIALIZED (
            SELECT ended.* FROM ended JOIN gone ON gone.delivery_id = ended.delivery_id AND gone.lease_token = token
        ), updated AS (
            UPDATE deliveries SET attempt_count = recorded.number, response_status = recorded.response_status,
                response_body = recorded.response_body, error = NULL,
                status = CASE WHEN status = 'canceled' THEN status ELSE 'delivered' END,
                delivered_at = CASE WHEN status = 'canceled' THEN delivered_at
                    ELSE COALESCE(delivered_at, started_at + duration_ms) END,
                undelivered_at = CASE WHEN status = 'canceled' THEN undelivered_at END
            FROM recorded
            WHERE deliveries.organization_id = recorded.organization_id AND deliveries.id = recorded.delivery_id
        ), noted AS (
            INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms,
                response_status, response_body)
            SELECT organization_id, delivery_id, number, attempt_trigger, started_at, duration_ms, response_status,
                response_body FROM recorded
        )
        SELECT delivery_id, token FROM recorded"
    )
});

/// Records successes of healthy webhooks in one statement. Those it skips have lost their lease, or their webhook's
/// health has something to clear.
pub(super) async fn record_plain(db: &Database, ended: &[&Finished]) -> Result<HashSet<Fence>, StoreError> {
    let connection = db.read();
    let statement =
        Statement::from_sql_and_values(connection.get_database_backend(), RECORD_PLAIN.as_str(), arrays(ended));
    let rows = RecordedAttempt::find_by_statement(statement)
        .all(&connection)
        .await
        .map_err(StoreError::of_commit)?;
    Ok(rows.into_iter().map(|row| (row.delivery_id, row.token)).collect())
}

pub(in crate::store) static RECORD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH {ATTEMPTS}, decided AS MATERIALIZED (
            SELECT ended.*, NULLIF(new_status, '') AS new_status, NULLIF(error, '') AS error,
                NULLIF(planned_at, 0) AS planned_at, started_at + duration_ms AS ended_at
            FROM ended JOIN UNNEST($2::uuid[], $4::uuid[], $12::text[], $13::text[], $14::bigint[])
                AS d(decided_delivery, decided_token, new_status, error, planned_at)
                ON decided_delivery = delivery_id AND decided_token = token
        ), gone AS (
            DELETE FROM queue USING decided
            WHERE queue.organization_id = decided.organization_id AND queue.delivery_id = decided.delivery_id
                AND decided.planned_at IS NULL
        ), planned AS (
            UPDATE queue SET lease_token = NULL, lease_node = NULL, due_at = decided.planned_at FROM decided
            WHERE queue.organization_id = decided.organization_id AND queue.delivery_id = decided.delivery_id
                AND decided.planned_at IS NOT NULL
        ), updated AS (
            UPDATE deliveries SET attempt_count = decided.number, response_status = decided.response_status,
                response_body = decided.response_body, error = decided.error,
                status = CASE WHEN status = 'canceled' THEN status ELSE COALESCE(new_status, status) END,
                delivered_at = CASE WHEN status <> 'canceled' AND new_status = 'delivered'
                    THEN COALESCE(delivered_at, decided.ended_at) ELSE delivered_at END,
                undelivered_at = CASE WHEN status = 'canceled' OR new_status IS NULL THEN undelivered_at
                    WHEN new_status IN ('failed', 'canceled') THEN COALESCE(undelivered_at, decided.ended_at) END
            FROM decided
            WHERE deliveries.organization_id = decided.organization_id AND deliveries.id = decided.delivery_id
        )
        INSERT INTO attempts (organization_id, delivery_id, number, \"trigger\", started_at, duration_ms,
            response_status, response_body, error)
        SELECT organization_id, delivery_id, number, attempt_trigger, started_at, duration_ms, response_status,
            response_body, error FROM decided"
    )
});

/// Records attempts whose leases hold and are locked. A delivery that is no longer owed keeps its status, unless it was
/// delivered now.
pub(super) async fn record(tx: &Connection<'_>, ended: &[(&Finished, bool)]) -> Result<(), StoreError> {
    let attempts: Vec<&Finished> = ended.iter().map(|(finished, _)| *finished).collect();
    let status = |(finished, is_owed): &(&Finished, bool)| {
        let is_new = *is_owed || finished.status == DeliveryStatus::Delivered;
        if is_new {
            finished.status.as_str().to_owned()
        } else {
            String::new()
        }
    };
    let planned = |(finished, is_owed): &(&Finished, bool)| {
        finished
            .next_attempt_at
            .filter(|_| *is_owed)
            .map_or(0, Timestamp::as_millis)
    };
    let error = |finished: &&Finished| {
        let word = finished.outcome.error.map(ErrorWord::as_str);
        word.unwrap_or_default().to_owned()
    };
    let decided: [Value; 3] = [array(ended, status), array(&attempts, error), array(ended, planned)];
    let values = arrays(&attempts).into_iter().chain(decided);
    tx.execute_raw(Statement::from_sql_and_values(
        DbBackend::Postgres,
        RECORD.as_str(),
        values,
    ))
    .await?;
    Ok(())
}
