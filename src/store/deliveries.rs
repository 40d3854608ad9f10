//! Deliveries and their attempts, as the API shows them.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use sea_orm::{
    ColumnTrait, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
    sea_query::{Expr, ExprTrait as _},
};
use serde_json::value::RawValue;

use super::{
    Database, StoreError,
    engine::among::{among_ids, among_texts},
    entity::{attempt, delivery, event, queued},
    events,
};
use crate::domain::{
    delivery::{AttemptTrigger, DeliveryStatus},
    event_id::EventId,
    id::{DeliveryId, OrganizationId, WebhookId},
    outcome::ErrorWord,
    timestamp::Timestamp,
};

/// One event owed to one webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The webhook it is owed to; it may have been deleted since.
    pub webhook_id: WebhookId,
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
    pub webhook_id: Option<WebhookId>,
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
    pub after: Option<DeliveryId>,
}

/// The delivery of that id.
pub async fn find(db: &Database, org: OrganizationId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    let row = delivery::Entity::find_by_id((org, id)).one(&db.read()).await?;
    Ok(with_events(db, org, row.into_iter().collect()).await?.pop())
}

/// The organization's deliveries that answer to `query`, newest first, at most `limit` where there is one.
pub async fn list(
    db: &Database,
    org: OrganizationId,
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
        event_id.clone().map(|id| delivery::Column::EventId.eq(id)),
        event_type
            .as_ref()
            .map(|event_type| delivery::Column::EventType.eq(event_type.as_str())),
        status.map(stands_so),
        after.map(|id| delivery::Column::Id.lt(id)),
    ];
    let select = conditions
        .into_iter()
        .flatten()
        .fold(delivery::Entity::find(), Select::filter);
    let select = select
        .filter(delivery::Column::OrganizationId.eq(org))
        .filter(made_between(*created_after, *created_before));
    // An event's deliveries are few enough to be looked at, whatever they stand at.
    let rows = if *status == Some(DeliveryStatus::Pending) && event_id.is_none() {
        queued_rows(db, org, query, select, limit).await?
    } else {
        let select = select.order_by_desc(delivery::Column::Id).limit(limit);
        select.all(&db.read_long()).await?
    };
    with_events(db, org, rows).await
}

/// Places in the queue that are looked at together.
const PLACES_AT_A_TIME: u64 = 200;

/// The deliveries in the queue that `select` chooses, newest first. The queue leads, and so the time that it takes does
/// not depend on the history: a planner that leads with the latter walks past all of it to find that nothing waits.
async fn queued_rows(
    db: &Database,
    org: OrganizationId,
    query: &DeliveryQuery,
    select: Select<delivery::Entity>,
    limit: Option<u64>,
) -> Result<Vec<delivery::Model>, StoreError> {
    let (mut rows, mut after) = (Vec::new(), query.after);
    loop {
        let places = queued::Entity::find()
            .select_only()
            .column(queued::Column::DeliveryId)
            .filter(queued::Column::OrganizationId.eq(org))
            .filter(queued::Column::Owed.eq(true))
            .filter(Condition::all().add_option(query.webhook_id.map(|id| queued::Column::WebhookId.eq(id))))
            .filter(Condition::all().add_option(after.map(|id| queued::Column::DeliveryId.lt(id))))
            .filter(id_between(
                queued::Column::DeliveryId,
                query.created_after,
                query.created_before,
            ))
            .order_by_desc(queued::Column::DeliveryId)
            .limit(PLACES_AT_A_TIME);
        let ids: Vec<DeliveryId> = places.into_tuple().all(&db.read_long()).await?;
        if ids.is_empty() {
            return Ok(rows);
        }
        after = ids.last().copied();
        let chosen = select.clone().filter(among_ids(db.backend(), "id", ids));
        let left = limit.map(|limit| limit - rows.len() as u64);
        let chosen = chosen.order_by_desc(delivery::Column::Id).limit(left);
        rows.extend(chosen.all(&db.read_long()).await?);
        if limit.is_some_and(|limit| rows.len() as u64 >= limit) {
            return Ok(rows);
        }
    }
}

/// That a delivery stands so. The few that ended without success are found by what only those have, not by walking past
/// all the others.
pub(super) fn stands_so(status: DeliveryStatus) -> Expr {
    let is = delivery::Column::Status.eq(status);
    match status {
        DeliveryStatus::Failed | DeliveryStatus::Canceled => is.and(delivery::Column::UndeliveredAt.is_not_null()),
        DeliveryStatus::Pending | DeliveryStatus::Delivered | DeliveryStatus::Unknown => is,
    }
}

