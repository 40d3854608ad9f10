//! HTTP in: the router, one line per operation.
//!
//! A request passes `context` (its id, its log line), then its handler's extractors in this order: the caller and the
//! rate of their organization, the path, the query, the headers, the body. Each refuses with a [`problem::Problem`]; the
//! handler sees only what is valid.

mod audit;
mod auth;
mod context;
mod dashboard;
mod dashboard_links;
mod deliveries;
mod docs;
mod entry;
mod event_types;
mod events;
mod extract;
mod health;
mod idempotency;
mod json;
mod limits;
mod meaning;
mod meter;
mod page;
mod pages;
mod precondition;
pub mod problem;
mod problem_code;
mod protect;
mod public_address;
mod replay;
mod responses;
mod state;
mod trace;
mod webhook_tests;
mod webhooks;

use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use context::new_request_id;
pub use context::{OTHER, PeerAddress};
pub use entry::Entry;
pub(crate) use extract::checked_json;
pub use limits::{Limiter, Permits};
pub use state::{ApiParts, ApiState, AttemptNow};

/// The router of every operation.
pub fn router(state: ApiState) -> Router {
    let (operations, _) = operations().split_for_parts();
    let dashboard = dashboard::routes(operations.clone().with_state(state.clone()));
    let router = operations
        .merge(pages::routes())
        .merge(dashboard)
        .fallback(problem::unknown_route)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(CatchPanicLayer::custom(protect::panicked))
        .layer(middleware::from_fn_with_state(state.clone(), protect::guard));
    let router = match protect::cross_origin(&state.cors_origins) {
        Some(layer) => router.layer(layer),
        None => router,
    };
    router
        .layer(middleware::from_fn_with_state(state.clone(), context::with_context))
        .with_state(state)
}

/// The document derived from the handlers, which a contract test compares with openapi.yaml.
#[must_use]
pub fn derived_document() -> OpenApi {
    docs::finish(operations().into_openapi())
}

fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(docs::skeleton())
        .routes(routes!(webhooks::create_webhook, webhooks::list_webhooks))
        .routes(routes!(
            webhooks::get_webhook,
            webhooks::update_webhook,
            webhooks::delete_webhook
        ))
        .routes(routes!(webhook_tests::test_webhook))
        .routes(routes!(audit::list_audit_entries))
        .routes(routes!(replay::replay_webhook))
        .routes(routes!(deliveries::list_deliveries))
        .routes(routes!(deliveries::get_delivery))
        .routes(routes!(deliveries::retry_delivery))
        .routes(routes!(deliveries::list_attempts))
        .routes(routes!(events::publish_event, events::list_events))
        .routes(routes!(events::get_event))
        .routes(routes!(event_types::list_event_types))
        .routes(routes!(dashboard_links::create_dashboard_link))
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(docs::get_openapi_yaml))
        .routes(routes!(docs::get_openapi_json))
        .routes(routes!(docs::get_signing_vectors))
}
