//! `/v1/webhooks/{webhook_id}/test`: one event, sent now.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ApiState,
    auth::{Caller, WebhooksWrite},
    deliveries::{self, Delivery},
    extract::{Body, Faults, Path, RequestBody},
    idempotency::IdempotencyKeyHeader,
    problem::Problem,
    responses::{WithBody, WithId, WithIdempotencyKey, WithToken},
    webhooks::{check_event_type, no_webhook},
};
use crate::{
    domain::{
        delivery::AttemptTrigger,
        event::Publication,
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
    },
    store::queue::manual::{self, Tested},
};

/// The event type of a test that names no other.
const TEST_EVENT_TYPE: &str = "webhook.test";

/// Body for POST /v1/webhooks/{id}/test.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestWebhook {
    #[schema(max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    event_type: Option<String>,
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

#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/test", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), IdempotencyKeyHeader),
    request_body = Option<TestWebhook>,
    responses((status = 200, body = Delivery), WithToken, WithBody, WithId, WithIdempotencyKey),
)]
pub(super) async fn test_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<WebhookId>,
    Body(event_type, submission): Body<TestWebhook>,
) -> Result<Response, Problem> {
    let org = caller.organization_id;
    let run = submission.begin(&state, org).await?;
    let test = test_event(
        &state,
        org,
        run.seed(),
        event_type.as_deref().unwrap_or(TEST_EVENT_TYPE),
    );
    // A second run, after a crash of the first, finds what that has made.
    let delivery_id = DeliveryId::new(run.seed());
    let send = async {
        let _permit = state.manual_attempts.take(Some(org))?;
        match manual::record_test(&state.db, id, test, delivery_id, state.lease).await? {
            Tested::Leased(lease) => state.attempt_now.call(lease, AttemptTrigger::Test).await?,
            Tested::Before => {}
            Tested::NotFound => return Err(no_webhook()),
        }
        let delivery = deliveries::show(&state, org, delivery_id).await?;
        Ok(delivery.into_response())
    };
    run.complete(&state, &caller.meter, send).await
}

/// A test event: the documented example of its type, under an id and a time of its own.
fn test_event(state: &ApiState, organization_id: OrganizationId, seed: Uuid, event_type: &str) -> Publication {
    let (event_id, created_at) = (EventId::from_uuid(seed), state.clock.now());
    let mut payload = state
        .contract
        .event_type(event_type)
        .map(|known| known.example.clone())
        .unwrap_or_default();
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("id".to_owned(), event_id.as_str().into());
        fields.insert("created_at".to_owned(), created_at.to_string().into());
    }
    let payload = payload.to_string().into();
    Publication {
        organization_id,
        event_id,
        event_type: event_type.to_owned(),
        payload,
        created_at,
        traceparent: None,
    }
}