/// The attempts of a delivery, oldest first, from the one after number `after`, at most `limit`.
pub async fn attempts(
    db: &Database,
    org: OrganizationId,
    delivery_id: DeliveryId,
    after: i32,
    limit: u64,
) -> Result<Vec<Attempt>, StoreError> {
    let rows = attempt::Entity::find()
        .filter(attempt::Column::OrganizationId.eq(org))
        .filter(attempt::Column::DeliveryId.eq(delivery_id))
        .filter(attempt::Column::Number.gt(after))
        .order_by_asc(attempt::Column::Number)
        .limit(limit)
        .all(&db.read_long())
        .await?;
    Ok(rows.into_iter().map(attempt_view).collect())
}

/// How far the time in a delivery's id may be from that of its event: ids are made when the event is recorded, and
/// clocks of nodes differ.
const ID_SLACK: Duration = Duration::from_hours(1);

/// Deliveries of events that were published in a span of time. The ids, which begin with a time, bound the walk over
/// the index; the events' times decide.
pub(super) fn made_between(since: Option<Timestamp>, until: Option<Timestamp>) -> Condition {
    id_between(delivery::Column::Id, since, until)
        .add_option(since.map(|instant| delivery::Column::CreatedAt.gte(instant)))
        .add_option(until.map(|instant| delivery::Column::CreatedAt.lt(instant)))
}

/// Bounds on a column of delivery ids, outside of which none was made in the span.
fn id_between<C: ColumnTrait>(id: C, since: Option<Timestamp>, until: Option<Timestamp>) -> Condition {
    Condition::all()
        .add_option(since.map(|instant| id.gte(instant.minus(ID_SLACK).least_uuid())))
        .add_option(until.map(|instant| id.lt(instant.plus(ID_SLACK).least_uuid())))
}

/// The deliveries with their events and their places in the queue, in the order of the rows. One that retention took meanwhile is left out.
///
/// A join would do in one statement; but where PostgreSQL's planner has not heard of an organization yet, it joins by
/// reading all of the organization's events for each delivery.
async fn with_events(
    db: &Database,
    org: OrganizationId,
    rows: Vec<delivery::Model>,
) -> Result<Vec<Delivery>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.event_id.as_str()).collect();
    let ids = ids.into_iter().map(str::to_owned).collect();
    let events = event::Entity::find()
        .filter(event::Column::OrganizationId.eq(org))
        .filter(among_texts(db.backend(), "id", ids))
        .all(&db.read_long())
        .await?;
    let events: HashMap<EventId, event::Model> = events.into_iter().map(|event| (event.id.clone(), event)).collect();
    let places = places(db, org, &rows).await?;
    let found = rows.into_iter().filter_map(|row| {
        let event = events.get(&row.event_id)?;
        let place = places.get(&row.id);
        Some(view(row, event, place))
    });
    found.collect()
}

/// The places in the queue of those that are pending.
async fn places(
    db: &Database,
    org: OrganizationId,
    rows: &[delivery::Model],
) -> Result<HashMap<DeliveryId, queued::Model>, StoreError> {
    let pending = rows.iter().filter(|row| row.status == DeliveryStatus::Pending);
    let pending: Vec<DeliveryId> = pending.map(|row| row.id).collect();
    if pending.is_empty() {
        return Ok(HashMap::new());
    }
    let places = queued::Entity::find()
        .filter(queued::Column::OrganizationId.eq(org))
        .filter(among_ids(db.backend(), "delivery_id", pending))
        .all(&db.read_long())
        .await?;
    Ok(places.into_iter().map(|place| (place.delivery_id, place)).collect())
}

fn view(row: delivery::Model, event: &event::Model, place: Option<&queued::Model>) -> Result<Delivery, StoreError> {
    // While an attempt is under way `due_at` is the end of its lease, which is nobody's business.
    let planned = place.filter(|place| place.lease_token.is_none());
    Ok(Delivery {
        id: row.id,
        webhook_id: row.webhook_id,
        event_id: row.event_id,
        event_type: row.event_type,
        payload: events::payload_json(&event.payload)?,
        status: row.status,
        attempt_count: place.map_or(row.attempt_count, |place| place.attempt_count),
        next_attempt_at: planned.map(|place| place.due_at),
        response_status: row.response_status,
        response_body: row.response_body,
        error: row.error,
        created_at: row.created_at,
        delivered_at: row.delivered_at,
    })
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
