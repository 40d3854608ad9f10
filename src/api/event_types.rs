//! `/v1/event_types`: the catalog, read out of the document.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ApiState,
    auth::{Caller, WebhooksRead},
    responses::WithToken,
};
use crate::contract;

/// One event type of the catalog.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventType {
    object: EventTypeObject,
    r#type: String,
    description: String,
    #[schema(value_type = Object)]
    data_schema: Value,
    #[schema(value_type = Object)]
    example: Value,
}

/// The discriminator of an event type.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EventTypeObject {
    EventType,
}

impl From<&contract::EventType> for EventType {
    fn from(event_type: &contract::EventType) -> Self {
        let contract::EventType {
            name,
            description,
            data_schema,
            example,
        } = event_type.clone();
        Self {
            object: EventTypeObject::EventType,
            r#type: name,
            description,
            data_schema,
            example,
        }
    }
}

#[utoipa::path(
    get, path = "/v1/event_types", tag = "events", security(("bearer" = ["webhooks:read"])),
    responses((status = 200, body = [EventType]), WithToken),
)]
pub(super) async fn list_event_types(
    State(state): State<ApiState>,
    _caller: Caller<WebhooksRead>,
) -> Json<Vec<EventType>> {
    Json(state.contract.event_types().iter().map(EventType::from).collect())
}
