//! `/v1/webhooks/{webhook_id}/replay`: many deliveries again.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState,
    auth::{Caller, WebhooksWrite},
    extract::{Body, Faults, Path, RequestBody},
    idempotency::IdempotencyKeyHeader,
    problem::Problem,
    responses::{WithBody, WithId, WithIdempotencyKey, WithToken},
    webhooks::no_webhook,
};
use crate::{
    domain::{delivery::DeliveryStatus, id::WebhookId, timestamp::Timestamp},
    store::queue::replay,
};

/// Body for POST /v1/webhooks/{id}/replay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayWebhook {
    // Absent is refused by the schema, so that the other fields are judged all the same.
    #[schema(required, nullable = false, value_type = String, format = DateTime)]
    since: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    #[schema(default = "failed")]
    status: Option<ReplayStatus>,
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// Which deliveries are replayed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReplayStatus {
    #[default]
    Failed,
    Delivered,
}

/// What is to be replayed.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Replaying {
    since: Timestamp,
    until: Timestamp,
    status: ReplayStatus,
    dry_run: bool,
}

impl Replaying {
    fn span(self, webhook_id: WebhookId) -> replay::Span {
        let status = match self.status {
            ReplayStatus::Failed => DeliveryStatus::Failed,
            ReplayStatus::Delivered => DeliveryStatus::Delivered,
        };
        replay::Span {
            webhook_id,
            since: self.since,
            until: self.until,
            status,
        }
    }
}

impl RequestBody for ReplayWebhook {
    type Parsed = Replaying;

    fn parse(self, state: &ApiState, faults: &mut Faults) -> Option<Replaying> {
        let Self {
            since,
            until,
            status,
            dry_run,
        } = self;
        let (since, until) = (since?, until.unwrap_or_else(|| state.clock.now()));
        if since >= until {
            faults.add(
                "/since",
                "range",
                &format!("must be earlier than {until}, the end of the span"),
            );
        }
        Some(Replaying {
            since,
            until,
            status: status.unwrap_or_default(),
            dry_run: dry_run.unwrap_or_default(),
        })
    }
}

/// What a replay put back in the queue.
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
    Body(replaying, submission): Body<ReplayWebhook>,
) -> Result<Response, Problem> {
    let (org, span) = (caller.organization_id, replaying.span(webhook_id));
    let replay = async |_| {
        let count = if replaying.dry_run {
            replay::count(&state.db, org, &span).await?
        } else {
            replay::replay(&state.db, org, &span, state.clock.now()).await?
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
