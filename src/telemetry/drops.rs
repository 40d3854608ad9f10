//! Counting lost spans, which the SDK does not do: those that find the queue full, and those that the collector refuses.
//!
//! The SDK's queue drops silently, so the count is kept in front of it: a span that would not fit is dropped here.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanProcessor},
};

/// How many spans may wait for the collector, unless OpenTelemetry's variable says otherwise.
const WAITING_MAX: usize = 2048;

/// OpenTelemetry's variable for that.
const WAITING_MAX_VARIABLE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";

/// Spans lost since the process started.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many spans have been lost since the process started.
#[must_use]
pub fn spans_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The SDK's batching, with a count of what does not fit.
#[derive(Debug)]
pub(super) struct Batches {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    is_reported: AtomicBool,
}

impl Batches {
    /// Batching for this exporter.
    pub(super) fn new(exporter: SpanExporter) -> Self {
        let given = env::var(WAITING_MAX_VARIABLE).ok().and_then(|text| text.parse().ok());
        let waiting_max = given.filter(|given| *given > 0).unwrap_or(WAITING_MAX);
        let waiting = Arc::<AtomicUsize>::default();
        let exporter = Counted {
            inner: exporter,
            waiting: Arc::clone(&waiting),
        };
        let config = BatchConfigBuilder::default().with_max_queue_size(waiting_max).build();
        Self {
            inner: BatchSpanProcessor::new(exporter, config),
            waiting,
            waiting_max,
            is_reported: AtomicBool::new(false),
        }
    }
}

impl SpanProcessor for Batches {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) < self.waiting_max {
            self.inner.on_end(span);
            return;
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        DROPPED.fetch_add(1, Ordering::Relaxed);
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!("dropping spans: too many are waiting for the collector");
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The exporter, with a count of what the collector does not accept.
#[derive(Debug)]
struct Counted {
    inner: SpanExporter,
    waiting: Arc<AtomicUsize>,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        let exported = self.inner.export(batch).await;
        if exported.is_err() {
            DROPPED.fetch_add(spans as u64, Ordering::Relaxed);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
