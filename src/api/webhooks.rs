//! `/v1/webhooks`: register endpoints, change them, try them.

use axum::{
    Json,
    extract::{OriginalUri, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
};
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead, WebhooksWrite},
    deliveries::{self, Delivery},
    extract::{Body, Faults, Path, Query, RequestBody, WebhookId, query_boolean},
    page::{self, Page},
    problem::Problem,
    responses::{WithBody, WithConflict, WithId, WithQuery, WithToken},
};
use crate::{
    domain::{
        delivery::{AttemptTrigger, DisabledReason},
        destination::{Destination, DestinationError},
        event_filter::{EventFilter, FilterEntry, UnknownEventType},
        secret::Secret,
        timestamp::Timestamp,
    },
    store::{
        events::Publication,
        queue,
        webhooks::{self, NewWebhook, WebhookChanges},
    },
};

/// The event type of a test that names no other.
const TEST_EVENT_TYPE: &str = "webhook.test";

/// Registered webhook endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Webhook {
    id: Uuid,
    #[schema(required = false, default = "webhook")]
    object: WebhookObject,
    #[schema(format = "uri", max_length = 2048)]
    url: String,
    enabled: bool,
    #[schema(max_items = 50)]
    events: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<DisabledReason>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^whsec_[A-Za-z0-9]{40}$")]
    secret: Option<String>,
}

/// The discriminator of a webhook.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WebhookObject {
    Webhook,
}

impl Webhook {
    /// The view of a webhook; the secret only where it was just issued.
    fn new(webhook: webhooks::Webhook, secret: Option<String>) -> Self {
        let webhooks::Webhook {
            id,
            url,
            enabled,
            events,
            description,
            disabled_reason,
            created_at,
            updated_at,
        } = webhook;
        Self {
            id,
            object: WebhookObject::Webhook,
            url: url.as_str().to_owned(),
            enabled,
            events: events.entries(),
            description,
            disabled_reason,
            created_at,
            updated_at,
            secret,
        }
    }
}

/// Body for POST /v1/webhooks.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateWebhook {
    // Absent is empty here and refused by the schema, so that the other fields are judged all the same.
    #[serde(default)]
    #[schema(required, format = "uri", min_length = 1, max_length = 2048)]
    #[validate(length(max = 2048))]
    url: String,
    #[schema(value_type = Option<Vec<FilterText>>, max_items = 50)]
    #[validate(length(max = 50))]
    events: Option<Vec<String>>,
    #[schema(default = true)]
    enabled: Option<bool>,
    // PostgreSQL cannot keep a NUL in a text.
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    #[validate(length(max = 256))]
    description: Option<String>,
}

/// Body for PATCH /v1/webhooks/{id}.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateWebhook {
    #[schema(format = "uri", min_length = 1, max_length = 2048)]
    #[validate(length(max = 2048))]
    url: Option<String>,
    #[schema(value_type = Option<Vec<FilterText>>, max_items = 50)]
    #[validate(length(max = 50))]
    events: Option<Vec<String>>,
    enabled: Option<bool>,
    // PostgreSQL cannot keep a NUL in a text.
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    #[validate(length(max = 256))]
    description: Option<String>,
}

/// How an entry of a filter is written; only the document needs it as a type.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 64, pattern = r"^[a-z_]+\.([a-z_]+|\*)$")]
#[expect(dead_code, reason = "a schema")]
struct FilterText(String);

/// Body for POST /v1/webhooks/{id}/test.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(super) struct TestWebhook {
    #[schema(max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(length(max = 64))]
    event_type: Option<String>,
}

/// Query of GET /v1/webhooks.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListWebhooksQuery {
    #[serde(default = "ListWebhooksQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 100, default = 100, value_type = i32)]
    #[validate(range(min = 1, max = 100))]
    limit: u32,
    after: Option<Uuid>,
}

impl ListWebhooksQuery {
    fn limit_default() -> u32 {
        100
    }
}

/// Query of PATCH /v1/webhooks/{id}.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UpdateWebhookQuery {
    #[serde(default, deserialize_with = "query_boolean")]
    #[param(required = false, default = false)]
    rotate_secret: bool,
}

