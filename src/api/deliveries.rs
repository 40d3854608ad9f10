//! `/v1/webhook_deliveries`: what became of events, try by try.

use std::sync::Arc;

use axum::{
    Json,
    extract::{OriginalUri, State},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead, WebhooksWrite},
    event::Event,
    extract::{Body, Faults, Path, Query, RequestBody},
    idempotency::IdempotencyKeyHeader,
    page::{self, Page},
    problem::Problem,
    responses::{WithBody, WithConflict, WithId, WithIdempotencyKey, WithQuery, WithToken},
};
use crate::{
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
        outcome::ErrorWord,
        timestamp::Timestamp,
    },
    store::{
        deliveries::{self, DeliveryQuery, DeliveryWithPayload},
        queue::manual::{self, Taken},
    },
};

/// One event owed to one webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Delivery {
    #[schema(value_type = Uuid)]
    id: DeliveryId,
    object: DeliveryObject,
    #[schema(value_type = Uuid)]
    webhook_id: WebhookId,
    #[schema(value_type = String, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    event_id: EventId,
    event_type: String,
    #[schema(value_type = Event)]
    #[serde(serialize_with = "as_it_is")]
    payload: Arc<RawValue>,
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

/// The discriminator of a delivery.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DeliveryObject {
    WebhookDelivery,
}

/// Shared by the deliveries of an event, which serde alone does not know.
fn as_it_is<S: Serializer>(payload: &Arc<RawValue>, serializer: S) -> Result<S::Ok, S::Error> {
    payload.as_ref().serialize(serializer)
}

impl From<DeliveryWithPayload> for Delivery {
    fn from(found: DeliveryWithPayload) -> Self {
        let DeliveryWithPayload { delivery, payload } = found;
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
            payload,
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

/// One HTTP try of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Attempt {
    #[schema(minimum = 1)]
    number: i32,
    trigger: AttemptTrigger,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[schema(minimum = 0)]
    duration_ms: i64,
    #[schema(required, minimum = 100, maximum = 599)]
    response_status: Option<i32>,
    #[schema(required, max_length = 4096)]
    response_body: Option<String>,
    #[schema(required)]
    error: Option<ErrorWord>,
}

impl From<deliveries::Attempt> for Attempt {
    fn from(attempt: deliveries::Attempt) -> Self {
        let deliveries::Attempt {
            number,
            trigger,
            started_at,
            duration_ms,
            response_status,
            response_body,
            error,
        } = attempt;
        Self {
            number,
            trigger,
            started_at,
            duration_ms,
            response_status,
            response_body,
            error,
        }
    }
}

/// Body for POST `/v1/webhook_deliveries/{id}/retry`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryDelivery {}

impl RequestBody for RetryDelivery {
    type Parsed = ();
    const OPTIONAL: bool = true;

    fn parse(self, _: &ApiState, _: &mut Faults) -> Option<()> {
        let Self {} = self;
        Some(())
    }
}

/// Query of GET `/v1/webhook_deliveries`.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListDeliveriesQuery {
    #[param(value_type = Option<Uuid>)]
    webhook_id: Option<WebhookId>,
    #[param(inline)]
    status: Option<StatusFilter>,
    #[param(max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(length(max = 64), custom(function = "exact_event_type"))]
    event_type: Option<String>,
    #[param(value_type = Option<String>, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    event_id: Option<EventId>,
    #[param(value_type = Option<String>, format = DateTime)]
    created_after: Option<Timestamp>,
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<Timestamp>,
    #[serde(default = "ListDeliveriesQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    #[validate(range(min = 1, max = 200))]
    limit: u32,
    #[param(value_type = Option<Uuid>)]
    after: Option<DeliveryId>,
}

/// Which status a listed delivery has: one that this version knows.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StatusFilter {
    Pending,
    Delivered,
    Failed,
    Canceled,
}

impl From<StatusFilter> for DeliveryStatus {
    fn from(filter: StatusFilter) -> Self {
        match filter {
            StatusFilter::Pending => Self::Pending,
            StatusFilter::Delivered => Self::Delivered,
            StatusFilter::Failed => Self::Failed,
            StatusFilter::Canceled => Self::Canceled,
        }
    }
}

impl ListDeliveriesQuery {
    fn limit_default() -> u32 {
        50
    }
}

/// Whether a text is written as an event type is: two words of lower-case letters and underscores, a dot between.
fn exact_event_type(text: &str) -> Result<(), validator::ValidationError> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    match text.split_once('.') {
        Some((group, state)) if is_word(group) && is_word(state) => Ok(()),
        _ => {
            Err(validator::ValidationError::new("pattern")
                .with_message("must be an event type, such as job.failed".into()))
        }
    }
}

