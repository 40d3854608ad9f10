//! Deliveries and their attempts, as the API shows them.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, SelectTwo};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Database, StoreError,
    entity::{attempt, delivery, event},
    error::readable,
    events,
};
use crate::domain::{
    delivery::{AttemptTrigger, DeliveryStatus},
    event_id::EventId,
    outcome::ErrorWord,
    timestamp::Timestamp,
};

/// One event owed to one webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// The webhook it is owed to; it may have been deleted since.
    pub webhook_id: Uuid,
    /// The event.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: String,
    /// The JSON text that every attempt sends.
    pub payload: Box<RawValue>,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts begun so far.
    pub attempt_count: i32,
    /// When the next attempt is due, while one is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// The status of the last answer.
    pub response_status: Option<i32>,
    /// The beginning of the last answer's body.
    pub response_body: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<ErrorWord>,
    /// When the event was published.
    pub created_at: Timestamp,
    /// When it first succeeded.
    pub delivered_at: Option<Timestamp>,
}

/// One HTTP try.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: i32,
    /// Why it was made.
    pub trigger: AttemptTrigger,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// The status of the answer.
    pub response_status: Option<i32>,
    /// The beginning of the answer's body.
    pub response_body: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorWord>,
}

/// Which deliveries to list; `None` is no condition.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Of this webhook.
    pub webhook_id: Option<Uuid>,
    /// Of this event.
    pub event_id: Option<EventId>,
    /// Of events of this type.
    pub event_type: Option<String>,
    /// That stand so.
    pub status: Option<DeliveryStatus>,
    /// Made at this instant or after it.
    pub created_after: Option<Timestamp>,
    /// Made before this instant.
    pub created_before: Option<Timestamp>,
    /// Older than this delivery.
    pub after: Option<Uuid>,
}

/// The delivery of that id.
pub async fn find(db: &Database, org: Uuid, id: Uuid) -> Result<Option<Delivery>, StoreError> {
    let query = of_organization(org).filter(delivery::Column::Id.eq(id));
    query.one(&db.read).await?.map(view).transpose()
}

/// The organization's deliveries that answer to `query`, newest first, at most `limit` where there is one.
pub async fn list(
    db: &Database,
    org: Uuid,
    query: &DeliveryQuery,
    limit: Option<u64>,
) -> Result<Vec<Delivery>, StoreError> {
    let DeliveryQuery {
        webhook_id,
        event_id,
        event_type,
        status,
        created_after,
        created_before,
        after,
    } = query;
    let conditions = [
        webhook_id.map(|id| delivery::Column::WebhookId.eq(id)),
        event_id.as_ref().map(|id| delivery::Column::EventId.eq(id.as_str())),
        event_type
            .as_ref()
            .map(|event_type| delivery::Column::EventType.eq(event_type.as_str())),
        status.map(|status| delivery::Column::Status.eq(status.as_str())),
        created_after.map(|instant| delivery::Column::CreatedAt.gte(instant.as_millis())),
        created_before.map(|instant| delivery::Column::CreatedAt.lt(instant.as_millis())),
        after.map(|id| delivery::Column::Id.lt(id)),
    ];
    let select = conditions
        .into_iter()
        .flatten()
        .fold(of_organization(org), SelectTwo::filter);
    let select = select.order_by_desc(delivery::Column::Id).limit(limit);
    select.all(&db.read).await?.into_iter().map(view).collect()
}

/// The attempts of a delivery, oldest first, from the one after number `after`, at most `limit`.
pub async fn attempts(
    db: &Database,
    org: Uuid,
    delivery_id: Uuid,
    after: i32,
    limit: u64,
) -> Result<Vec<Attempt>, StoreError> {
    let rows = attempt::Entity::find()
        .filter(attempt::Column::OrganizationId.eq(org))
        .filter(attempt::Column::DeliveryId.eq(delivery_id))
        .filter(attempt::Column::Number.gt(after))
        .order_by_asc(attempt::Column::Number)
        .limit(limit)
        .all(&db.read)
        .await?;
    rows.into_iter().map(attempt_view).collect()
}

fn of_organization(org: Uuid) -> SelectTwo<delivery::Entity, event::Entity> {
    delivery::Entity::find()
        .find_also_related(event::Entity)
        .filter(delivery::Column::OrganizationId.eq(org))
}

fn view((row, event): (delivery::Model, Option<event::Model>)) -> Result<Delivery, StoreError> {
    let status = readable(DeliveryStatus::parse(&row.status), "deliveries.status", &row.status)?;
    let event = readable(event, "deliveries.event_id", &row.event_id)?;
    // While an attempt is under way `due_at` is the end of its lease, which is nobody's business.
    let planned = status == DeliveryStatus::Pending && row.lease_token.is_none();
    Ok(Delivery {
        id: row.id,
        webhook_id: row.webhook_id,
        event_id: readable(EventId::parse(&row.event_id), "deliveries.event_id", &row.event_id)?,
        event_type: row.event_type,
        payload: events::payload_json(&event.payload)?,
        status,
        attempt_count: row.attempt_count,
        next_attempt_at: row.due_at.filter(|_| planned).map(Timestamp::from_millis),
        response_status: row.response_status,
        response_body: row.response_body,
        error: error_word(row.error.as_deref(), "deliveries.error")?,
        created_at: Timestamp::from_millis(row.created_at),
        delivered_at: row.delivered_at.map(Timestamp::from_millis),
    })
}

fn attempt_view(row: attempt::Model) -> Result<Attempt, StoreError> {
    Ok(Attempt {
        number: row.number,
        trigger: readable(AttemptTrigger::parse(&row.trigger), "attempts.trigger", &row.trigger)?,
        started_at: Timestamp::from_millis(row.started_at),
        duration_ms: row.duration_ms,
        response_status: row.response_status,
        response_body: row.response_body,
        error: error_word(row.error.as_deref(), "attempts.error")?,
    })
}

fn error_word(stored: Option<&str>, column: &str) -> Result<Option<ErrorWord>, StoreError> {
    stored.map(|word| readable(word.parse().ok(), column, word)).transpose()
}
