//! What surrounds every request: its id, its log line, and the rendering of problems, which carry both the id and the
//! path that was asked.

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use rand::RngExt as _;
use ulid::Ulid;

use super::{ApiState, problem::Problem};

/// The header that carries a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id (`req_` and a ULID), and every response that id.
pub(super) async fn carry(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let started_at = state.clock.now();
    let time_ms = u64::try_from(started_at.as_millis()).unwrap_or(0);
    let request_id = format!("req_{}", Ulid::from_parts(time_ms, rand::rng().random()));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.render(&mut response, &path, &request_id);
    }
    if let Ok(value) = HeaderValue::try_from(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let duration_ms = state.clock.now().since(started_at).as_millis();
    tracing::info!(%request_id, %method, path, status = response.status().as_u16(), duration_ms, "request");
    response
}
