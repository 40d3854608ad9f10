//! What every handler can use.

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

/// Makes the attempt of a lease now, and returns once it is recorded: the one function of the delivery floor that the API
/// is given.
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

/// What every handler can use. Each request clones it several times, so a clone only increments one counter.
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
    /// The networks of the proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Arc<[IpNet]>,
    /// What the listener speaks: `http` or `https`.
    pub scheme: &'static str,
    /// The address at which clients reach this server, if the operator configured it; without a slash at the end.
    pub public_url: Option<Arc<str>>,
    /// The origins whose pages may use the API from a browser.
    pub cors_origins: Arc<[HeaderValue]>,
    /// A permit for each API request whose caller is not known yet.
    pub entrance: Arc<Semaphore>,
    /// A permit for each request of an organization in progress, until its response has been sent.
    pub requests: Arc<Permits>,
    /// The order in which requests start.
    pub entry: Entry,
    /// A permit for each attempt that a request makes and waits for.
    pub manual_attempts: Arc<Permits>,
    /// A permit for each request in progress that needs no token: the documentation, signing in to the dashboard, and paths
    /// that do not exist.
    pub page_permits: Arc<Semaphore>,
    /// The permit to render a page of the documentation.
    pub page_turn: Arc<Semaphore>,
    /// Bytes that a page of a list holds at most. A single item is shown however large it is.
    pub page_bytes_max: u64,
    /// How long a request may take from its head to its response before it is abandoned.
    pub request_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_read_timeout: Duration,
    /// How long the lease of a manual attempt lasts.
    pub lease: Duration,
    /// How long a request that makes an attempt holds its idempotency key: longer than any request lasts.
    pub key_lease: Duration,
    /// Makes one attempt now.
    pub attempt_now: AttemptNow,
    /// The limits of organizations.
    pub limiter: Arc<Limiter>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Makes the spans of requests.
    pub spans: Spans,
    /// Whether each publication is logged.
    pub log_attempts: LogAttempts,
    /// Where the pages about errors are, without a slash at the end.
    pub error_pages_url: String,
    /// Whether this is a development server.
    pub is_dev: bool,
    /// Whether the server is about to stop: it still answers requests, but clients should send no more.
    pub stopping: Arc<AtomicBool>,
}

impl ApiParts {
    /// The path under which clients reach this server, without a slash at the end; empty unless a proxy takes one away.
    pub(super) fn prefix(&self) -> &str {
        path_of(self.public_url.as_deref().unwrap_or_default())
    }
}

/// What follows scheme and host in an address.
pub(super) fn path_of(address: &str) -> &str {
    let host_and_path = address.split_once("://").map(|(_, rest)| rest);
    let path = host_and_path.and_then(|text| text.get(text.find('/')?..));
    path.unwrap_or_default()
}
