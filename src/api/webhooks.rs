//! `/v1/webhooks`: register endpoints, change them, try them.

use axum::{
    Json,
    extract::{OriginalUri, State},
    http::{
        HeaderName, StatusCode,
        header::{ETAG, LOCATION},
    },
    response::Response,
};
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead, WebhooksWrite},
    extract::{Body, Faults, Path, Query, RequestBody, query_boolean, whole_number},
    idempotency::{IdempotencyKeyHeader, Kept},
    page::{self, Page},
    precondition::{IfMatchHeader, Precondition},
    problem::Problem,
    responses::{WithBody, WithConflict, WithId, WithIdempotencyKey, WithPrecondition, WithQuery, WithToken},
};
use crate::{
    domain::{
        delivery::DisabledReason,
        destination::{Destination, DestinationError},
        event_filter::{EventFilter, FilterEntry, UnknownEventType},
        id::WebhookId,
        rate::RateLimit,
        secret::Secret,
        timestamp::Timestamp,
        webhook::{self, Changed, NewWebhook, WEBHOOKS_MAX, WebhookChange, WebhookChanges},
    },
    store::webhooks::{self, Created},
};

/// Registered webhook endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Webhook {
    #[schema(value_type = Uuid)]
    id: WebhookId,
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
    #[schema(minimum = 1, maximum = 1000)]
    rate_limit: Option<u32>,
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
    fn new(webhook: webhook::Webhook, secret: Option<String>) -> Self {
        let webhook::Webhook {
            id,
            url,
            enabled,
            events,
            description,
            rate_limit,
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
            rate_limit: rate_limit.map(RateLimit::per_second),
            disabled_reason,
            created_at,
            updated_at,
            secret,
        }
    }
}

/// Body for POST /v1/webhooks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateWebhook {
    // Absent is empty here and refused by the schema, so that the other fields are judged all the same.
    #[serde(default)]
    #[schema(required, format = "iri", min_length = 1, max_length = 2048)]
    url: String,
    #[schema(value_type = Option<Vec<FilterText>>, max_items = 50)]
    events: Option<Vec<String>>,
    #[schema(default = true)]
    enabled: Option<bool>,
    // PostgreSQL cannot keep a NUL in a text.
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    description: Option<String>,
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "whole_number")]
    rate_limit: Option<u32>,
}

/// Body for PATCH /v1/webhooks/{id}.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateWebhook {
    #[schema(format = "iri", min_length = 1, max_length = 2048)]
    url: Option<String>,
    #[schema(value_type = Option<Vec<FilterText>>, max_items = 50)]
    events: Option<Vec<String>>,
    enabled: Option<bool>,
    // PostgreSQL cannot keep a NUL in a text.
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    description: Option<String>,
    #[schema(minimum = 0, maximum = 1000)]
    #[serde(default, deserialize_with = "whole_number")]
    rate_limit: Option<u32>,
}

/// How an entry of a filter is written; only the document needs it as a type.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 64, pattern = r"^[a-z_]+\.([a-z_]+|\*)$")]
#[expect(dead_code, reason = "a schema")]
struct FilterText(String);

/// Query of GET /v1/webhooks.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListWebhooksQuery {
    #[serde(default = "ListWebhooksQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 100, default = 100, value_type = i32)]
    #[validate(range(min = 1, max = 100))]
    limit: u32,
    #[param(value_type = Option<Uuid>)]
    after: Option<WebhookId>,
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
    rate_limit: Option<RateLimit>,
}

impl RequestBody for CreateWebhook {
    type Parsed = Registration;

    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<Registration> {
        let Self {
            url,
            events,
            enabled,
            description,
            rate_limit,
        } = self;
        let url = parse_url(&url, state, faults);
        let events = parse_events(events.as_deref().unwrap_or_default(), state, faults);
        let description = description.filter(|text| !text.is_empty());
        Some(Registration {
            url: url?,
            events,
            enabled: enabled.unwrap_or(true),
            description,
            rate_limit: rate_limit.and_then(RateLimit::new),
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
            rate_limit,
        } = self;
        Some(WebhookChanges {
            url: url.and_then(|url| parse_url(&url, state, faults)),
            events: events.map(|entries| parse_events(&entries, state, faults)),
            enabled,
            // Null leaves the description as it is, so that an empty one is how it is cleared.
            description: description.map(|text| Some(text).filter(|text| !text.is_empty())),
            // And so is a rate limit of zero.
            rate_limit: rate_limit.map(RateLimit::new),
            secret: None,
        })
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
    params(IdempotencyKeyHeader),
    responses(
        (status = 201, body = Webhook, headers(("Location" = String), ("ETag" = String))),
        WithToken, WithBody, WithConflict, WithIdempotencyKey
    ),
)]
pub(super) async fn create_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Body(registration, submission): Body<CreateWebhook>,
) -> Result<Response, Problem> {
    let Registration {
        url,
        events,
        enabled,
        description,
        rate_limit,
    } = registration;
    let (org, origin, now) = (caller.organization_id, caller.origin(&state.clock), state.clock.now());
    let new = NewWebhook {
        id: state.clock.new_id(),
        url,
        enabled,
        events,
        description,
        rate_limit,
        secret: new_secret(),
    };
    let create = |key| webhooks::create(&state.db, org, new, origin, now, key);
    submission.once(&state, &caller.meter, org, created, create).await
}

