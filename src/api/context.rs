//! What surrounds every request: its id, its log line, and the rendering of problems, which carry both the id and the
//! path that was asked.

use std::{net::IpAddr, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use rand::RngExt as _;
use tracing::{Instrument as _, Span, field::Empty};
use ulid::Ulid;

use super::{ApiState, meter::Meter, problem::Problem, protect, trace};
use crate::{
    domain::{client_address::client_address, id::OrganizationId},
    store::to_its_end::ToItsEnd,
    telemetry::spans::{NewRequest, RequestSpan},
};

/// The header that carries a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The peer of the connection that a request came by; the server says it.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// The operation of a request that openapi.yaml does not know.
const OTHER: &str = "other";

/// The header in which a proxy says whom it speaks for.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Which request it is, and where it came from.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// The IP address.
    pub(super) address: Option<IpAddr>,
    /// The request's id.
    pub(super) request_id: Option<String>,
}

/// Gives the request an id (`req_` and a ULID), and every response that id.
pub(super) async fn carry(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let started_at = state.clock.now();
    let time_ms = u64::try_from(started_at.as_millis()).unwrap_or(0);
    let request_id = format!("req_{}", Ulid::from_parts(time_ms, rand::rng().random()));
    let method = request.method().clone();
    // Shares the text that was read from the connection.
    let uri = request.uri().clone();
    let path = uri.path();
    let client = Client {
        address: address_of(&request, &state),
        request_id: Some(request_id.clone()),
    };
    request.extensions_mut().insert(client);
    let operation = operation(&state, &request);
    let traced = traced(&state, &request, operation, &request_id);
    request.extensions_mut().insert(traced.clone());
    let began = Instant::now();
    let meter = Meter::default();
    request.extensions_mut().insert(meter.clone());
    // An error's span, so that no filter of the log takes it from the lines inside it.
    let span = tracing::error_span!("request", request_id, %method, path, operation, organization = Empty);
    let answering = next.run(request).instrument(span.clone());
    let mut response = if method.is_safe() {
        answering.await
    } else {
        // Its client may hang up: what it has begun is settled in any case.
        ToItsEnd::new(answering).await
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.render(&mut response, path, &request_id);
    }
    meter
        .tell(&state, response.headers_mut())
        .instrument(span.clone())
        .await;
    protect::confine(path, response.headers_mut());
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    state.metrics.request(operation, status, began.elapsed());
    let duration_ms = state.clock.now().since(started_at).as_millis();
    span.in_scope(|| tracing::info!(status, duration_ms, "answered"));
    traced.answered(status);
    response
}

/// Lets the lines of this request, and its span, say whom it is about.
pub(super) fn note_organization(traced: &RequestSpan, organization: OrganizationId) {
    Span::current().record("organization", tracing::field::display(organization));
    traced.organization(organization);
}

fn address_of(request: &Request, state: &ApiState) -> Option<IpAddr> {
    let PeerAddress(peer) = *request.extensions().get()?;
    let forwarded: Vec<&str> = request
        .headers()
        .get_all(&FORWARDED_FOR)
        .iter()
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    Some(client_address(peer, forwarded.into_iter(), &state.trusted_proxies))
}

/// The operation of openapi.yaml that is asked for; one word for all that it does not know, so that nobody can make up
/// more of them.
fn operation(state: &ApiState, request: &Request) -> &'static str {
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    template
        .and_then(|template| state.contract.operation_id(request.method().as_str(), template))
        .unwrap_or(OTHER)
}

/// Begins the request's span, where traces are exported.
fn traced(state: &ApiState, request: &Request, operation: &str, request_id: &str) -> RequestSpan {
    let new = NewRequest {
        operation: (operation != OTHER).then_some(operation),
        method: request.method().as_str(),
        route: request.extensions().get::<MatchedPath>().map(MatchedPath::as_str),
        id: request_id,
    };
    state.spans.request(&new, trace::named(request.headers()))
}
