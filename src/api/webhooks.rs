//! `/v1/webhooks`: register, change and delete endpoints.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderName, StatusCode,
        header::{ETAG, LOCATION},
    },
    response::Response,
};
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, SchemaFormat, Type, schema::SchemaType},
};
use validator::{Validate, ValidateArgs, ValidationError, ValidationErrors};

use super::{
    ApiState,
    auth::{Caller, WebhooksRead, WebhooksWrite},
    extract::{Body, NoQuery, Path, Query, RequestBody, whole_number},
    idempotency::{IdempotencyKeyHeader, Kept},
    meaning::{broken, broken_at},
    page::{self, Page},
    precondition::{IfMatchHeader, Precondition},
    problem::Problem,
    public_address::PublicAddress,
    responses::{
        WithBody, WithConflict, WithId, WithIdempotencyKey, WithNoQuery, WithPrecondition, WithQuery, WithToken,
    },
};
use crate::{
    domain::{
        destination::{Destination, URL_LENGTH_MAX},
        event_filter::{EventFilter, FilterEntry},
        fault_code::FaultCode,
        id::WebhookId,
        rate::RateLimit,
        secret::Secret,
        webhook::{Changed, NewWebhook, WEBHOOKS_MAX, Webhook, WebhookChange, WebhookChanges},
        webhook_settings::{SettingChanges, WebhookSettings},
    },
    store::webhooks::{self, Created},
};

/// A webhook, with its secret if that was just issued.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookView {
    #[serde(flatten)]
    webhook: Webhook,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^whsec_[A-Za-z0-9]{40}$")]
    secret: Option<String>,
}

/// Body for PATCH /v1/webhooks/{id}.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
#[validate(context = ApiState)]
pub(super) struct UpdateWebhook {
    #[schema(schema_with = url_schema)]
    #[validate(custom(function = destination_allowed, use_context))]
    url: Option<String>,
    #[schema(value_type = Option<Vec<FilterText>>, max_items = 50)]
    #[validate(custom(function = entries_match_something, use_context))]
    events: Option<Vec<String>>,
    enabled: Option<bool>,
    // PostgreSQL cannot store NUL in text.
    #[schema(max_length = 256, pattern = r"^[^\x00]*$")]
    description: Option<String>,
    #[schema(minimum = 0, maximum = 1000)]
    #[serde(default, deserialize_with = "whole_number")]
    rate_limit: Option<u32>,
}

/// The schema of a URL in a change. `utoipa` attributes take no constant.
fn url_schema() -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .format(Some(SchemaFormat::Custom("iri".to_owned())))
        .min_length(Some(1))
        .max_length(Some(URL_LENGTH_MAX))
        .into()
}

/// Body for POST /v1/webhooks: read as a change of the default settings.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct CreateWebhook {
    settings: UpdateWebhook,
}

impl<'a> ValidateArgs<'a> for CreateWebhook {
    type Args = &'a ApiState;

    fn validate_with_args(&self, state: &'a ApiState) -> Result<(), ValidationErrors> {
        self.settings.validate_with_args(state)
    }
}

/// What the schema of a creation adds to that of a change; a type only for the document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
struct Creation {
    #[serde(flatten)]
    change: UpdateWebhook,
    #[schema(required, format = "iri")]
    url: String,
    #[schema(minimum = 1)]
    rate_limit: Option<u32>,
}

impl PartialSchema for CreateWebhook {
    fn schema() -> RefOr<Schema> {
        Creation::schema()
    }
}

impl ToSchema for CreateWebhook {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Creation::schemas(schemas);
    }
}

/// The schema of a filter entry; a type only for the document.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 64, pattern = r"^[a-z_]+\.([a-z_]+|\*)$")]
#[expect(dead_code, reason = "a schema")]
struct FilterText(String);

/// Query of GET /v1/webhooks.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[validate(context = ApiState)]
#[into_params(parameter_in = Query)]
pub(super) struct ListWebhooksQuery {
    #[param(required = false, minimum = 1, maximum = 100, default = 100, value_type = i32)]
    limit: u32,
    #[param(value_type = Option<Uuid>)]
    after: Option<WebhookId>,
}

