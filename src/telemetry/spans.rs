//! OpenTelemetry spans: one per API request, one per attempt. They exist only if traces are exported; otherwise each of these
//! types is empty and costs a comparison.
//!
//! Only this module decides what a span may contain: ids, numbers and our own words. No URL of a receiver, no path that a
//! client made up, no payload, no token, no secret.

use std::borrow::Cow;

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _},
};
use opentelemetry_sdk::trace::SdkTracer;

use crate::domain::{
    delivery::AttemptTrigger,
    event_id::EventId,
    id::{DeliveryId, OrganizationId, WebhookId},
    outcome::{ErrorWord, Outcome},
    trace::TraceParent,
    word::Word as _,
};

/// Creates spans, if traces are exported. Clones share the exporter.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<SdkTracer>);

/// What is known about a request when it starts.
#[derive(Debug)]
pub struct NewRequest<'a> {
    /// The `operationId`; `None` if openapi.yaml has no such operation.
    pub operation: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The template of the path that matched.
    pub route: Option<&'a str>,
    /// The request's id.
    pub id: &'a str,
}

/// Which attempt it is.
#[derive(Debug)]
pub struct NewAttempt<'a> {
    /// The organization's id.
    pub organization: OrganizationId,
    /// The webhook's id.
    pub webhook: WebhookId,
    /// The delivery's id.
    pub delivery: DeliveryId,
    /// The event's id.
    pub event: &'a EventId,
    /// The attempt's number, from 1.
    pub number: u32,
    /// Why it is made.
    pub trigger: AttemptTrigger,
}

/// The span of a request. It ends when its last clone is dropped, at the latest.
#[derive(Clone, Debug, Default)]
pub struct RequestSpan(Option<Context>);

/// The span of an attempt. It ends when its last clone is dropped, at the latest.
#[derive(Clone, Debug, Default)]
pub struct AttemptSpan(Option<Context>);

/// The methods that a span's name and attribute may have. Any other is `_OTHER`, so that clients cannot invent more
/// (OpenTelemetry's semantic conventions for HTTP).
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// The outcome of a successful attempt.
const DELIVERED: &str = "delivered";

impl Spans {
    /// Spans that this tracer exports.
    #[must_use]
    pub(super) fn through(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Starts the span of a request, in the trace that it names.
    #[must_use]
    pub fn request(&self, request: &NewRequest<'_>, parent: Option<TraceParent>) -> RequestSpan {
        let Some(tracer) = &self.0 else {
            return RequestSpan::default();
        };
        let known = METHODS.into_iter().find(|known| *known == request.method);
        let name = match (request.operation, request.route) {
            (Some(operation), _) => operation.to_owned(),
            (None, Some(route)) => format!("{} {route}", known.unwrap_or("HTTP")),
            (None, None) => known.unwrap_or("HTTP").to_owned(),
        };
        let mut attributes = vec![
            KeyValue::new("http.request.method", known.unwrap_or("_OTHER")),
            KeyValue::new("kallima.request.id", request.id.to_owned()),
        ];
        attributes.extend(request.route.map(|route| KeyValue::new("http.route", route.to_owned())));
        RequestSpan(Some(begin(tracer, name, SpanKind::Server, attributes, parent)))
    }

    /// Starts the span of an attempt, in its event's trace.
    #[must_use]
    pub fn attempt(&self, attempt: &NewAttempt<'_>, parent: Option<TraceParent>) -> AttemptSpan {
        let Some(tracer) = &self.0 else {
            return AttemptSpan::default();
        };
        let attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new(ORGANIZATION, attempt.organization.to_string()),
            KeyValue::new("kallima.webhook.id", attempt.webhook.to_string()),
            KeyValue::new("kallima.delivery.id", attempt.delivery.to_string()),
            KeyValue::new(EVENT, attempt.event.to_string()),
            KeyValue::new("kallima.attempt.number", i64::from(attempt.number)),
            KeyValue::new("kallima.attempt.trigger", attempt.trigger.as_str()),
        ];
        AttemptSpan(Some(begin(tracer, "attempt", SpanKind::Client, attributes, parent)))
    }
}

/// The attribute for the organization that a span belongs to.
const ORGANIZATION: &str = "kallima.organization.id";

/// The attribute for the event that is published or sent.
const EVENT: &str = "kallima.event.id";

/// The attribute for a response's status.
const STATUS: &str = "http.response.status_code";

impl RequestSpan {
    /// Sets the organization that the request belongs to.
    pub fn organization(&self, id: OrganizationId) {
        if let Some(context) = &self.0 {
            context
                .span()
                .set_attribute(KeyValue::new(ORGANIZATION, id.to_string()));
        }
    }

    /// Sets the event that the request publishes.
    pub fn event(&self, id: &EventId) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(EVENT, id.to_string()));
        }
    }

    /// The parent of the spans that the request causes. `None` if traces are not exported.
    #[must_use]
    pub fn parent(&self) -> Option<TraceParent> {
        parent(self.0.as_ref()?)
    }

    /// Ends the span with the response's status.
    pub fn answered(&self, status: u16) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new(STATUS, i64::from(status)));
        // A client error is not an error of the server (semantic conventions for HTTP).
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl AttemptSpan {
    /// The parent of the receiver's spans. `None` if traces are not exported.
    #[must_use]
    pub fn parent(&self) -> Option<TraceParent> {
        parent(self.0.as_ref()?)
    }

    /// Ends the span with the attempt's outcome.
    pub fn ended(&self, outcome: &Outcome) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        let word = outcome.error.map(ErrorWord::as_str);
        span.set_attribute(KeyValue::new("kallima.attempt.outcome", word.unwrap_or(DELIVERED)));
        if let Some(status) = outcome.response_status {
            span.set_attribute(KeyValue::new(STATUS, i64::from(status)));
        }
        if let Some(word) = word {
            span.set_attribute(KeyValue::new("error.type", word));
            span.set_status(Status::error(word));
        }
        span.end();
    }
}

fn begin(
    tracer: &SdkTracer,
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    parent: Option<TraceParent>,
) -> Context {
    let before = parent.map_or_else(Context::new, |parent| {
        let flags = if parent.sampled() {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from(parent.trace_id()),
            SpanId::from(parent.span_id()),
            flags,
            true,
            TraceState::NONE,
        ))
    });
    let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
    let span = tracer.build_with_context(builder, &before);
    before.with_span(span)
}

fn parent(context: &Context) -> Option<TraceParent> {
    let span = context.span();
    let span_context = span.span_context();
    TraceParent::new(
        u128::from_be_bytes(span_context.trace_id().to_bytes()),
        u64::from_be_bytes(span_context.span_id().to_bytes()),
        span_context.is_sampled(),
    )
}
