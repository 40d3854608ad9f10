//! Traces on their way out: OTLP over HTTP, as protobuf (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Spans that ended wait in a bounded queue for a thread of its own, which sends them in batches. Nobody waits for it: a
//! collector that is slow or away costs spans, which are dropped when the queue is full, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use url::Url;

use super::{SERVICE, drops::Batches, spans::Spans};
use crate::domain::id::NodeId;

/// Deadline of one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last spans may take to leave when the server stops.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// How much of a collector's answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The way out of spans.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Begins to export to the collector at `traces`, the whole URL. Must be called on the runtime, which sends.
    ///
    /// # Errors
    /// Where one of the variables that OpenTelemetry defines for exporters cannot be followed.
    pub fn start(traces: &Url, tls: ClientConfig, node: NodeId) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(traces.as_str())
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(Collector::new(tls))
            .build()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| SERVICE.to_owned());
        let resource = Resource::builder()
            .with_service_name(name)
            .with_attribute(version)
            .with_attribute(KeyValue::new("service.instance.id", node.to_string()))
            .build();
        Ok(Self(
            SdkTracerProvider::builder()
                .with_resource(resource)
                .with_span_processor(Batches::new(exporter))
                .build(),
        ))
    }

    /// What makes the spans that are exported here.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans::through(self.0.tracer(SERVICE))
    }

    /// Sends what is left, for a bounded time, and ends.
    pub async fn stop(self) {
        let flushed = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_MAX)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::warn!(exception.message = %cause, "the last spans were not exported"),
            Err(cause) => tracing::warn!(exception.message = %cause, "the last spans were not exported"),
        }
    }
}

/// Sends batches. The exporter's thread has no runtime, so requests run on the one that the service has.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    /// Whether the last batch was lost, so that the log says it once.
    failing: Arc<AtomicBool>,
}

impl Collector {
    fn new(tls: ClientConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(connector),
            runtime: Handle::current(),
            failing: Arc::default(),
        }
    }

    /// Says in the log when the collector is lost, and when it is back.
    fn note(&self, answer: &Result<Response<Bytes>, HttpError>) {
        let trouble = match answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(cause) => Some(cause.to_string()),
        };
        let was_failing = self.failing.swap(trouble.is_some(), Ordering::Relaxed);
        match trouble {
            Some(cause) if !was_failing => {
                tracing::warn!(
                    exception.message = cause,
                    "traces cannot be exported; spans are lost until they can"
                );
            }
            None if was_failing => tracing::info!("traces are exported again"),
            Some(_) | None => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        let sending = self
            .runtime
            .spawn(async move { tokio::time::timeout(EXPORT_TIMEOUT, exchange).await });
        let answer = match sending.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(late)) => Err(late.into()),
            // The service ends with a batch under way; that says nothing about the collector.
            Err(cut_off) => return Err(cut_off.into()),
        };
        self.note(&answer);
        answer
    }
}