/// The response to a creation.
fn created(created: &Created) -> Result<Kept, Problem> {
    let full = || Problem::conflict(format!("An organization may have {WEBHOOKS_MAX} webhooks at most."));
    let (webhook, secret) = created.as_ref().ok_or_else(full)?;
    let headers = [
        (LOCATION, format!("/v1/webhooks/{}", webhook.id)),
        (ETAG, webhook.tag().as_str().to_owned()),
    ];
    let issued = Some(secret.expose().to_owned());
    Kept::json(StatusCode::CREATED, &headers, &Webhook::new(webhook.clone(), issued))
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
) -> Result<Page, Problem> {
    let ListWebhooksQuery { limit, after } = query;
    let limit = page::limit(&state, limit);
    let found = webhooks::list(&state.db, caller.organization_id, after, limit).await?;
    let view = |webhook| Ok(Webhook::new(webhook, None));
    Ok(Page::new(found, limit, &uri, |webhook| webhook.id, view)?)
}

#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(("webhook_id" = Uuid, Path)),
    responses((status = 200, body = Webhook, headers(("ETag" = String))), WithToken, WithId),
)]
pub(super) async fn get_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(id): Path<WebhookId>,
) -> Result<Tagged, Problem> {
    let found = webhooks::find(&state.db, caller.organization_id, id).await?;
    Ok(tagged(found.ok_or_else(no_webhook)?, None))
}

#[utoipa::path(
    patch, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), UpdateWebhookQuery, IfMatchHeader, IdempotencyKeyHeader),
    request_body = Option<UpdateWebhook>,
    responses(
        (status = 200, body = Webhook, headers(("ETag" = String))),
        WithToken, WithBody, WithId, WithPrecondition, WithIdempotencyKey
    ),
)]
pub(super) async fn update_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<WebhookId>,
    Query(UpdateWebhookQuery { rotate_secret }): Query<UpdateWebhookQuery>,
    Precondition(if_match): Precondition,
    Body(changes, submission): Body<UpdateWebhook>,
) -> Result<Response, Problem> {
    let secret = rotate_secret.then(new_secret);
    let issued = secret.as_ref().map(|secret| secret.expose().to_owned());
    let changes = WebhookChanges { secret, ..changes };
    let (org, origin, now) = (caller.organization_id, caller.origin(&state.clock), state.clock.now());
    let change = WebhookChange {
        organization_id: org,
        id,
        changes,
        if_match,
        origin,
        now,
    };
    let updated = move |updated: &Changed<webhook::Webhook>| {
        let webhook = done(updated.clone())?;
        let tag = (ETAG, webhook.tag().as_str().to_owned());
        Kept::json(StatusCode::OK, &[tag], &Webhook::new(webhook, issued.clone()))
    };
    let update = |key| webhooks::update(&state.db, change, key);
    submission.once(&state, &caller.meter, org, updated, update).await
}

#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), IfMatchHeader),
    responses((status = 204), WithToken, WithId, WithPrecondition),
)]
pub(super) async fn delete_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<WebhookId>,
    Precondition(if_match): Precondition,
) -> Result<StatusCode, Problem> {
    let (org, origin, now) = (caller.organization_id, caller.origin(&state.clock), state.clock.now());
    let delete = async {
        let deleted = webhooks::delete(&state.db, org, id, if_match, origin, now).await?;
        done(deleted).map(|()| StatusCode::NO_CONTENT)
    };
    caller.meter.write(&state, delete).await
}

/// A webhook with its `ETag`.
type Tagged = ([(HeaderName, String); 1], Json<Webhook>);

fn tagged(webhook: webhook::Webhook, secret: Option<String>) -> Tagged {
    let tag = webhook.tag().as_str().to_owned();
    ([(ETAG, tag)], Json(Webhook::new(webhook, secret)))
}

fn done<T>(changed: Changed<T>) -> Result<T, Problem> {
    match changed {
        Changed::Done(result) => Ok(result),
        Changed::NotFound => Err(no_webhook()),
        Changed::Stale => Err(Problem::precondition_failed("webhook")),
    }
}

fn new_secret() -> Secret {
    Secret::generate(&mut rand::rand_core::UnwrapErr(SysRng))
}

pub(super) fn no_webhook() -> Problem {
    Problem::not_found("webhook")
}
