//! `/v1/events`: publish what happened, and look at what was published.

use axum::{
    extract::{OriginalUri, State},
    http::{StatusCode, header::LOCATION},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::{IntoParams, ToSchema};
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, EventsPublish, Holder, WebhooksRead},
    context::{note_event, note_organization},
    deliveries::DeliveryObject,
    event::{Event, EventObject},
    extract::{Body, Faults, Path, Query, RequestBody},
    idempotency::{IdempotencyKeyHeader, Kept},
    page::{self, Page},
    problem::Problem,
    responses::{WithBody, WithConflict, WithId, WithIdempotencyKey, WithQuery, WithToken},
    trace::{Trace, TraceparentHeader},
    webhooks::check_event_type,
};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::{self, EventCursor, Publication, Recorded},
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
        operational::is_operational,
        outcome::ErrorWord,
        timestamp::Timestamp,
    },
    store::{
        StoreError,
        deliveries::{self, DeliveryQuery},
        events,
        page::PageLimit,
    },
};

/// An event with its deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventWithDeliveries {
    #[schema(value_type = String, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    id: EventId,
    object: EventObject,
    r#type: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    #[schema(value_type = Vec<EventDelivery>, max_items = 100)]
    deliveries: Box<RawValue>,
}

/// What became of an event at one webhook: a delivery without its payload, which is the event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventDelivery {
    #[schema(value_type = Uuid)]
    id: DeliveryId,
    object: DeliveryObject,
    #[schema(value_type = Uuid)]
    webhook_id: WebhookId,
    #[schema(value_type = String, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    event_id: EventId,
    event_type: String,
    status: DeliveryStatus,
    #[schema(minimum = 0)]
    attempt_count: i32,
    #[schema(required, minimum = 100, maximum = 599)]
    response_status: Option<i32>,
    #[schema(required, max_length = 4096)]
    response_body: Option<String>,
    #[schema(required)]
    error: Option<ErrorWord>,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    delivered_at: Option<Timestamp>,
}

impl From<deliveries::Delivery> for EventDelivery {
    fn from(delivery: deliveries::Delivery) -> Self {
        let deliveries::Delivery {
            id,
            webhook_id,
            event_id,
            event_type,
            status,
            attempt_count,
            next_attempt_at,
            response_status,
            response_body,
            error,
            created_at,
            delivered_at,
        } = delivery;
        Self {
            id,
            object: DeliveryObject::WebhookDelivery,
            webhook_id,
            event_id,
            event_type,
            status,
            attempt_count,
            response_status,
            response_body,
            error,
            next_attempt_at,
            created_at,
            delivered_at,
        }
    }
}

/// Body for POST /v1/events.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishEvent {
    // Absent is empty here and refused by the schema, so that the other fields are judged all the same.
    #[serde(default)]
    #[schema(required, min_length = 1, max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(length(max = 64))]
    r#type: String,
    #[serde(default)]
    #[schema(required, value_type = Object)]
    data: Option<Box<RawValue>>,
    #[schema(value_type = Option<String>, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    id: Option<EventId>,
    #[schema(value_type = Option<Uuid>)]
    org_id: Option<OrganizationId>,
}

/// An event to publish, but for what the server adds.
pub(super) struct NewEvent {
    event_type: String,
    data: Box<RawValue>,
    id: Option<EventId>,
    org_id: Option<OrganizationId>,
}

impl RequestBody for PublishEvent {
    type Parsed = NewEvent;
    const BYTES_MAX: usize = 256 * 1024;

    /// The schema of `data` depends on `type`.
    fn judge(value: &Value, state: &ApiState, faults: &mut Faults) {
        if let (Some(event_type), Some(data)) = (value["type"].as_str(), value.get("data")) {
            state.contract.judge_data(event_type, data, faults);
        }
    }

    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<NewEvent> {
        let Self {
            r#type: event_type,
            data,
            id,
            org_id,
        } = self;
        check_event_type(&event_type, "/type", state, faults);
        if is_operational(&event_type) {
            faults.add(
                "/type",
                "reserved_event_type",
                &"is made by the service itself and cannot be published",
            );
        }
        Some(NewEvent {
            event_type,
            data: data?,
            id,
            org_id,
        })
    }
}

/// Deliveries that are shown with their event at most: as many as an organization may have webhooks.
const DELIVERIES_SHOWN_MAX: u64 = 100;

/// Query of GET /v1/events.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListEventsQuery {
    #[serde(default = "ListEventsQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    #[validate(range(min = 1, max = 200))]
    limit: u32,
    #[param(value_type = Option<String>, pattern = r"^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}(\.[0-9]{1,15})?$")]
    after: Option<EventCursor>,
}

impl ListEventsQuery {
    fn limit_default() -> u32 {
        50
    }
}

