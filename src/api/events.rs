//! `/v1/events`: publish events, and read them back.

use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::Response,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::{IntoParams, ToSchema};
use validator::{Validate, ValidationError};

use super::{
    ApiState,
    auth::{Caller, EventsPublish, Holder, WebhooksRead},
    context::{note_event, note_organization},
    extract::{Body, NoQuery, Path, Query, RequestBody},
    idempotency::{IdempotencyKeyHeader, Kept},
    meaning::{broken, known_event_type},
    page::{self, Page},
    problem::Problem,
    public_address::PublicAddress,
    responses::{WithBody, WithConflict, WithId, WithIdempotencyKey, WithNoQuery, WithQuery, WithToken},
    trace::{Trace, TraceparentHeader},
};
use crate::{
    contract::Faults,
    domain::{
        delivery::Delivery,
        event::{self, Envelope, EventCursor, EventObject, Publication, Recorded},
        event_id::EventId,
        fault_code::FaultCode,
        id::OrganizationId,
        operational::is_operational,
        trace::TraceParent,
    },
    store::{
        StoreError,
        deliveries::{self, DeliveryQuery},
        events,
        once::Once,
        page::PageLimit,
    },
};

/// An event with its deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventWithDeliveries {
    #[serde(flatten)]
    event: Envelope,
    #[schema(value_type = Vec<Delivery>, max_items = 100)]
    deliveries: Box<RawValue>,
}

/// Body for POST /v1/events.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
#[validate(context = ApiState)]
pub(super) struct PublishEvent {
    // An absent `type` is read as empty, and refused by the schema, so that the other fields are still validated.
    #[serde(default)]
    #[schema(required, min_length = 1, max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(
        custom(function = known_event_type, use_context),
        custom(function = not_reserved)
    )]
    r#type: String,
    #[serde(default)]
    #[schema(required, value_type = Object)]
    data: Option<Box<RawValue>>,
    id: Option<EventId>,
    org_id: Option<OrganizationId>,
}

/// An event to publish, without what the server adds.
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
    fn check_shape(value: &Value, state: &ApiState, faults: &mut Faults) {
        if let (Some(event_type), Some(data)) = (value["type"].as_str(), value.get("data")) {
            state.contract.check_data(event_type, data, faults);
        }
    }

    fn parse(self, _: &ApiState) -> Option<NewEvent> {
        let Self {
            r#type: event_type,
            data,
            id,
            org_id,
        } = self;
        Some(NewEvent {
            event_type,
            data: data?,
            id,
            org_id,
        })
    }
}

/// Refuses event types that only the service itself publishes.
fn not_reserved(event_type: &str) -> Result<(), ValidationError> {
    if is_operational(event_type) {
        let detail = "is published only by the service itself";
        return Err(broken(FaultCode::ReservedEventType, &detail));
    }
    Ok(())
}

/// The maximum number of deliveries shown with their event: as many as an organization may have webhooks.
const DELIVERIES_SHOWN_MAX: u64 = 100;

/// Query of GET /v1/events.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[validate(context = ApiState)]
#[into_params(parameter_in = Query)]
pub(super) struct ListEventsQuery {
    #[param(max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(custom(function = known_event_type, use_context))]
    r#type: Option<String>,
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    limit: u32,
    #[param(value_type = Option<String>, pattern = r"^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}(\.[0-9]{1,15})?$")]
    after: Option<EventCursor>,
}

#[utoipa::path(
    post, path = "/v1/events", tag = "events", security(("bearer" = ["events:publish"])),
    params(TraceparentHeader, IdempotencyKeyHeader),
    request_body = PublishEvent,
    responses(
        (status = 202, body = Envelope, headers(("Location" = String))),
        WithToken, WithBody, WithConflict, WithIdempotencyKey
    ),
)]
pub(super) async fn publish_event(
    State(state): State<ApiState>,
    holder: Holder<EventsPublish>,
    _: NoQuery,
    Trace(traceparent): Trace,
    Body(new, submission): Body<PublishEvent>,
) -> Result<Response, Problem> {
    let org = addressee(&state, &holder, new.org_id).await?;
    let publication = publication(&state, org, new, traceparent)?;
    let (id, payload) = (publication.event_id.clone(), publication.payload.clone());
    note_event(&holder.span, &id);
    let respond = move |recorded: &Recorded| accepted(&id, &payload, recorded);
    let record = |key| async {
        let recorded = events::record(&state.db, publication, key).await;
        if matches!(recorded, Ok(Once::Now(Recorded::New))) {
            state.metrics.published();
        }
        recorded
    };
    submission.once(&state, &holder.meter, org, respond, record).await
}