/// A webhook to register, but for what the server makes.
pub(super) struct Registration {
    url: Destination,
    events: EventFilter,
    enabled: bool,
    description: Option<String>,
}

impl RequestBody for CreateWebhook {
    type Parsed = Registration;

    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<Registration> {
        let Self {
            url,
            events,
            enabled,
            description,
        } = self;
        let url = parse_url(&url, state, faults);
        let events = parse_events(events.as_deref().unwrap_or_default(), state, faults);
        let description = description.filter(|text| !text.is_empty());
        Some(Registration {
            url: url?,
            events,
            enabled: enabled.unwrap_or(true),
            description,
        })
    }
}

impl RequestBody for UpdateWebhook {
    type Parsed = WebhookChanges;
    const OPTIONAL: bool = true;

    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<WebhookChanges> {
        let Self {
            url,
            events,
            enabled,
            description,
        } = self;
        Some(WebhookChanges {
            url: url.and_then(|url| parse_url(&url, state, faults)),
            events: events.map(|entries| parse_events(&entries, state, faults)),
            enabled,
            // Null leaves the description as it is, so that an empty one is how it is cleared.
            description: description.map(|text| Some(text).filter(|text| !text.is_empty())),
            secret: None,
        })
    }
}

impl RequestBody for TestWebhook {
    type Parsed = Option<String>;
    const OPTIONAL: bool = true;

    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<Option<String>> {
        let Self { event_type } = self;
        check_event_type(
            event_type.as_deref().unwrap_or(TEST_EVENT_TYPE),
            "/event_type",
            state,
            faults,
        );
        Some(event_type)
    }
}

/// Refuses an event type that is not in the catalog.
pub(super) fn check_event_type(event_type: &str, pointer: &str, state: &ApiState, faults: &mut Faults) {
    if let Err(unknown) = UnknownEventType::check(event_type, state.contract.event_type_names()) {
        faults.add(pointer, "unknown_event_type", &unknown);
    }
}

fn parse_url(text: &str, state: &ApiState, faults: &mut Faults) -> Option<Destination> {
    let refused = |error: DestinationError| faults.add("/url", error.code(), &error);
    Destination::parse(text, &state.destinations).map_err(refused).ok()
}

fn parse_events(entries: &[String], state: &ApiState, faults: &mut Faults) -> EventFilter {
    let mut parsed = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        match FilterEntry::parse(entry, state.contract.event_type_names()) {
            Ok(entry) => parsed.push(entry),
            Err(unknown) => faults.add(&format!("/events/{index}"), "unknown_event_type", &unknown),
        }
    }
    EventFilter::of(parsed)
}

#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    request_body = CreateWebhook,
    responses((status = 201, body = Webhook, headers(("Location" = String))), WithToken, WithBody, WithConflict),
)]
pub(super) async fn create_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Body(registration): Body<CreateWebhook>,
) -> Result<(StatusCode, HeaderMap, Json<Webhook>), Problem> {
    let Registration {
        url,
        events,
        enabled,
        description,
    } = registration;
    let secret = new_secret();
    let issued = secret.expose().to_owned();
    let new = NewWebhook {
        id: state.clock.new_uuid(),
        url,
        enabled,
        events,
        description,
        secret,
    };
    let created = webhooks::create(&state.db, caller.organization_id, new, state.clock.now()).await?;
    let full = || {
        Problem::conflict(format!(
            "An organization may have {} webhooks at most.",
            webhooks::WEBHOOKS_MAX
        ))
    };
    let created = created.ok_or_else(full)?;
    let location = location(&format!("/v1/webhooks/{}", created.id));
    Ok((StatusCode::CREATED, location, Json(Webhook::new(created, Some(issued)))))
}