#[utoipa::path(
    post, path = "/v1/events", tag = "events", security(("bearer" = ["events:publish"])),
    params(TraceparentHeader, IdempotencyKeyHeader),
    request_body = PublishEvent,
    responses(
        (status = 202, body = Event, headers(("Location" = String))),
        WithToken, WithBody, WithConflict, WithIdempotencyKey
    ),
)]
pub(super) async fn publish_event(
    State(state): State<ApiState>,
    holder: Holder<EventsPublish>,
    Trace(traceparent): Trace,
    Body(new, submission): Body<PublishEvent>,
) -> Result<Response, Problem> {
    let NewEvent {
        event_type,
        data,
        id,
        org_id,
    } = new;
    let organization_id = addressee(&state, &holder, org_id).await?;
    let (id, created_at) = (id.unwrap_or_else(|| state.clock.new_event_id()), state.clock.now());
    note_event(&holder.span, &id);
    let event = Event {
        id: id.clone(),
        object: EventObject::Event,
        r#type: event_type.clone(),
        created_at,
        data,
    };
    let payload = serde_json::value::to_raw_value(&event).map_err(|cause| StoreError::Corrupt(cause.to_string()))?;
    let publication = Publication {
        organization_id,
        event_id: id.clone(),
        event_type,
        payload: Bytes::copy_from_slice(payload.get().as_bytes()),
        created_at,
        traceparent,
    };
    let respond = move |recorded: &Recorded| {
        let known;
        let payload = match recorded {
            Recorded::New => &payload,
            Recorded::Before(event) => {
                known = events::payload_json(&event.payload)?;
                &known
            }
            Recorded::Conflict => return Err(Problem::conflict("Another event was published under this id.")),
        };
        let location = (LOCATION, format!("/v1/events/{id}"));
        Kept::json(StatusCode::ACCEPTED, &[location], payload)
    };
    let record = |key| events::record(&state.db, publication, key);
    submission
        .once(&state, &holder.meter, organization_id, respond, record)
        .await
}

/// Whom the event happened to: the token's organization, or the one that a platform token names.
async fn addressee(
    state: &ApiState,
    holder: &Holder<EventsPublish>,
    named: Option<OrganizationId>,
) -> Result<OrganizationId, Problem> {
    let refused = |detail: &str| Problem::invalid("/org_id", "organization", detail);
    if let (None, Some(named)) = (holder.organization_id, named) {
        note_organization(&holder.span, named);
    }
    match (holder.organization_id, named) {
        (Some(own), Some(named)) if own != named => Err(refused("is not the organization of this token")),
        (Some(own), _) => Ok(own),
        (None, None) => Err(refused("is required with a platform token")),
        (None, Some(named)) if holder.speak_for(state, named).await? => Ok(named),
        (None, Some(_)) => Err(refused("is no organization")),
    }
}

#[utoipa::path(
    get, path = "/v1/events", tag = "events", security(("bearer" = ["webhooks:read"])),
    params(ListEventsQuery),
    responses((status = 200, body = [Event], headers(("Link" = String))), WithToken, WithQuery),
)]
pub(super) async fn list_events(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    OriginalUri(uri): OriginalUri,
    Query(ListEventsQuery { limit, after }): Query<ListEventsQuery>,
) -> Result<Page, Problem> {
    let (org, limit) = (caller.organization_id, page::limit(&state, limit));
    let after = match after {
        Some(EventCursor::Id(id)) => Some(events::position(&state.db, org, id).await?),
        Some(EventCursor::Position(position)) => Some(position),
        None => None,
    };
    let found = events::list(&state.db, org, after, limit).await?;
    let view = |event: event::Event| events::payload_json(&event.payload);
    Ok(Page::new(found, limit, &uri, event::Event::position, view)?)
}

#[utoipa::path(
    get, path = "/v1/events/{event_id}", tag = "events", security(("bearer" = ["webhooks:read"])),
    params(("event_id" = String, Path, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")),
    responses((status = 200, body = EventWithDeliveries, headers(("Link" = String))), WithToken, WithId),
)]
pub(super) async fn get_event(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(event_id): Path<EventId>,
) -> Result<Response, Problem> {
    let org = caller.organization_id;
    let found = events::find(&state.db, org, &event_id)
        .await?
        .ok_or_else(|| Problem::not_found("event"))?;
    let question = DeliveryQuery {
        event_id: Some(event_id.clone()),
        ..DeliveryQuery::default()
    };
    let limit = PageLimit {
        items: DELIVERIES_SHOWN_MAX,
        bytes: state.page_bytes_max.saturating_sub(found.payload.len() as u64),
    };
    let owed = deliveries::list_bare(&state.db, org, &question, limit).await?;
    let (json, next) = page::write(
        owed,
        limit,
        |delivery| delivery.id,
        |owed| Ok(EventDelivery::from(owed)),
    )?;
    let deliveries = serde_json::from_slice(&json).map_err(|cause| StoreError::Corrupt(cause.to_string()))?;
    let Event {
        id,
        object,
        r#type,
        created_at,
        data,
    } = view(&found)?;
    let shown = EventWithDeliveries {
        id,
        object,
        r#type,
        created_at,
        data,
        deliveries,
    };
    let shown = serde_json::to_vec(&shown).map_err(|cause| StoreError::Corrupt(cause.to_string()))?;
    let next = next.map(|after| page::link(&format!("/v1/webhook_deliveries?event_id={event_id}&after={after}")));
    Ok(page::with_link(shown, next))
}

fn view(event: &event::Event) -> Result<Event, StoreError> {
    serde_json::from_slice(&event.payload).map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}
