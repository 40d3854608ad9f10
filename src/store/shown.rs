//! A delivery with its queue entry, read by one statement. Between two statements an attempt may be recorded, and the
//! delivery would be shown with the attempt's number, but without its response.

use sea_orm::{DbBackend, DbErr, QueryResult};

use crate::domain::{
    delivery::{Delivery, DeliveryObject},
    id::LeaseToken,
    timestamp::Timestamp,
};

/// What is selected of the deliveries `found` and their [`entries`].
pub(super) const COLUMNS: &str = "found.id AS id, found.webhook_id AS webhook_id, event_id, event_type, status,
    found.attempt_count AS attempt_count, response_status, response_body, error, created_at, delivered_at,
    entry.attempt_count AS attempts_started, due_at, lease_token";

/// Joins `entry`, the queue entry of each pending delivery of `found`. `$1` is the organization.
///
/// As long as PostgreSQL's planner has no statistics for an organization, it would read all of the organization's queue for
/// each delivery. The ORDER BY, which only the primary key's index satisfies, decides.
pub(super) fn entries(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => {
            "LEFT JOIN LATERAL (SELECT attempt_count, due_at, lease_token FROM queue
             WHERE found.status = 'pending' AND organization_id = $1 AND delivery_id >= found.id AND delivery_id <= found.id
             ORDER BY delivery_id LIMIT 1) AS entry ON TRUE"
        }
        _ => {
            "LEFT JOIN queue AS entry
             ON found.status = 'pending' AND entry.organization_id = $1 AND entry.delivery_id = found.id"
        }
    }
}

/// The delivery in a row of [`COLUMNS`].
pub(super) fn delivery(row: &QueryResult) -> Result<Delivery, DbErr> {
    let due_at: Option<Timestamp> = row.try_get("", "due_at")?;
    let lease: Option<LeaseToken> = row.try_get("", "lease_token")?;
    let attempts_started: Option<i32> = row.try_get("", "attempts_started")?;
    Ok(Delivery {
        id: row.try_get("", "id")?,
        object: DeliveryObject::WebhookDelivery,
        webhook_id: row.try_get("", "webhook_id")?,
        event_id: row.try_get("", "event_id")?,
        event_type: row.try_get("", "event_type")?,
        status: row.try_get("", "status")?,
        attempt_count: match attempts_started {
            Some(count) => count,
            None => row.try_get("", "attempt_count")?,
        },
        // While an attempt is in progress, `due_at` is the end of its lease, which is internal.
        next_attempt_at: due_at.filter(|_| lease.is_none()),
        response_status: row.try_get("", "response_status")?,
        response_body: row.try_get("", "response_body")?,
        error: row.try_get("", "error")?,
        created_at: row.try_get("", "created_at")?,
        delivered_at: row.try_get("", "delivered_at")?,
    })
}
