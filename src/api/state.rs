//! What every handler can reach.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::http::HeaderValue;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::{Entry, Limiter, Permits};
use crate::{
    clock::Clock,
    contract::Contract,
    domain::{delivery::AttemptTrigger, destination::DestinationPolicy},
    metrics::Metrics,
    store::{Database, StoreError, queue::lease::Lease},
    telemetry::{LogAttempts, spans::Spans},
};

type Attempted = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Makes the attempt of a lease now, and returns when it is recorded: the delivery floor's one function that the API
/// is handed.
#[derive(Clone)]
pub struct AttemptNow(Arc<dyn Fn(Lease, AttemptTrigger) -> Attempted + Send + Sync>);

impl AttemptNow {
    /// Wraps the function.
    pub fn new<F, R>(attempt: F) -> Self
    where
        F: Fn(Lease, AttemptTrigger) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        Self(Arc::new(move |lease, trigger| Box::pin(attempt(lease, trigger))))
    }

    /// Makes the attempt.
    pub(super) async fn call(&self, lease: Lease, trigger: AttemptTrigger) -> Result<(), StoreError> {
        (self.0)(lease, trigger).await
    }
}

impl std::fmt::Debug for AttemptNow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AttemptNow")
    }
}

/// What every handler can reach. Clones share it; each request takes several, so that one costs a single counter.
#[derive(Clone, Debug)]
pub struct ApiState(Arc<ApiParts>);

impl From<ApiParts> for ApiState {
    fn from(parts: ApiParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for ApiState {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.0
    }
}

/// The parts of [`ApiState`].
#[derive(Debug)]
pub struct ApiParts {
    /// The database.
    pub db: Database,
    /// The time.
    pub clock: Clock,
    /// openapi.yaml.
    pub contract: Arc<Contract>,
    /// Which URLs webhooks may have.
    pub destinations: Arc<DestinationPolicy>,
    /// The networks of the proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The origins whose pages may use the API from a browser.
    pub cors_origins: Arc<[HeaderValue]>,
    /// One place for each request of the API whose caller is not known yet.
    pub entrance: Arc<Semaphore>,
    /// One permit for each request of an organization that may be under way, its answer included.
    pub requests: Arc<Permits>,
    /// In what order their work begins.
    pub entry: Entry,
    /// One permit for each attempt that a request may make and wait for.
    pub manual_attempts: Arc<Permits>,
    /// One place for each request without a token that may be under way: the documentation, and paths that do not exist.
    pub page_places: Arc<Semaphore>,
    /// Bytes that a page of a list holds at most; one item is shown all the same, however large it is.
    pub page_bytes_max: u64,
    /// How long a request may take from its head to its answer, before it is given up.
    pub request_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_read_timeout: Duration,
    /// How long a delivery taken for one attempt belongs to the taker.
    pub lease: Duration,
    /// How long a request that takes an attempt holds its idempotency key: longer than any request lasts.
    pub key_lease: Duration,
    /// Makes one attempt now.
    pub attempt_now: AttemptNow,
    /// How much organizations may ask.
    pub limiter: Arc<Limiter>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Makes the spans of requests.
    pub spans: Spans,
    /// Whether each publication has a line in the log.
    pub log_attempts: LogAttempts,
    /// Whether it is a server for development.
    pub is_dev: bool,
    /// Whether the server is about to stop: requests are still answered, but no more should be sent.
    pub stopping: Arc<AtomicBool>,
}