/// What is recorded of a new event.
fn publication(
    state: &ApiState,
    org: OrganizationId,
    new: NewEvent,
    traceparent: Option<TraceParent>,
) -> Result<Publication, StoreError> {
    let NewEvent {
        event_type,
        data,
        id,
        org_id: _,
    } = new;
    let event = Envelope {
        id: id.unwrap_or_else(|| state.clock.new_event_id()),
        object: EventObject::Event,
        r#type: event_type,
        created_at: state.clock.now(),
        data,
    };
    let mut publication = Publication::new(org, event)?;
    publication.traceparent = traceparent;
    Ok(publication)
}

/// The response to a publication: the event as it is on the wire, whether recorded by this request or an earlier one.
fn accepted(id: &EventId, payload: &Bytes, recorded: &Recorded) -> Result<Kept, Problem> {
    let payload = match recorded {
        Recorded::New => payload,
        Recorded::Existing(event) => &event.payload,
        Recorded::Conflict => {
            return Err(Problem::conflict(
                "Another event was published with this id; use a new id.",
            ));
        }
    };
    Kept::written(StatusCode::ACCEPTED, &[(LOCATION, format!("/v1/events/{id}"))], payload)
}

/// The organization that the event belongs to: the token's, or the one that a request with a platform token names.
async fn addressee(
    state: &ApiState,
    holder: &Holder<EventsPublish>,
    named: Option<OrganizationId>,
) -> Result<OrganizationId, Problem> {
    let refused = |detail: &str| Problem::invalid("/org_id", FaultCode::Organization, detail);
    if let (None, Some(named)) = (holder.organization_id, named) {
        note_organization(&holder.span, named);
    }
    match (holder.organization_id, named) {
        (Some(own), Some(named)) if own != named => Err(refused("is not the organization of this token")),
        (Some(own), _) => Ok(own),
        (None, None) => Err(refused("is required with a platform token")),
        (None, Some(named)) if holder.act_for(state, named).await? => Ok(named),
        (None, Some(_)) => Err(refused("is not an organization")),
    }
}

#[utoipa::path(
    get, path = "/v1/events", tag = "events", security(("bearer" = ["webhooks:read"])),
    params(ListEventsQuery),
    responses((status = 200, body = [Envelope], headers(("Link" = String))), WithToken, WithQuery),
)]
pub(super) async fn list_events(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
    Query(query): Query<ListEventsQuery>,
) -> Result<Page, Problem> {
    let ListEventsQuery { r#type, limit, after } = query;
    let (org, limit) = (caller.organization_id, page::limit(&state, limit));
    let after = match after {
        Some(EventCursor::Id(id)) => Some(events::position(&state.db, org, id).await?),
        Some(EventCursor::Position(position)) => Some(position),
        None => None,
    };
    let found = events::list(&state.db, org, r#type.as_deref(), after, limit).await?;
    let view = |event: event::Event| events::payload_json(&event.payload);
    Ok(Page::new(found, limit, &address, event::Event::position, view)?)
}

#[utoipa::path(
    get, path = "/v1/events/{event_id}", tag = "events", security(("bearer" = ["webhooks:read"])),
    params(("event_id" = String, Path, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")),
    responses((status = 200, body = EventWithDeliveries, headers(("Link" = String))), WithToken, WithId, WithNoQuery),
)]
pub(super) async fn get_event(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
    Path(event_id): Path<EventId>,
    _: NoQuery,
) -> Result<Response, Problem> {
    let org = caller.organization_id;
    let found = events::find(&state.db, org, &event_id).await?;
    let found = found.ok_or_else(|| Problem::not_found("event"))?;
    let (deliveries, next) = owed(&state, org, &found).await?;
    let event = serde_json::from_slice(&found.payload).map_err(StoreError::from)?;
    let shown = EventWithDeliveries { event, deliveries };
    let shown = serde_json::to_vec(&shown).map_err(StoreError::from)?;
    let rest = |after| format!("/v1/webhook_deliveries?event_id={event_id}&after={after}");
    let next = next.map(|after| page::link(&address.of(&rest(after))));
    Ok(page::with_link(shown, next))
}

/// The deliveries of an event as JSON, and the cursor of the next page if there are more.
async fn owed(
    state: &ApiState,
    org: OrganizationId,
    event: &event::Event,
) -> Result<(Box<RawValue>, Option<String>), StoreError> {
    let filter = DeliveryQuery {
        event_id: Some(event.id.clone()),
        ..DeliveryQuery::default()
    };
    let limit = PageLimit {
        items: DELIVERIES_SHOWN_MAX,
        bytes: state.page_bytes_max.saturating_sub(event.payload.len() as u64),
    };
    let found = deliveries::list_bare(&state.db, org, &filter, limit).await?;
    let (json, next) = page::write(found, limit, |delivery| delivery.id, Ok)?;
    Ok((serde_json::from_slice(&json)?, next))
}
