//! `/v1/webhooks/{webhook_id}/test`: one event, sent now.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::{
    ApiState,
    auth::{Caller, WebhooksWrite},
    deliveries,
    extract::{Body, NoQuery, Path, RequestBody},
    idempotency::IdempotencyKeyHeader,
    meaning::known_event_type,
    problem::Problem,
    responses::{WithBody, WithId, WithIdempotencyKey, WithToken},
    webhooks::no_webhook,
};
use crate::{
    domain::{
        delivery::{AttemptTrigger, DeliveryWithPayload},
        event::{Envelope, Publication},
        event_id::EventId,
        id::{DeliveryId, OrganizationId, WebhookId},
    },
    store::{
        StoreError,
        queue::manual::{self, Tested},
    },
};

/// The event type of a test that names none.
const TEST_EVENT_TYPE: &str = "webhook.test";

/// Body for POST /v1/webhooks/{id}/test.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
#[validate(context = ApiState)]
pub(super) struct TestWebhook {
    #[schema(max_length = 64, pattern = r"^[a-z_]+\.[a-z_]+$")]
    #[validate(custom(function = known_event_type, use_context))]
    event_type: Option<String>,
}

impl RequestBody for TestWebhook {
    type Parsed = String;
    const OPTIONAL: bool = true;

    fn parse(self, _: &ApiState) -> Option<String> {
        let Self { event_type } = self;
        Some(event_type.unwrap_or_else(|| TEST_EVENT_TYPE.to_owned()))
    }
}

#[utoipa::path(
    post, path = "/v1/webhooks/{webhook_id}/test", tag = "webhooks", security(("bearer" = ["webhooks:write"])),
    params(("webhook_id" = Uuid, Path), IdempotencyKeyHeader),
    request_body = Option<TestWebhook>,
    responses((status = 200, body = DeliveryWithPayload), WithToken, WithBody, WithId, WithIdempotencyKey),
)]
pub(super) async fn test_webhook(
    State(state): State<ApiState>,
    caller: Caller<WebhooksWrite>,
    Path(id): Path<WebhookId>,
    _: NoQuery,
    Body(event_type, submission): Body<TestWebhook>,
) -> Result<Response, Problem> {
    let org = caller.organization_id;
    let test = async |seed| {
        let _permit = state.manual_attempts.take(Some(org))?;
        let test = test_event(&state, org, seed, &event_type)?;
        let delivery_id = DeliveryId::new(seed);
        match manual::record_test(&state.db, id, test, delivery_id, state.lease).await? {
            Tested::Leased(lease) => state.attempt_now.call(lease, AttemptTrigger::Test).await?,
            Tested::Before => {}
            Tested::NotFound => return Err(no_webhook()),
        }
        Ok(deliveries::show(&state, org, delivery_id).await?.into_response())
    };
    submission.once_leased(&state, &caller.meter, org, test).await
}

/// A test event: the documented example of its type, with its own id and time.
fn test_event(
    state: &ApiState,
    organization_id: OrganizationId,
    seed: Uuid,
    event_type: &str,
) -> Result<Publication, StoreError> {
    let known = state.contract.event_type(event_type);
    let data = known.map(|known| &known.example["data"]);
    let event = Envelope::new(EventId::from_uuid(seed), event_type, state.clock.now(), &data)?;
    Ok(Publication::new(organization_id, event)?)
}
