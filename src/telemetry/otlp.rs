//! Exporting traces: OTLP over HTTP, as protobuf (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Finished spans wait in a bounded queue for a dedicated thread, which sends them in batches. Nothing waits for it: a slow
//! or unreachable collector costs spans, which are dropped when the queue is full, and nothing else.

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

/// How long sending the last spans may take when the server stops.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// How much of a collector's response is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The export of spans.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Starts exporting to the collector at `traces`, the full URL. Must be called on the runtime that will send.
    ///
    /// # Errors
    /// If a variable that OpenTelemetry defines for exporters has an unusable value.
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

    /// Creates the spans that are exported here.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans::through(self.0.tracer(SERVICE))
    }

    /// Sends the remaining spans, for a limited time, and stops.
    pub async fn stop(self) {
        let flushed = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_MAX)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::warn!(exception.message = %cause, "the last spans were not exported"),
            Err(cause) => tracing::warn!(exception.message = %cause, "the last spans were not exported"),
        }
    }
}

/// Sends batches. The exporter's thread has no runtime, so its requests run on that of the service.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    /// Whether the last batch was lost, so that the loss is logged once.
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

    /// Logs when the collector becomes unavailable, and when it is back.
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
                    "cannot export traces: spans are lost until this works again"
                );
            }
            None if was_failing => tracing::info!("exporting traces works again"),
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
            // The service is stopping while a batch is being sent; that says nothing about the collector.
            Err(cut_off) => return Err(cut_off.into()),
        };
        self.note(&answer);
        answer
    }
}