/// Query of PATCH /v1/webhooks/{id}.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[validate(context = ApiState)]
#[into_params(parameter_in = Query)]
pub(super) struct UpdateWebhookQuery {
    #[param(required = false, default = false)]
    rotate_secret: bool,
}

impl RequestBody for CreateWebhook {
    type Parsed = WebhookSettings;

    fn parse(self, state: &ApiState) -> Option<WebhookSettings> {
        let mut changes = self.settings.parse(state)?;
        let mut settings = WebhookSettings::new(changes.url.take()?);
        changes.apply_to(&mut settings);
        Some(settings)
    }
}

impl RequestBody for UpdateWebhook {
    type Parsed = SettingChanges;
    const OPTIONAL: bool = true;

    fn parse(self, state: &ApiState) -> Option<SettingChanges> {
        let url = match self.url {
            Some(url) => Some(Destination::parse(&url, &state.destinations).ok()?),
            None => None,
        };
        let events = match self.events {
            Some(entries) => Some(parse_events(&entries, state)?),
            None => None,
        };
        Some(SettingChanges {
            url,
            events,
            enabled: self.enabled,
            // Null leaves the description unchanged, so an empty one clears it.
            description: self.description.map(|text| Some(text).filter(|text| !text.is_empty())),
            // Likewise, a rate limit of zero removes the limit.
            rate_limit: self.rate_limit.map(RateLimit::new),
        })
    }
}

/// Refuses a URL to which the operator's policy forbids deliveries.
fn destination_allowed(url: &str, state: &ApiState) -> Result<(), ValidationError> {
    match Destination::parse(url, &state.destinations) {
        Ok(_) => Ok(()),
        Err(error) => Err(broken(error.code(), &error)),
    }
}

/// Refuses filter entries that match no event type of the catalog.
fn entries_match_something(entries: &[String], state: &ApiState) -> Result<(), ValidationError> {
    let unknown = |(index, entry): (usize, &String)| {
        let unknown = FilterEntry::parse(entry, state.contract.event_type_names()).err()?;
        Some((format!("/events/{index}"), unknown.to_string()))
    };
    let at: Vec<_> = entries.iter().enumerate().filter_map(unknown).collect();
    if at.is_empty() {
        Ok(())
    } else {
        Err(broken_at(FaultCode::UnknownEventType, &at))
    }
}

fn parse_events(entries: &[String], state: &ApiState) -> Option<EventFilter> {
    let parse = |entry: &String| FilterEntry::parse(entry, state.contract.event_type_names()).ok();
    entries
        .iter()
        .map(parse)
        .collect::<Option<_>>()
        .map(EventFilter::from_entries)
}

#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    request_body = CreateWebhook,
    params(IdempotencyKeyHeader),
    responses(
        (status = 201, body = WebhookView, headers(("Location" = String), ("ETag" = String))),
        WithToken, WithBody, WithConflict, WithIdempotencyKey
    ),
)]
pub(super) async fn create_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    _: NoQuery,
    Body(settings, submission): Body<CreateWebhook>,
) -> Result<Response, Problem> {
    let (org, origin, now) = (caller.organization_id, caller.origin(&state.clock), state.clock.now());
    let new = NewWebhook {
        id: state.clock.new_id(),
        settings,
        secret: new_secret(),
    };
    let create = |key| webhooks::create(&state.db, org, new, origin, now, key);
    submission.once(&state, &caller.meter, org, created, create).await
}

/// The response to a creation.
fn created(created: &Created) -> Result<Kept, Problem> {
    let full = || {
        Problem::conflict(format!(
            "An organization may have at most {WEBHOOKS_MAX} webhooks; delete one first."
        ))
    };
    let (webhook, secret) = created.as_ref().ok_or_else(full)?;
    let headers = [
        (LOCATION, format!("/v1/webhooks/{}", webhook.id)),
        (ETAG, webhook.tag().as_str().to_owned()),
    ];
    let view = WebhookView {
        webhook: webhook.clone(),
        secret: Some(secret.expose().to_owned()),
    };
    Kept::json(StatusCode::CREATED, &headers, &view)
}

