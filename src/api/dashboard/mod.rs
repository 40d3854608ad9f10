//! `/dashboard`: webhooks, deliveries and attempts in a browser, and forms that act on them. It is no part of openapi.yaml.
//!
//! The dashboard is a client of the API in the same process: each page asks operations for what it shows, and each form is an
//! operation. So filters, limits, audit entries and idempotency are those of the operations, and what is another
//! organization's does not exist here either.
//!
//! | file | what it does |
//! |---|---|
//! | `cookies` | the cookies of a browser, and what proves that a form is from a page of ours |
//! | `visit` | who is signed in, checked for each request as a token is; requests to the operations |
//! | `forms` | what a browser submits, from our own pages only |
//! | `sign_in` | signing in by token or link, and signing out |
//! | `reading`, `actions` | the pages; what their forms do |

mod actions;
mod cookies;
mod forms;
mod reading;
mod sign_in;
mod visit;

use axum::{
    Extension, Router,
    response::Redirect,
    routing::{any, get, post},
};

use super::{ApiState, problem::Problem};
use visit::Operations;

/// The routes of the dashboard. `operations` are those of the API.
pub(super) fn routes(operations: Router) -> Router<ApiState> {
    Router::new()
        .route("/dashboard", get(reading::list_webhooks))
        .route("/dashboard/", get(async || Redirect::to("/dashboard")))
        .route("/dashboard/sign_in", get(sign_in::show_form).post(sign_in::by_token))
        .route("/dashboard/link", get(sign_in::show_link).post(sign_in::by_link))
        .route("/dashboard/sign_out", post(sign_in::sign_out))
        .route("/dashboard/webhooks/{webhook_id}", get(reading::show_webhook))
        .route("/dashboard/webhooks/{webhook_id}/enable", post(actions::enable_webhook))
        .route("/dashboard/webhooks/{webhook_id}/test", post(actions::test_webhook))
        .route("/dashboard/webhooks/{webhook_id}/rotate", post(actions::rotate_secret))
        .route("/dashboard/deliveries", get(reading::list_deliveries))
        .route("/dashboard/deliveries/{delivery_id}", get(reading::show_delivery))
        .route(
            "/dashboard/deliveries/{delivery_id}/retry",
            post(actions::retry_delivery),
        )
        .route("/dashboard/{*page}", any(async || Problem::no_such_page()))
        .layer(Extension(Operations(operations)))
}
