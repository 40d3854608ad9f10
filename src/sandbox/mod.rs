//! What makes a server one to try things with: example data, a receiver that is there, and, in a sandbox, operations under
//! `/sandbox/` that no service has. The API knows nothing of them: they are in front of its router.
//!
//! | file | what it does |
//! |---|---|
//! | [`examples`] | the example data, under the ids that `openapi.yaml` uses |
//! | [`inbox`] | a receiver on this machine, for the example webhooks |
//! | [`mailbox`] | what arrived at a sandbox's inbox, and what it answers next |
//! | `control` | the operations under `/sandbox/` |
//! | `failures` | failures of the API on demand |
//! | `state` | a sandbox, as its operations know it |
//! | `requests` | requests for these operations, checked, and their errors |

mod control;
pub mod examples;
mod failures;
pub mod inbox;
pub mod mailbox;
mod requests;
mod state;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post, put},
};

use self::state::Sandbox;
pub use self::{control::OPENAPI_JSON, state::Parts};
use crate::{
    api::{Limiter, problem},
    contract::{Contract, ContractError},
};

/// What the document of these operations says.
pub fn contract() -> Result<Contract, ContractError> {
    Contract::read(OPENAPI_JSON)
}

/// The operations of the sandbox, before the router of the API.
pub fn router(parts: Parts, limiter: Arc<Limiter>, api: Router) -> Router {
    let sandbox = Sandbox::new(parts, limiter);
    let api = api.layer(middleware::from_fn_with_state(sandbox.clone(), control::failing));
    Router::new()
        .route("/sandbox/openapi.json", get(control::document))
        .route("/sandbox/clock", get(control::clock))
        .route("/sandbox/clock/advance", post(control::advance))
        .route("/sandbox/reset", post(control::reset))
        .route("/sandbox/inbox", get(control::arrivals).delete(control::empty))
        .route("/sandbox/inbox/answers", put(control::script).get(control::scripted))
        .route("/sandbox/trigger/{event_type}", post(control::trigger))
        .route("/sandbox/fail", post(control::fail))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback_service(api)
        .layer(middleware::from_fn_with_state(sandbox.clone(), requests::with_problems))
        .with_state(sandbox)
}