#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(ListWebhooksQuery),
    responses((status = 200, body = [WebhookView], headers(("Link" = String))), WithToken, WithQuery),
)]
pub(super) async fn list_webhooks(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
    Query(query): Query<ListWebhooksQuery>,
) -> Result<Page, Problem> {
    let ListWebhooksQuery { limit, after } = query;
    let limit = page::limit(&state, limit);
    let found = webhooks::list(&state.db, caller.organization_id, after, limit).await?;
    Ok(Page::new(found, limit, &address, |webhook| webhook.id, Ok)?)
}

#[utoipa::path(
    get, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:read"])),
    params(("webhook_id" = Uuid, Path)),
    responses((status = 200, body = WebhookView, headers(("ETag" = String))), WithToken, WithId, WithNoQuery),
)]
pub(super) async fn get_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(id): Path<WebhookId>,
    _: NoQuery,
) -> Result<([(HeaderName, String); 1], Json<Webhook>), Problem> {
    let found = webhooks::find(&state.db, caller.organization_id, id).await?;
    let webhook = found.ok_or_else(no_webhook)?;
    Ok(([(ETAG, webhook.tag().as_str().to_owned())], Json(webhook)))
}

#[utoipa::path(
    patch, path = "/v1/webhooks/{webhook_id}", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), UpdateWebhookQuery, IfMatchHeader, IdempotencyKeyHeader),
    request_body = Option<UpdateWebhook>,
    responses(
        (status = 200, body = WebhookView, headers(("ETag" = String))),
        WithToken, WithBody, WithId, WithPrecondition, WithIdempotencyKey
    ),
)]
pub(super) async fn update_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<WebhookId>,
    Query(UpdateWebhookQuery { rotate_secret }): Query<UpdateWebhookQuery>,
    precondition: Precondition,
    Body(settings, submission): Body<UpdateWebhook>,
) -> Result<Response, Problem> {
    let secret = rotate_secret.then(new_secret);
    let issued = secret.as_ref().map(|secret| secret.expose().to_owned());
    let change = WebhookChange {
        organization_id: caller.organization_id,
        id,
        changes: WebhookChanges { settings, secret },
        if_match: precondition.0.clone(),
        origin: caller.origin(&state.clock),
        now: state.clock.now(),
    };
    let updated = move |changed: &Changed<Webhook>| updated(changed, &precondition, issued.clone());
    let update = |key| webhooks::update(&state.db, change, key);
    submission
        .once(&state, &caller.meter, caller.organization_id, updated, update)
        .await
}

/// The response to a change.
fn updated(changed: &Changed<Webhook>, precondition: &Precondition, secret: Option<String>) -> Result<Kept, Problem> {
    let webhook = done(changed.clone(), precondition)?;
    let tag = (ETAG, webhook.tag().as_str().to_owned());
    Kept::json(StatusCode::OK, &[tag], &WebhookView { webhook, secret })
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
    _: NoQuery,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let (org, origin, now) = (caller.organization_id, caller.origin(&state.clock), state.clock.now());
    let delete = async {
        let deleted = webhooks::delete(&state.db, org, id, precondition.0.clone(), origin, now).await?;
        done(deleted, &precondition).map(|()| StatusCode::NO_CONTENT)
    };
    caller.meter.write(&state, delete).await
}

fn done<T>(changed: Changed<T>, precondition: &Precondition) -> Result<T, Problem> {
    match changed {
        Changed::Done(result) => Ok(result),
        Changed::NotFound => Err(no_webhook()),
        Changed::Stale => Err(precondition.refusal("webhook")),
    }
}

fn new_secret() -> Secret {
    Secret::generate(&mut rand::rand_core::UnwrapErr(SysRng))
}

pub(super) fn no_webhook() -> Problem {
    Problem::not_found("webhook")
}
