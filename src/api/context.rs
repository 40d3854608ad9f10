//! What surrounds every request: its id, its log line, and the rendering of problems, which carry both the id and the
//! path that was asked.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use rand::RngExt as _;
use tokio::runtime::Handle;
use tracing::{Instrument as _, Span, field::Empty};
use ulid::Ulid;

use super::{ApiState, limits::Meter, problem::Problem, trace};
use crate::{
    domain::{client_address::client_address, id::OrganizationId},
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
        ToItsEnd(Some(Box::pin(answering))).await
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.render(&mut response, path, &request_id);
    }
    meter
        .tell(&state, response.headers_mut())
        .instrument(span.clone())
        .await;
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    state.db.metrics().request(operation, status, began.elapsed());
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

/// A write that goes on although its client hangs up: what it has reserved or begun is settled in any case. It is only
/// then that it needs a task of its own.
struct ToItsEnd(Option<Pin<Box<dyn Future<Output = Response> + Send>>>);

impl Future for ToItsEnd {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        // Taken out, so that nothing is left to go on with after a panic.
        let Some(mut write) = self.0.take() else {
            return Poll::Pending;
        };
        let polled = write.as_mut().poll(context);
        if polled.is_pending() {
            self.0 = Some(write);
        }
        polled
    }
}

impl Drop for ToItsEnd {
    fn drop(&mut self) {
        let Some(write) = self.0.take() else { return };
        // Without a runtime the process is about to end.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(write);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_write_whose_client_hangs_up_comes_to_its_end() {
        let (go, going) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let write = async {
            going.await.unwrap();
            end.send(()).unwrap();
            Response::default()
        };
        let mut write = ToItsEnd(Some(Box::pin(write)));
        let begun = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut write).poll(context))).await;
        assert!(begun.is_pending());
        drop(write);
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_write_that_panics_is_not_begun_again() {
        let write = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        let write = ToItsEnd(Some(Box::pin(write)));
        assert!(tokio::spawn(write).await.unwrap_err().is_panic());
    }
}
