//! Deliveries and their attempts, as the API shows them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Statement,
};
use serde_json::value::RawValue;

pub use super::search::{DeliveryQuery, LOOKED_AT_MAX};
use super::{
    Database, StoreError,
    engine::among::{KeyType, found_among, ids_value},
    entity::attempt,
    events,
    page::{Page, PageLimit},
    search::{self, WalkResult},
    shown,
};
use crate::domain::{
    delivery::{Attempt, Delivery, DeliveryWithPayload},
    event_id::EventId,
    id::{DeliveryId, OrganizationId},
};

/// The delivery with that id, including its payload.
pub async fn find(
    db: &Database,
    org: OrganizationId,
    id: DeliveryId,
) -> Result<Option<DeliveryWithPayload>, StoreError> {
    let backend = db.backend();
    let found = by_id(backend, org, id, shown::COLUMNS, shown::entries(backend));
    let found = db.read().query_one_raw(found).await?;
    let found: Vec<Delivery> = found.iter().map(shown::delivery).collect::<Result<_, _>>()?;
    let payloads = events::payloads(db, org, event_ids(&found)).await?;
    Ok(with_payloads(found, &payloads).pop())
}

/// Whether a delivery with that id exists.
pub async fn exists(db: &Database, org: OrganizationId, id: DeliveryId) -> Result<bool, StoreError> {
    let found = by_id(db.backend(), org, id, "found.id", "");
    Ok(db.read().query_one_raw(found).await?.is_some())
}

fn by_id(backend: DbBackend, org: OrganizationId, id: DeliveryId, columns: &str, join: &str) -> Statement {
    let rows = found_among(backend, "deliveries", "id", KeyType::Ids);
    let values = [org.into(), ids_value(backend, [id])];
    Statement::from_sql_and_values(backend, format!("SELECT {columns} FROM {rows} {join}"), values)
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
    let bytes = |row: &Delivery| sizes.get(&row.event_id).copied().unwrap_or(0) + body_bytes(row);
    let Page { items, next } = limit.page(rows, next, |row| row.id, bytes);
    let payloads = events::payloads(db, org, event_ids(&items)).await?;
    let items = with_payloads(items, &payloads);
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
    Ok(limit.page(rows, next, |row| row.id, body_bytes))
}

fn event_ids(rows: &[Delivery]) -> BTreeSet<EventId> {
    rows.iter().map(|row| row.event_id.clone()).collect()
}

fn body_bytes(row: &Delivery) -> u64 {
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
