//! What surrounds every request: its id, its log line, and the rendering of problems, which carry the id and the requested
//! path.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, header::X_CONTENT_TYPE_OPTIONS},
    middleware::Next,
    response::Response,
};
use rand::RngExt as _;
use tracing::{
    Instrument as _, Span,
    field::{Empty, display},
};
use ulid::Ulid;

use super::{ApiState, meter::Meter, problem::Problem, trace};
use crate::{
    clock::Clock,
    domain::{client_address::client_address, event_id::EventId, id::OrganizationId, trace::TraceParent},
    pages::dashboard,
    store::to_completion::ToCompletion,
    telemetry::{
        LogAttempts,
        spans::{NewRequest, RequestSpan},
    },
};

/// The header that carries a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The peer of the connection that a request arrived on; set by the server.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// The operation of a request that matches none in openapi.yaml.
pub const OTHER: &str = "other";

/// Where the dashboard is. What is below it is for browsers, errors too.
const DASHBOARD: &str = "/dashboard";

/// The log target of the access log.
const ACCESS: &str = "kallima_webhooks::access";

/// The header in which a proxy names the client it forwards for.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Which request it is, and where it came from.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// The IP address.
    pub(super) address: Option<IpAddr>,
    /// The request's id.
    pub(super) request_id: Option<String>,
}

/// A new id for a request: `req_` and a ULID.
pub(crate) fn new_request_id(clock: &Clock) -> String {
    let time_ms = u64::try_from(clock.now().as_millis()).unwrap_or(0);
    format!("req_{}", Ulid::from_parts(time_ms, rand::rng().random()))
}

/// Gives the request an id, and every response that id.
pub(super) async fn with_context(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let request_id = new_request_id(&state.clock);
    let method = request.method().clone();
    // Shares the text that was read from the connection instead of copying it.
    let uri = request.uri().clone();
    let path = uri.path();
    let is_dashboard = path == DASHBOARD || path.strip_prefix(DASHBOARD).is_some_and(|rest| rest.starts_with('/'));
    let client = Client {
        address: address_of(&request, &state),
        request_id: Some(request_id.clone()),
    };
    request.extensions_mut().insert(client);
    let operation = operation(&state, &request);
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let traced = traced(&state, &request, operation, &request_id);
    request.extensions_mut().insert(traced.clone());
    let began = Instant::now();
    let meter = Meter::default();
    request.extensions_mut().insert(meter.clone());
    let span = log_span(&request, &request_id, operation, &traced);
    let responding = next.run(request).instrument(span.clone());
    let mut response = if method.is_safe() {
        responding.await
    } else {
        // Even if the client hangs up, what the request has started is completed.
        ToCompletion::new(responding).await
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if let Some(reason) = problem.unavailable_reason() {
            state.metrics.unavailable(reason);
        }
        if is_dashboard {
            problem.render_page(&mut response, state.prefix(), &request_id);
        } else {
            let instance = format!("{}{path}", state.prefix());
            problem.render(&mut response, &state.error_pages_url, &instance, &request_id);
        }
    }
    meter
        .write_headers(&state, response.headers_mut())
        .instrument(span.clone())
        .await;
    if is_dashboard {
        response.headers_mut().extend(dashboard_headers());
    }
    lead_behind(state.prefix(), response.headers_mut());
    let no_sniffing = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, no_sniffing);
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    state.metrics.request(operation, status, began.elapsed());
    let route = matched.as_ref().map(MatchedPath::as_str);
    let is_info = is_info(&state, operation, status);
    span.in_scope(|| log_response(is_info, route, status, began.elapsed()));
    traced.answered(status);
    response
}

/// The log span that says which request a line belongs to. Its level is ERROR, so that no filter removes it from the lines
/// within it.
fn log_span(request: &Request, request_id: &str, operation: &str, traced: &RequestSpan) -> Span {
    let parent = traced.parent();
    let trace = parent
        .or_else(|| trace::named(request.headers()))
        .map(TraceParent::trace_id);
    tracing::error_span!(
        "request",
        kallima.request.id = request_id,
        kallima.operation.id = operation,
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        kallima.organization.id = Empty,
        kallima.event.id = Empty,
        trace_id = trace.map(|id| display(format!("{id:032x}"))),
        span_id = parent.map(|parent| display(format!("{:016x}", parent.span_id()))),
    )
}

/// Whether a response is logged at INFO. Health probes never are: there is one every few seconds. Publications are where
/// attempts are logged one by one, too; otherwise the summary counts both.
fn is_info(state: &ApiState, operation: &str, status: u16) -> bool {
    match operation {
        "get_liveness" | "get_readiness" => false,
        "publish_event" if status == StatusCode::ACCEPTED => state.log_attempts == LogAttempts::Each,
        _ => true,
    }
}

/// Writes the access log's line for a response.
fn log_response(is_info: bool, route: Option<&str>, status: u16, took: Duration) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if is_info {
        tracing::info!(target: ACCESS, { http.route = route, http.response.status_code = status, duration_ms }, "answered");
    } else {
        tracing::debug!(target: ACCESS, { http.route = route, http.response.status_code = status, duration_ms }, "answered");
    }
}

/// Adds the organization to this request's log lines and to its span.
pub(super) fn note_organization(traced: &RequestSpan, organization: OrganizationId) {
    Span::current().record("kallima.organization.id", display(organization));
    traced.organization(organization);
}

/// Adds the event that the request publishes, so that its log line can be joined with those of the event's attempts.
pub(super) fn note_event(traced: &RequestSpan, event: &EventId) {
    Span::current().record("kallima.event.id", event.as_str());
    traced.event(event);
}

/// What confines the dashboard in a browser: no script runs, nothing is kept, no other site learns its addresses.
fn dashboard_headers() -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, dashboard::POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}

/// Handlers write a `Location` as on a host of its own. Behind a prefix it begins with that.
fn lead_behind(prefix: &str, headers: &mut HeaderMap) {
    if prefix.is_empty() {
        return;
    }
    let path = headers
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok());
    let path = path.filter(|path| path.starts_with('/'));
    if let Some(location) = path.and_then(|path| HeaderValue::try_from(format!("{prefix}{path}")).ok()) {
        headers.insert(header::LOCATION, location);
    }
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

/// The operation in openapi.yaml that is requested. Everything else shares one word, so that clients cannot create metric
/// series.
fn operation(state: &ApiState, request: &Request) -> &'static str {
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    template
        .and_then(|template| state.contract.operation_id(request.method().as_str(), template))
        .unwrap_or(OTHER)
}

/// Starts the request's span, if traces are exported.
fn traced(state: &ApiState, request: &Request, operation: &str, request_id: &str) -> RequestSpan {
    let new = NewRequest {
        operation: (operation != OTHER).then_some(operation),
        method: request.method().as_str(),
        route: request.extensions().get::<MatchedPath>().map(MatchedPath::as_str),
        id: request_id,
    };
    state.spans.request(&new, trace::named(request.headers()))
}
