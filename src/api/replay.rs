//! `/v1/webhooks/{webhook_id}/replay`: retries many deliveries.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::{Validate, ValidationError};

use super::{
    ApiState,
    auth::{Caller, WebhooksWrite},
    extract::{Body, NoQuery, Path, RequestBody},
    idempotency::IdempotencyKeyHeader,
    meaning::period,
    problem::Problem,
    responses::{WithBody, WithId, WithIdempotencyKey, WithToken},
    webhooks::no_webhook,
};
use crate::{
    domain::{delivery::DeliveryStatus, id::WebhookId, timestamp::Timestamp},
    store::queue::replay,
};

/// Body for POST /v1/webhooks/{id}/replay.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
#[validate(
    context = ApiState,
    schema(function = since_before_until, use_context, skip_on_field_errors = false)
)]
pub(super) struct ReplayWebhook {
    // An absent `since` is refused by the schema, so that the other fields are still validated.
    #[schema(required, nullable = false, value_type = String, format = DateTime)]
    since: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    status: Option<ReplayStatus>,
    dry_run: Option<bool>,
}

/// The status of the deliveries to replay.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReplayStatus {
    #[default]
    Failed,
    Delivered,
}

/// What to replay.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Replaying {
    since: Timestamp,
    until: Timestamp,
    status: ReplayStatus,
    dry_run: bool,
}

impl Replaying {
    fn filter(self, webhook_id: WebhookId) -> replay::ReplayFilter {
        let status = match self.status {
            ReplayStatus::Failed => DeliveryStatus::Failed,
            ReplayStatus::Delivered => DeliveryStatus::Delivered,
        };
        replay::ReplayFilter {
            webhook_id,
            since: self.since,
            until: self.until,
            status,
        }
    }
}

impl ReplayWebhook {
    /// The end of the period: now, unless the body names another.
    fn until(&self, state: &ApiState) -> Timestamp {
        self.until.unwrap_or_else(|| state.clock.now())
    }
}

/// Refuses a period that is empty or ends before it starts.
fn since_before_until(body: &ReplayWebhook, state: &ApiState) -> Result<(), ValidationError> {
    body.since
        .map_or(Ok(()), |since| period("/since", since, body.until(state)))
}

impl RequestBody for ReplayWebhook {
    type Parsed = Replaying;

    fn parse(self, state: &ApiState) -> Option<Replaying> {
        let until = self.until(state);
        let Self {
            since, status, dry_run, ..
        } = self;
        Some(Replaying {
            since: since?,
            until,
            status: status.unwrap_or_default(),
            dry_run: dry_run.unwrap_or_default(),
        })
    }
}

/// What a replay has put back into the queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replay {
    object: ReplayObject,
    webhook_id: WebhookId,
    #[serde(flatten)]
    replaying: Replaying,
    #[schema(value_type = i64, minimum = 0)]
    count: u64,
}

/// The discriminator of a replay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReplayObject {
    Replay,
}

#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/replay", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), IdempotencyKeyHeader),
    request_body = ReplayWebhook,
    responses((status = 202, body = Replay), WithToken, WithBody, WithId, WithIdempotencyKey),
)]
pub(super) async fn replay_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(webhook_id): Path<WebhookId>,
    _: NoQuery,
    Body(replaying, submission): Body<ReplayWebhook>,
) -> Result<Response, Problem> {
    let (org, filter) = (caller.organization_id, replaying.filter(webhook_id));
    let replay = async |_| {
        let count = if replaying.dry_run {
            replay::count(&state.db, org, &filter).await?
        } else {
            replay::replay(&state.db, org, &filter, state.clock.now()).await?
        };
        let count = count.ok_or_else(no_webhook)?;
        let view = Replay {
            object: ReplayObject::Replay,
            webhook_id,
            replaying,
            count,
        };
        Ok((StatusCode::ACCEPTED, Json(view)).into_response())
    };
    submission.once_leased(&state, &caller.meter, org, replay).await
}
