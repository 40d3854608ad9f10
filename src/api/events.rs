//! `/v1/events`: publish what happened, and look at what was published.

use axum::{
    Json,
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
    context::note_organization,
    deliveries::Delivery,
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
        event::{self, Publication, Recorded},
        event_id::EventId,
        id::OrganizationId,
        operational::is_operational,
        timestamp::Timestamp,
    },
    store::{StoreError, deliveries, deliveries::DeliveryQuery, events},
};

/// An event, exactly as it stands on the wire.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Event {
    #[schema(value_type = String, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    id: EventId,
    object: EventObject,
    r#type: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

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
    deliveries: Vec<Delivery>,
}

/// The discriminator of an event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EventObject {
    Event,
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

/// Query of GET /v1/events.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListEventsQuery {
    #[serde(default = "ListEventsQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    #[validate(range(min = 1, max = 200))]
    limit: u32,
    #[param(value_type = Option<String>, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    after: Option<EventId>,
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
) -> Result<Page<Event>, Problem> {
    let found = events::list(&state.db, caller.organization_id, after.as_ref(), page::fetch(limit)).await?;
    let views = found.iter().map(view).collect::<Result<_, _>>()?;
    Ok(Page::new(views, limit, &uri, |event: &Event| event.id.to_string()))
}

#[utoipa::path(
    get, path = "/v1/events/{event_id}", tag = "events", security(("bearer" = ["webhooks:read"])),
    params(("event_id" = String, Path, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")),
    responses((status = 200, body = EventWithDeliveries), WithToken, WithId),
)]
pub(super) async fn get_event(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(event_id): Path<EventId>,
) -> Result<Json<EventWithDeliveries>, Problem> {
    let org = caller.organization_id;
    let found = events::find(&state.db, org, &event_id)
        .await?
        .ok_or_else(|| Problem::not_found("event"))?;
    // An event has one delivery a webhook at most, and an organization no more than a hundred webhooks.
    let question = DeliveryQuery {
        event_id: Some(event_id),
        ..DeliveryQuery::default()
    };
    let deliveries = deliveries::list(&state.db, org, &question, None)
        .await?
        .into_iter()
        .map(Delivery::from)
        .collect();
    let Event {
        id,
        object,
        r#type,
        created_at,
        data,
    } = view(&found)?;
    Ok(Json(EventWithDeliveries {
        id,
        object,
        r#type,
        created_at,
        data,
        deliveries,
    }))
}

fn view(event: &event::Event) -> Result<Event, StoreError> {
    serde_json::from_slice(&event.payload).map_err(|cause| StoreError::Corrupt(format!("events.payload: {cause}")))
}
