//! Deliveries and their attempts, as the API shows them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Statement,
};
use serde_json::value::RawValue;

pub use super::search::{DeliveryQuery, LOOKED_AT_MAX};
use super::{
    Database, StoreError,
    engine::among::{KeyType, found_among, ids_value},
    entity::{attempt, delivery, queued},
    events,
    page::{Page, PageLimit},
    search::{self, WalkResult},
};
use crate::domain::{
    delivery::{Attempt, Delivery, DeliveryObject, DeliveryStatus, DeliveryWithPayload},
    event_id::EventId,
    id::{DeliveryId, OrganizationId},
};

/// The delivery with that id, including its payload.
pub async fn find(
    db: &Database,
    org: OrganizationId,
    id: DeliveryId,
) -> Result<Option<DeliveryWithPayload>, StoreError> {
    let rows = delivery::Entity::find().from_raw_sql(by_id(db, org, id, "found.*"));
    let rows = rows.all(&db.read()).await?;
    let payloads = events::payloads(db, org, event_ids(&rows)).await?;
    Ok(with_payloads(views(db, org, rows).await?, &payloads).pop())
}

/// Whether a delivery with that id exists.
pub async fn exists(db: &Database, org: OrganizationId, id: DeliveryId) -> Result<bool, StoreError> {
    let found = db.read().query_one_raw(by_id(db, org, id, "found.id")).await?;
    Ok(found.is_some())
}

fn by_id(db: &Database, org: OrganizationId, id: DeliveryId, columns: &str) -> Statement {
    let backend = db.backend();
    let rows = found_among(backend, "deliveries", "id", KeyType::Ids);
    let values = [org.into(), ids_value(backend, [id])];
    Statement::from_sql_and_values(backend, format!("SELECT {columns} FROM {rows}"), values)
}

/// A page of the organization's deliveries that match `query`, newest first, including their payloads.
///
/// Deliveries that retention deletes meanwhile are omitted.
pub async fn list(
    db: &Database,
    org: OrganizationId,
    query: &DeliveryQuery,
    limit: PageLimit,
) -> Result<Page<DeliveryWithPayload, DeliveryId>, StoreError> {
    let WalkResult { rows, next } = search::newest(db, org, query, limit.fetch()).await?;
    let sizes = events::payload_bytes(db, org, event_ids(&rows)).await?;
    let bytes = |row: &delivery::Model| sizes.get(&row.event_id).copied().unwrap_or(0) + body_bytes(row);
    let Page { items, next } = limit.page(rows, next, |row| row.id, bytes);
    let payloads = events::payloads(db, org, event_ids(&items)).await?;
    let items = with_payloads(views(db, org, items).await?, &payloads);
    Ok(Page { items, next })
}

/// The same without payloads.
pub async fn list_bare(
    db: &Database,
    org: OrganizationId,
    query: &DeliveryQuery,
    limit: PageLimit,
) -> Result<Page<Delivery, DeliveryId>, StoreError> {
    let WalkResult { rows, next } = search::newest(db, org, query, limit.fetch()).await?;
    let Page { items, next } = limit.page(rows, next, |row| row.id, body_bytes);
    let items = views(db, org, items).await?;
    Ok(Page { items, next })
}

fn event_ids(rows: &[delivery::Model]) -> BTreeSet<EventId> {
    rows.iter().map(|row| row.event_id.clone()).collect()
}

fn body_bytes(row: &delivery::Model) -> u64 {
    row.response_body.as_ref().map_or(0, |body| body.len() as u64)
}

fn with_payloads(deliveries: Vec<Delivery>, payloads: &HashMap<EventId, Arc<RawValue>>) -> Vec<DeliveryWithPayload> {
    let with_payload = |delivery: Delivery| {
        let payload = Arc::clone(payloads.get(&delivery.event_id)?);
        Some(DeliveryWithPayload { delivery, payload })
    };
    deliveries.into_iter().filter_map(with_payload).collect()
}

/// A page of a delivery's attempts, oldest first, starting after attempt number `after`.
pub async fn attempts(
    db: &Database,
    org: OrganizationId,
    delivery_id: DeliveryId,
    after: i32,
    limit: PageLimit,
) -> Result<Page<Attempt, i32>, StoreError> {
    let rows = attempt::Entity::find()
        .filter(attempt::Column::OrganizationId.eq(org))
        .filter(attempt::Column::DeliveryId.eq(delivery_id))
        .filter(attempt::Column::Number.gt(after))
        .order_by_asc(attempt::Column::Number)
        .limit(limit.fetch())
        .all(&db.read_long())
        .await?;
    let attempts = rows.into_iter().map(attempt_view).collect();
    let bytes = |attempt: &Attempt| attempt.response_body.as_ref().map_or(0, |body| body.len() as u64);
    Ok(limit.page(attempts, None, |attempt| attempt.number, bytes))
}

/// The deliveries of these rows, each with its queue entry, in the order of the rows.
///
/// A join would need only one statement; but as long as PostgreSQL's planner has no statistics for an organization, it
/// joins by reading all of the organization's queue for each delivery.
async fn views(db: &Database, org: OrganizationId, rows: Vec<delivery::Model>) -> Result<Vec<Delivery>, StoreError> {
    let queue_entries = queue_entries(db, org, &rows).await?;
    let view = |row: delivery::Model| {
        let entry = queue_entries.get(&row.id);
        view(row, entry)
    };
    Ok(rows.into_iter().map(view).collect())
}

/// The queue entries of the pending ones.
async fn queue_entries(
    db: &Database,
    org: OrganizationId,
    rows: &[delivery::Model],
) -> Result<HashMap<DeliveryId, queued::Model>, StoreError> {
    let pending = rows.iter().filter(|row| row.status == DeliveryStatus::Pending);
    let pending: Vec<DeliveryId> = pending.map(|row| row.id).collect();
    if pending.is_empty() {
        return Ok(HashMap::new());
    }
    let backend = db.backend();
    let rows = found_among(backend, "queue", "delivery_id", KeyType::Ids);
    let values = [org.into(), ids_value(backend, pending)];
    let statement = Statement::from_sql_and_values(backend, format!("SELECT found.* FROM {rows}"), values);
    let queue_entries = queued::Entity::find().from_raw_sql(statement);
    let queue_entries = queue_entries.all(&db.read_long()).await?;
    Ok(queue_entries
        .into_iter()
        .map(|entry| (entry.delivery_id, entry))
        .collect())
}

fn view(row: delivery::Model, entry: Option<&queued::Model>) -> Delivery {
    // While an attempt is in progress, `due_at` is the end of its lease, which is internal.
    let planned = entry.filter(|entry| entry.lease_token.is_none());
    Delivery {
        id: row.id,
        object: DeliveryObject::WebhookDelivery,
        webhook_id: row.webhook_id,
        event_id: row.event_id,
        event_type: row.event_type,
        status: row.status,
        attempt_count: entry.map_or(row.attempt_count, |entry| entry.attempt_count),
        next_attempt_at: planned.map(|entry| entry.due_at),
        response_status: row.response_status,
        response_body: row.response_body,
        error: row.error,
        created_at: row.created_at,
        delivered_at: row.delivered_at,
    }
}

fn attempt_view(row: attempt::Model) -> Attempt {
    Attempt {
        number: row.number,
        trigger: row.trigger,
        started_at: row.started_at,
        duration_ms: row.duration_ms,
        response_status: row.response_status,
        response_body: row.response_body,
        error: row.error,
    }
}
