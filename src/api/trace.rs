//! `traceparent`: the trace that a request is part of (W3C Trace Context).

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use utoipa::IntoParams;

use super::ApiState;
use crate::{domain::trace::TraceParent, telemetry::spans::RequestSpan};

/// The header's name.
const TRACEPARENT: &str = "traceparent";

/// The parent of what this request causes: the request's own span if traces are exported, otherwise the one that the
/// client names.
pub(super) struct Trace(pub(super) Option<TraceParent>);

/// The header, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "a schema")]
pub(super) struct TraceparentHeader {
    #[param(required = false)]
    traceparent: String,
}

impl FromRequestParts<ApiState> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Infallible> {
        let own = parts.extensions.get().and_then(RequestSpan::parent);
        Ok(Self(own.or_else(|| named(&parts.headers))))
    }
}

/// The parent span that the client names. A header that is malformed or repeated is ignored, as the specification requires
/// (section 3.2), so it is no reason to refuse a request.
pub(super) fn named(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => TraceParent::parse(value.to_str().ok()?),
        _ => None,
    }
}