/// Query of GET `/v1/webhook_deliveries/{id}/attempts`.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListAttemptsQuery {
    #[serde(default = "ListAttemptsQuery::limit_default")]
    #[param(required = false, minimum = 1, maximum = 200, default = 200, value_type = i32)]
    #[validate(range(min = 1, max = 200))]
    limit: u32,
    #[param(minimum = 1)]
    #[validate(range(min = 1))]
    after: Option<i32>,
}

impl ListAttemptsQuery {
    fn limit_default() -> u32 {
        200
    }
}

#[utoipa::path(
    get, path = "/v1/webhook_deliveries", tag = "webhook_deliveries", security(("bearer" = ["webhooks:read"])),
    params(ListDeliveriesQuery),
    responses((status = 200, body = [Delivery], headers(("Link" = String))), WithToken, WithQuery),
)]
pub(super) async fn list_deliveries(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListDeliveriesQuery>,
) -> Result<Page, Problem> {
    let ListDeliveriesQuery {
        webhook_id,
        status,
        event_type,
        event_id,
        created_after,
        created_before,
        limit,
        after,
    } = query;
    let question = DeliveryQuery {
        webhook_id,
        event_id,
        event_type,
        status: status.map(DeliveryStatus::from),
        created_after,
        created_before,
        after,
    };
    let limit = page::limit(&state, limit);
    let found = deliveries::list(&state.db, caller.organization_id, &question, limit).await?;
    let view = |found| Ok(Delivery::from(found));
    Ok(Page::new(found, limit, &uri, |found| found.delivery.id, view)?)
}

#[utoipa::path(
    get, path = "/v1/webhook_deliveries/{delivery_id}", tag = "webhook_deliveries",
    security(("bearer" = ["webhooks:read"])),
    params(("delivery_id" = Uuid, Path)),
    responses((status = 200, body = Delivery), WithToken, WithId),
)]
pub(super) async fn get_delivery(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(id): Path<DeliveryId>,
) -> Result<Json<Delivery>, Problem> {
    show(&state, caller.organization_id, id).await
}

#[utoipa::path(
    post, path = "/v1/webhook_deliveries/{delivery_id}/retry", tag = "webhook_deliveries",
    security(("bearer" = ["webhooks:write"])),
    params(("delivery_id" = Uuid, Path), IdempotencyKeyHeader),
    request_body = Option<RetryDelivery>,
    responses((status = 200, body = Delivery), WithToken, WithBody, WithId, WithConflict, WithIdempotencyKey),
)]
pub(super) async fn retry_delivery(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<DeliveryId>,
    Body((), submission): Body<RetryDelivery>,
) -> Result<Response, Problem> {
    let org = caller.organization_id;
    let run = submission.begin(&state, org).await?;
    let retry = async {
        let _permit = state.manual_attempts.take(Some(org))?;
        match manual::take(&state.db, org, id, state.lease, state.clock.now()).await? {
            Taken::Leased(lease) => state.attempt_now.call(lease, AttemptTrigger::Manual).await?,
            Taken::NotFound => return Err(no_delivery()),
            Taken::UnderWay => {
                return Err(Problem::conflict(
                    "An attempt of this delivery is under way; ask again when it has ended.",
                ));
            }
            Taken::WebhookDeleted => return Err(Problem::conflict("The webhook of this delivery was deleted.")),
        }
        let delivery = show(&state, org, id).await?;
        Ok(delivery.into_response())
    };
    run.complete(&state, &caller.meter, retry).await
}

#[utoipa::path(
    get, path = "/v1/webhook_deliveries/{delivery_id}/attempts", tag = "webhook_deliveries",
    security(("bearer" = ["webhooks:read"])),
    params(("delivery_id" = Uuid, Path), ListAttemptsQuery),
    responses((status = 200, body = [Attempt], headers(("Link" = String))), WithToken, WithId, WithQuery),
)]
pub(super) async fn list_attempts(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    OriginalUri(uri): OriginalUri,
    Path(id): Path<DeliveryId>,
    Query(ListAttemptsQuery { limit, after }): Query<ListAttemptsQuery>,
) -> Result<Page, Problem> {
    let (org, limit) = (caller.organization_id, page::limit(&state, limit));
    if !deliveries::exists(&state.db, org, id).await? {
        return Err(no_delivery());
    }
    let found = deliveries::attempts(&state.db, org, id, after.unwrap_or(0), limit).await?;
    let view = |attempt| Ok(Attempt::from(attempt));
    Ok(Page::new(found, limit, &uri, |attempt| attempt.number, view)?)
}

/// The delivery of that id, as it stands now.
pub(super) async fn show(state: &ApiState, org: OrganizationId, id: DeliveryId) -> Result<Json<Delivery>, Problem> {
    let found = deliveries::find(&state.db, org, id).await?;
    found.map(|delivery| Json(delivery.into())).ok_or_else(no_delivery)
}

fn no_delivery() -> Problem {
    Problem::not_found("webhook delivery")
}