#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(ListWebhooksQuery),
    responses((status = 200, body = [Webhook], headers(("Link" = String))), WithToken, WithQuery),
)]
pub(super) async fn list_webhooks(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListWebhooksQuery>,
) -> Result<Page<Webhook>, Problem> {
    let ListWebhooksQuery { limit, after } = query;
    let found = webhooks::list(&state.db, caller.organization_id, after, page::fetch(limit)).await?;
    let views = found.into_iter().map(|webhook| Webhook::new(webhook, None)).collect();
    Ok(Page::new(views, limit, &uri, |webhook: &Webhook| {
        webhook.id.to_string()
    }))
}

#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(("webhook_id" = Uuid, Path)),
    responses((status = 200, body = Webhook), WithToken, WithId),
)]
pub(super) async fn get_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(WebhookId(id)): Path<WebhookId>,
) -> Result<Json<Webhook>, Problem> {
    let found = webhooks::find(&state.db, caller.organization_id, id).await?;
    let webhook = found.ok_or_else(no_webhook)?;
    Ok(Json(Webhook::new(webhook, None)))
}

#[utoipa::path(
    patch, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), UpdateWebhookQuery),
    request_body = Option<UpdateWebhook>,
    responses((status = 200, body = Webhook), WithToken, WithBody, WithId),
)]
pub(super) async fn update_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(WebhookId(id)): Path<WebhookId>,
    Query(UpdateWebhookQuery { rotate_secret }): Query<UpdateWebhookQuery>,
    Body(changes): Body<UpdateWebhook>,
) -> Result<Json<Webhook>, Problem> {
    let secret = rotate_secret.then(new_secret);
    let issued = secret.as_ref().map(|secret| secret.expose().to_owned());
    let changes = WebhookChanges { secret, ..changes };
    let updated = webhooks::update(&state.db, caller.organization_id, id, changes, state.clock.now()).await?;
    let webhook = updated.ok_or_else(no_webhook)?;
    // Deliveries that were held go on at once when the webhook is switched on again.
    state.wake.notify_one();
    Ok(Json(Webhook::new(webhook, issued)))
}

#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path)),
    responses((status = 204), WithToken, WithId),
)]
pub(super) async fn delete_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(WebhookId(id)): Path<WebhookId>,
) -> Result<StatusCode, Problem> {
    let deleted = webhooks::delete(&state.db, caller.organization_id, id).await?;
    if deleted {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_webhook())
    }
}

#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/test", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path)),
    request_body = Option<TestWebhook>,
    responses((status = 200, body = Delivery), WithToken, WithBody, WithId),
)]
pub(super) async fn test_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(WebhookId(id)): Path<WebhookId>,
    Body(event_type): Body<TestWebhook>,
) -> Result<Json<Delivery>, Problem> {
    let org = caller.organization_id;
    let test = test_event(&state, org, event_type.as_deref().unwrap_or(TEST_EVENT_TYPE));
    let delivery_id = state.clock.new_uuid();
    let lease = queue::record_test(&state.db, id, &test, delivery_id, state.lease)
        .await?
        .ok_or_else(no_webhook)?;
    state.attempt_now.call(lease, AttemptTrigger::Test).await?;
    deliveries::show(&state, org, delivery_id).await
}

/// A test event: the documented example of its type, under an id and a time of its own.
fn test_event(state: &ApiState, organization_id: Uuid, event_type: &str) -> Publication {
    let (event_id, created_at) = (state.clock.new_event_id(), state.clock.now());
    let mut payload = state
        .contract
        .event_type(event_type)
        .map(|known| known.example.clone())
        .unwrap_or_default();
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("id".to_owned(), event_id.as_str().into());
        fields.insert("created_at".to_owned(), created_at.to_string().into());
    }
    let payload = payload.to_string().into_bytes();
    Publication {
        organization_id,
        event_id,
        event_type: event_type.to_owned(),
        payload,
        created_at,
    }
}

fn new_secret() -> Secret {
    Secret::generate(&mut rand::rand_core::UnwrapErr(SysRng))
}

/// A `Location` header.
pub(super) fn location(path: &str) -> HeaderMap {
    HeaderValue::try_from(path)
        .map(|value| HeaderMap::from_iter([(LOCATION, value)]))
        .unwrap_or_default()
}

fn no_webhook() -> Problem {
    Problem::not_found("webhook")
}
