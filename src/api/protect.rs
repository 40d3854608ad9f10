//! What protects the handlers: load shedding, a deadline, a catch for panics, cross-origin rules.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hyper::body::{Frame, SizeHint};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{ApiState, limits::RequestPermit, problem::Problem};
use crate::domain::framing::UnclearFraming;

/// Request headers that another origin may set, besides those that it always may.
const REQUEST_HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    HeaderName::from_static("idempotency-key"),
];

/// Response headers that another origin may read, besides those that it always may.
const RESPONSE_HEADERS: [HeaderName; 13] = [
    header::ALLOW,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("x-quota-limit"),
    HeaderName::from_static("x-quota-remaining"),
    HeaderName::from_static("x-quota-reset"),
];

/// What every request passes on its way to the handler, and every response on its way back. It is a single layer, because
/// each layer costs every request a clone of everything inside it.
///
/// A request with ambiguous framing is refused, and one that takes too long is abandoned. When the node is full, the next
/// request is refused: an immediate refusal is worth more than a response that comes too late. A request is in progress
/// until its response has been sent. Health checks are always answered; the documentation and signing in have permits of
/// their own.
///
/// Until its caller is known, a request holds a permit of the entrance, which is short; then it holds one of its
/// organization, and authentication refuses it if that has its fair share already.
pub(super) async fn guard(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    if request.extensions().get::<UnclearFraming>().is_some() {
        return unclear_framing().into_response();
    }
    let permits = match request.uri().path() {
        "/healthz" | "/readyz" => None,
        path if is_identified_first(path) => Some(&state.entrance),
        _ => Some(&state.page_permits),
    };
    let Some(permits) = permits else {
        return end(state.request_timeout, next.run(request)).await;
    };
    let Some(permit) = RequestPermit::enter(permits) else {
        return Problem::overloaded().into_response();
    };
    request.extensions_mut().insert(permit.clone());
    let response = end(state.request_timeout, next.run(request)).await;
    response.map(|body| Body::new(PermittedBody { body, _permit: permit }))
}

/// Whether nothing is waited for before the caller is known: so it is in the API, and in the dashboard unless somebody is
/// about to sign in.
fn is_identified_first(path: &str) -> bool {
    let signs_in = ["/dashboard/sign_in", "/dashboard/link"].contains(&path);
    path.starts_with("/v1/") || path.starts_with("/dashboard") && !signs_in
}

/// The body of a response, which holds its request's permit until it has been sent.
struct PermittedBody {
    body: Body,
    _permit: RequestPermit,
}

impl HttpBody for PermittedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Request smuggling: two parsers in a row can disagree about such a request, so that what a proxy takes for its body is
/// the next request here. The server closes the connection after the response.
fn unclear_framing() -> Problem {
    Problem::bad_request(
        "It is not clear where the request ends: send either one Content-Length or `Transfer-Encoding: chunked`.",
    )
}

/// Abandons a request that takes longer than everything it may wait for together, so that no hanging request holds a
/// permit forever.
async fn end(timeout: Duration, responding: impl Future<Output = Response>) -> Response {
    let response = tokio::time::timeout(timeout, responding).await;
    response.unwrap_or_else(|_| {
        tracing::error!("request abandoned: it took too long");
        Problem::took_too_long().into_response()
    })
}

/// The response if a handler panics. The panic's location and message are on standard error.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("handler panicked");
    Problem::internal_error().into_response()
}

/// Which other origins may use the API from a browser: none, unless the operator names them.
pub(super) fn cross_origin(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS);
    (!origins.is_empty()).then_some(layer)
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tower_http::catch_panic::CatchPanicLayer;
    use tower_service::Service as _;

    use super::*;

    async fn bad() -> &'static str {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_the_next_request_is_answered() {
        let mut router: Router = Router::new()
            .route("/bad", get(bad))
            .route("/good", get(async || "good"))
            .layer(CatchPanicLayer::custom(panicked));
        let request = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let response = router.call(request("/bad")).await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(
            response.extensions().get::<Problem>().is_some(),
            "it is rendered as a problem"
        );
        assert_eq!(router.call(request("/good")).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_request_that_hangs_is_given_up() {
        let response = end(Duration::from_millis(10), std::future::pending()).await;
        assert_eq!(response.status(), 503);
    }
}
