//! `/v1/event_types`: the catalog, taken from the document.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};

use super::{
    ApiState,
    auth::{Caller, WebhooksRead},
    extract::NoQuery,
    responses::{WithNoQuery, WithToken},
};
use crate::contract::EventType;

#[utoipa::path(
    get, path = "/v1/event_types", tag = "events", security(("bearer" = ["webhooks:read"])),
    responses((status = 200, body = [EventType]), WithToken, WithNoQuery),
)]
pub(super) async fn list_event_types(
    State(state): State<ApiState>,
    _caller: Caller<WebhooksRead>,
    _: NoQuery,
) -> Response {
    Json(state.contract.event_types()).into_response()
}
