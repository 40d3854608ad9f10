//! `/v1/webhook_deliveries`: deliveries and their attempts.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use validator::{Validate, ValidationError};

use super::{
    ApiState,
    auth::{Caller, WebhooksRead, WebhooksWrite},
    extract::{Body, NoQuery, Path, Query, RequestBody},
    idempotency::IdempotencyKeyHeader,
    meaning::{known_event_type, period},
    page::{self, Page},
    problem::Problem,
    public_address::PublicAddress,
    responses::{WithBody, WithConflict, WithId, WithIdempotencyKey, WithNoQuery, WithQuery, WithToken},
};
use crate::{
    domain::{
        delivery::{Attempt, AttemptTrigger, DeliveryStatus, DeliveryWithPayload},
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::{
        deliveries::{self, DeliveryQuery},
        queue::manual::{self, ManualLease},
    },
};

/// Body for POST `/v1/webhook_deliveries/{id}/retry`.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
#[validate(context = ApiState)]
pub(super) struct RetryDelivery {}

impl RequestBody for RetryDelivery {
    type Parsed = ();
    const OPTIONAL: bool = true;

    fn parse(self, _: &ApiState) -> Option<()> {
        let Self {} = self;
        Some(())
    }
}

/// Query of GET `/v1/webhook_deliveries`.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[validate(
    context = ApiState,
    schema(function = after_before, skip_on_field_errors = false)
)]
#[into_params(parameter_in = Query)]
pub(super) struct ListDeliveriesQuery {
    #[param(value_type = Option<Uuid>)]
    webhook_id: Option<WebhookId>,
    #[param(inline)]
    status: Option<StatusFilter>,
    #[param(max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(custom(function = known_event_type, use_context))]
    event_type: Option<String>,
    #[param(value_type = Option<String>, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    event_id: Option<EventId>,
    #[param(value_type = Option<String>, format = DateTime)]
    created_after: Option<Timestamp>,
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<Timestamp>,
    #[param(required = false, minimum = 1, maximum = 200, default = 50, value_type = i32)]
    limit: u32,
    #[param(value_type = Option<Uuid>)]
    after: Option<DeliveryId>,
}

/// Refuses a period that is empty or ends before it starts: nothing would ever match.
fn after_before(query: &ListDeliveriesQuery) -> Result<(), ValidationError> {
    query
        .created_after
        .zip(query.created_before)
        .map_or(Ok(()), |(after, before)| period("query/created_after", after, before))
}

/// The status to list: any that this version writes.
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

/// Query of GET `/v1/webhook_deliveries/{id}/attempts`.
#[derive(Debug, Deserialize, IntoParams, Validate)]
#[validate(context = ApiState)]
#[into_params(parameter_in = Query)]
pub(super) struct ListAttemptsQuery {
    #[param(required = false, minimum = 1, maximum = 200, default = 200, value_type = i32)]
    limit: u32,
    #[param(minimum = 1)]
    after: Option<i32>,
}

#[utoipa::path(
    get, path = "/v1/webhook_deliveries", tag = "webhook_deliveries", security(("bearer" = ["webhooks:read"])),
    params(ListDeliveriesQuery),
    responses((status = 200, body = [DeliveryWithPayload], headers(("Link" = String))), WithToken, WithQuery),
)]
pub(super) async fn list_deliveries(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
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
    let filter = DeliveryQuery {
        webhook_id,
        event_id,
        event_type,
        status: status.map(DeliveryStatus::from),
        created_after,
        created_before,
        after,
    };
    let limit = page::limit(&state, limit);
    let found = deliveries::list(&state.db, caller.organization_id, &filter, limit).await?;
    Ok(Page::new(found, limit, &address, |found| found.delivery.id, Ok)?)
}

#[utoipa::path(
    get, path = "/v1/webhook_deliveries/{delivery_id}", tag = "webhook_deliveries",
    security(("bearer" = ["webhooks:read"])),
    params(("delivery_id" = Uuid, Path)),
    responses((status = 200, body = DeliveryWithPayload), WithToken, WithId, WithNoQuery),
)]
pub(super) async fn get_delivery(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    Path(id): Path<DeliveryId>,
    _: NoQuery,
) -> Result<Json<DeliveryWithPayload>, Problem> {
    show(&state, caller.organization_id, id).await
}

#[utoipa::path(
    post, path = "/v1/webhook_deliveries/{delivery_id}/retry", tag = "webhook_deliveries",
    security(("bearer" = ["webhooks:write"])),
    params(("delivery_id" = Uuid, Path), IdempotencyKeyHeader),
    request_body = Option<RetryDelivery>,
    responses((status = 200, body = DeliveryWithPayload), WithToken, WithBody, WithId, WithConflict, WithIdempotencyKey),
)]
pub(super) async fn retry_delivery(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<DeliveryId>,
    _: NoQuery,
    Body((), submission): Body<RetryDelivery>,
) -> Result<Response, Problem> {
    let org = caller.organization_id;
    let retry = async |_| {
        let _permit = state.manual_attempts.take(Some(org))?;
        let lease = match manual::take(&state.db, org, id, state.lease, state.clock.now()).await? {
            ManualLease::Leased(lease) => lease,
            ManualLease::NotFound => return Err(no_delivery()),
            ManualLease::InProgress => return Err(Problem::conflict(IN_PROGRESS)),
            ManualLease::WebhookDeleted => return Err(Problem::conflict(WEBHOOK_DELETED)),
        };
        state.attempt_now.call(lease, AttemptTrigger::Manual).await?;
        Ok(show(&state, org, id).await?.into_response())
    };
    submission.once_leased(&state, &caller.meter, org, retry).await
}

const IN_PROGRESS: &str = "An attempt of this delivery is in progress; try again when it has ended.";
const WEBHOOK_DELETED: &str = "The webhook of this delivery was deleted.";

#[utoipa::path(
    get, path = "/v1/webhook_deliveries/{delivery_id}/attempts", tag = "webhook_deliveries",
    security(("bearer" = ["webhooks:read"])),
    params(("delivery_id" = Uuid, Path), ListAttemptsQuery),
    responses((status = 200, body = [Attempt], headers(("Link" = String))), WithToken, WithId, WithQuery),
)]
pub(super) async fn list_attempts(
    State(state): State<ApiState>,
    caller: Caller<WebhooksRead>,
    address: PublicAddress,
    Path(id): Path<DeliveryId>,
    Query(ListAttemptsQuery { limit, after }): Query<ListAttemptsQuery>,
) -> Result<Page, Problem> {
    let (org, limit) = (caller.organization_id, page::limit(&state, limit));
    if !deliveries::exists(&state.db, org, id).await? {
        return Err(no_delivery());
    }
    let found = deliveries::attempts(&state.db, org, id, after.unwrap_or(0), limit).await?;
    Ok(Page::new(found, limit, &address, |attempt| attempt.number, Ok)?)
}

/// The delivery with this id, as it is now.
pub(super) async fn show(
    state: &ApiState,
    org: OrganizationId,
    id: DeliveryId,
) -> Result<Json<DeliveryWithPayload>, Problem> {
    let found = deliveries::find(&state.db, org, id).await?;
    found.map(Json).ok_or_else(no_delivery)
}

fn no_delivery() -> Problem {
    Problem::not_found("webhook delivery")
}
