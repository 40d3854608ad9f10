//! Starting everything in order, and stopping everything in order.
//!
//! | file | what it does |
//! |---|---|
//! | `accept` | accepts connections, within limits |
//! | `connection` | serves one connection, over HTTP/1.1 or HTTP/2 |
//! | `wire`, `exchanges` | cut off clients that are too slow; a connection's requests |
//! | `tls`, `stream` | TLS with a certificate that is reloaded when it changes; TCP or TLS |
//! | `descriptors` | how many connections the limit of open files allows |
//! | `summary` | logs once per minute how much was published and delivered |
//! | `supervisor` | runs the background tasks: the first that fails ends the process |

mod accept;
mod connection;
pub mod descriptors;
mod exchanges;
mod stream;
mod summary;
mod supervisor;
pub mod tls;
mod wire;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

pub use self::supervisor::TaskFailure;
use self::{
    accept::{ListenerLimits, accept},
    descriptors::{Reserve, TooFewFiles},
    supervisor::Supervisor,
    tls::{Tls, TlsFault},
    wire::Timeouts,
};
use crate::{
    api::{self, ApiParts, ApiState, AttemptNow, Entry, Limiter, Permits},
    clock::Clock,
    config::{LogAttempts, METRICS_LISTEN, MetricsListen, ServeOptions},
    contract::{Contract, ContractError},
    delivery::{
        Engine, dispatcher, heartbeat,
        resolver::Resolver,
        sender::{self, Sender},
    },
    domain::{fairness, id::NodeId},
    metrics::Metrics,
    scrape,
    store::{
        Database, StoreError, idempotency,
        queue::{leases, nodes},
        secrets::{check, keys::KeyFault},
        upkeep::{backlog, clamp, clock_jump, deletion, retention},
    },
    telemetry::{otlp::Export, spans::Spans},
};

/// Maximum number of open connections for metrics.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// Maximum number of requests in progress for the documentation and other pages that need no token: `--requests-max` does
/// not apply to them, and the largest is a megabyte.
const PAGE_REQUESTS_MAX: usize = 32;

/// How long a request's statements may take, in addition to reading its body and making its attempt, which have limits of
/// their own.
const REQUEST_MARGIN: Duration = Duration::from_secs(30);

/// The part of `--attempts-max` that requests may make and wait for.
const MANUAL_DIVISOR: u32 = 8;

/// How much longer than an attempt the requests in progress may take when the server stops: `/test` waits for one.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Why the server did not start, in one clear line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or not one of this machine's.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// openapi.yaml is unusable.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The certificate authorities cannot be used.
    #[error("--tls-ca-file (KALLIMA_TLS_CA_FILE): cannot use {0}: {1}")]
    Certificates(String, String),
    /// The certificate of the API cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The master keys do not open what the database holds.
    #[error(transparent)]
    Keys(#[from] KeyFault),
    /// The limit of open files could not be read or raised.
    #[error("cannot raise the limit of open files: {0}")]
    Files(io::Error),
    /// The limit of open files leaves no room for connections.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// Traces cannot be exported as OpenTelemetry's environment variables say.
    #[error("cannot export traces: {0}")]
    Traces(String),
}

/// How much longer the whole stop may take if the database does not answer. It leaves time to export the last spans within
/// the ten seconds that operators grant beyond an attempt.
const LEAVING_MARGIN: Duration = Duration::from_secs(7);

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where `/metrics` is; `None` if it is off.
    pub metrics_address: Option<SocketAddr>,
    /// How long `/readyz` reports not ready before the server stops accepting.
    delay: Duration,
    /// How long stopping may take after that.
    patience: Duration,
    stopping: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    tasks: Supervisor,
    /// The heartbeat goes on until the last attempt has ended; otherwise other nodes would take over the leases.
    heart: Supervisor,
    still_heart: watch::Sender<bool>,
    db: Database,
    /// What this process has measured.
    pub metrics: Metrics,
    /// Where traces go; `None` if they are not exported.
    traces: Option<Export>,
}

/// Starts serving. All migrations must be applied already.
pub async fn start(
    options: &ServeOptions,
    db: Database,
    clock: Clock,
    resolver: Resolver,
) -> Result<Server, StartError> {
    start_around(options, db, clock, resolver, |api, _| api).await
}

/// The same, with a router of the caller's own around that of the API, which counts requests by this limiter.
pub async fn start_around(
    options: &ServeOptions,
    db: Database,
    clock: Clock,
    resolver: Resolver,
    around: impl FnOnce(Router, Arc<Limiter>) -> Router,
) -> Result<Server, StartError> {
    let contract = Arc::new(Contract::load()?);
    let sender = sender(options, resolver)?;
    let traces = traces(options, db.node())?;
    let spans = traces.as_ref().map(Export::spans).unwrap_or_default();
    let limits = listener_limits(options, &db)?;
    let tls = Tls::load(&options.http)?;
    if let Some(fault) = check::check(&db).await? {
        return Err(fault.into());
    }
    let (listener, address) = listen(options.listen).await?;
    let scraped = listen_for_metrics(options.metrics_listen).await?;
    recover(options, &db, &clock).await?;
    let metrics = Metrics::default();
    db.observe(&metrics);
    let engine = Engine::new(&db, clock.clone(), options.engine.clone(), sender);
    let engine = engine.observed(spans.clone(), options.log_attempts, metrics.clone());
    db.hand_over_to(Arc::new(engine.clone()));
    // Before anything is claimed: other nodes take over the leases of a node without a heartbeat.
    heartbeat::beat(&engine).await?;
    let state = state(options, &db, &clock, contract, engine.clone(), spans, &metrics);
    let stopping = Arc::clone(&state.stopping);
    begin_metrics(options, &state);
    let requests = Arc::clone(&state.requests);
    let limiter = Arc::clone(&state.limiter);
    let router = around(api::router(state), limiter);
    let (stop, stopped) = watch::channel(false);
    let (still_heart, stilled) = watch::channel(false);
    let mut heart = Supervisor::default();
    if options.log_attempts == LogAttempts::Summary {
        // Stops last, so that it counts the attempts that end while the server is stopping.
        let summary = summary::run(metrics.clone(), stilled.clone());
        heart.spawn("summary", summary);
    }
    heart.spawn("heartbeat", heartbeat::run(engine.clone(), stilled));
    let mut tasks = Supervisor::default();
    tasks.spawn("leases", heartbeat::run_leases(engine.clone(), stopped.clone()));
    tasks.spawn("dispatcher", dispatcher::run(engine, stopped.clone()));
    spawn_upkeep(&mut tasks, options, &db, &clock, &metrics, &stopped);
    if let Some(tls) = tls.clone() {
        tasks.spawn("tls certificate", tls.run(stopped.clone()));
    }
    tasks.spawn("api listener", accept(listener, tls, router, limits, stopped.clone()));
    let metrics_address = scraped.map(|(listener, address)| {
        let running = Arc::new(move || requests.taken());
        let router = scrape::router(db.clone(), clock, metrics.clone(), running);
        let limits = ListenerLimits {
            connections_max: METRICS_CONNECTIONS_MAX,
            connections_per_peer_max: 0,
            grace: STOP_MARGIN,
            ..limits
        };
        tasks.spawn("metrics listener", accept(listener, None, router, limits, stopped));
        address
    });
    Ok(Server {
        address,
        metrics_address,
        delay: options.shutdown_delay(),
        patience: options.engine.attempt_timeout() + LEAVING_MARGIN,
        stopping,
        stop,
        tasks,
        heart,
        still_heart,
        db,
        metrics,
        traces,
    })
}

/// Starts the maintenance tasks.
fn spawn_upkeep(
    tasks: &mut Supervisor,
    options: &ServeOptions,
    db: &Database,
    clock: &Clock,
    metrics: &Metrics,
    stopped: &watch::Receiver<bool>,
) {
    tasks.spawn("deletion", deletion::run(db.clone(), stopped.clone()));
    let pruning = idempotency::run(db.clone(), clock.clone(), stopped.clone());
    tasks.spawn("idempotency keys", pruning);
    let pruning = retention::run(
        db.clone(),
        clock.clone(),
        options.retention(),
        metrics.clone(),
        stopped.clone(),
    );
    tasks.spawn("retention", pruning);
    tasks.spawn("master keys", check::run(db.clone(), stopped.clone()));
}

/// Creates the metric series that are known in advance: of each operation with each of its statuses, and of requests that
/// match no operation.
fn begin_metrics(options: &ServeOptions, state: &ApiState) {
    let metrics = &state.metrics;
    for (operation, statuses) in state.contract.operations() {
        metrics.begin_operation(operation, statuses);
    }
    metrics.begin_operation(api::OTHER, &[]);
    metrics.set_limits(options.http.requests_max(), options.engine.attempts_max);
}

/// Cleans up what the last run left behind, before anything is claimed.
async fn recover(options: &ServeOptions, db: &Database, clock: &Clock) -> Result<(), StoreError> {
    idempotency::recover(db).await?;
    let recovered = leases::recover(db, clock.now()).await?;
    if recovered > 0 {
        tracing::info!(
            kallima.deliveries = recovered,
            "attempts were interrupted when the server last stopped; their deliveries are due again"
        );
    }
    clamp::clamp(db, options.engine.bounds(), clock.now()).await?;
    if options.accept_clock_jump {
        clock_jump::accept(db, clock.now()).await?;
    }
    Ok(())
}

/// What every handler can reach.
fn state(
    options: &ServeOptions,
    db: &Database,
    clock: &Clock,
    contract: Arc<Contract>,
    engine: Engine,
    spans: Spans,
    metrics: &Metrics,
) -> ApiState {
    let attempt_now = AttemptNow::new(move |lease, trigger| {
        let engine = engine.clone();
        async move { engine.attempt(lease, trigger).await }
    });
    let request_timeout = options.http.body_read_timeout() + options.engine.attempt_timeout() + REQUEST_MARGIN;
    ApiState::from(ApiParts {
        db: db.clone(),
        limiter: Arc::new(Limiter::new(clock.clone())),
        clock: clock.clone(),
        contract,
        destinations: Arc::new(options.destinations()),
        trusted_proxies: options.trusted_proxies.clone().into(),
        scheme: options.http.scheme(),
        public_url: options.http.public_url.as_deref().map(Arc::from),
        cors_origins: options.http.cors_origins.clone().into(),
        entrance: Arc::new(Semaphore::new(options.http.requests_max())),
        requests: Arc::new(Permits::new(options.http.requests_max())),
        entry: Entry::default(),
        manual_attempts: Arc::new(Permits::new(manual_attempts_max(options))),
        page_permits: Arc::new(Semaphore::new(PAGE_REQUESTS_MAX)),
        page_turn: Arc::new(Semaphore::new(1)),
        page_bytes_max: options.http.page_bytes_max.into(),
        request_timeout,
        body_read_timeout: options.http.body_read_timeout(),
        lease: options.engine.lease(),
        key_lease: request_timeout + REQUEST_MARGIN,
        attempt_now,
        metrics: metrics.clone(),
        spans,
        log_attempts: options.log_attempts,
        error_pages_url: options.http.error_pages_url.clone(),
        is_dev: options.dev,
        stopping: Arc::default(),
    })
}

/// How many attempts that requests make and wait for (`/test`, `/retry`) may be in progress: only part of both limits, so
/// that requests and attempts remain for everything else.
fn manual_attempts_max(options: &ServeOptions) -> usize {
    let attempts = usize::try_from(options.engine.attempts_max / MANUAL_DIVISOR).unwrap_or(usize::MAX);
    attempts.min(options.http.requests_max() / 2).max(1)
}

/// The limits of the API's listener.
fn listener_limits(options: &ServeOptions, db: &Database) -> Result<ListenerLimits, StartError> {
    let files = descriptors::raise_limit().map_err(StartError::Files)?;
    let attempts_max = usize::try_from(options.engine.attempts_max).unwrap_or(usize::MAX);
    let with_reserve = |max: usize| (max + fairness::reserve(max)) as u64;
    let reserve = Reserve {
        attempts: with_reserve(attempts_max) + with_reserve(manual_attempts_max(options)),
        database: backlog::pools(db)
            .iter()
            .map(|pool| u64::from(pool.connections_max))
            .sum(),
        metrics: METRICS_CONNECTIONS_MAX as u64,
    };
    let http = &options.http;
    Ok(ListenerLimits {
        connections_max: descriptors::connections_max(files, http.connections_max(), reserve)?,
        connections_per_peer_max: options.connections_per_peer_max(),
        timeouts: Timeouts {
            head_read: http.head_read_timeout(),
            idle: http.idle_timeout(),
            write: http.write_timeout(),
        },
        grace: options.engine.attempt_timeout() + STOP_MARGIN,
    })
}

impl Server {
    /// The names of the background tasks, in alphabetical order.
    #[must_use]
    pub fn tasks(&self) -> Vec<&'static str> {
        let mut names = [self.heart.names(), self.tasks.names(), self.db.workers()].concat();
        names.sort_unstable();
        names
    }

    /// Waits until a background task ends that should not have: the server is broken then, and its process must end. The
    /// next one repeats what it was doing, as after a crash.
    pub async fn failure(&mut self) -> TaskFailure {
        tokio::select! {
            failure = self.tasks.failure() => failure,
            failure = self.heart.failure() => failure,
            (task, has_panicked) = self.db.worker_ended() => TaskFailure::of_store(task, has_panicked),
        }
    }

    /// Reports that it is not ready, and goes on serving for the delay, so that load balancers can notice. Then it stops
    /// accepting, finishes the requests and attempts in progress, and closes the database; it does not wait for a database
    /// that hangs.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        let finishing = async {
            self.stop.send_replace(true);
            self.tasks.finished().await;
            self.still_heart.send_replace(true);
            self.heart.finished().await;
            if let Err(error) = nodes::leave(&self.db).await {
                tracing::warn!(exception.message = %error, "could not tell the other nodes that this one is stopping");
            }
            if let Err(error) = self.db.close().await {
                tracing::warn!(exception.message = %error, "the database did not close cleanly");
            }
        };
        if tokio::time::timeout(self.patience, finishing).await.is_err() {
            tracing::warn!("the database does not answer: stopping without it; what is not recorded will be repeated");
        }
        // Last, to include the spans of what was in progress.
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen(address, cause);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Listens on the operator's address. If the default address is in use, by a second server on this machine for example,
/// goes on without: metrics are no reason not to serve.
async fn listen_for_metrics(asked: Option<MetricsListen>) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    match asked {
        Some(MetricsListen::Off) => Ok(None),
        Some(MetricsListen::At(address)) => listen(address).await.map(Some),
        None => Ok(listen(METRICS_LISTEN)
            .await
            .inspect_err(
                |cause| tracing::warn!(exception.message = %cause, "not serving metrics: set --metrics-listen to another address"),
            )
            .ok()),
    }
}

fn sender(options: &ServeOptions, resolver: Resolver) -> Result<Sender, StartError> {
    let extra = authorities(options.tls_ca_file.as_deref())?;
    let (policy, timeout) = (options.destinations(), options.engine.attempt_timeout());
    Sender::new(resolver, policy, timeout, extra).map_err(|cause| unusable(options, &cause))
}

/// The export of traces, if a collector is configured.
fn traces(options: &ServeOptions, node: NodeId) -> Result<Option<Export>, StartError> {
    let Some(collector) = &options.collector().map_err(StartError::Traces)? else {
        return Ok(None);
    };
    let extra = authorities(options.tls_ca_file.as_deref())?;
    let tls = sender::tls(extra).map_err(|cause| unusable(options, &cause))?;
    let export = Export::start(collector, tls, node).map_err(|cause| StartError::Traces(cause.to_string()))?;
    Ok(Some(export))
}

fn unusable(options: &ServeOptions, cause: &rustls::Error) -> StartError {
    let file = options.tls_ca_file.as_deref().map(Path::display);
    StartError::Certificates(file.map(|path| path.to_string()).unwrap_or_default(), cause.to_string())
}

/// The certificate authorities in a PEM file; empty if no file is given.
pub fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let Some(path) = file else { return Ok(Vec::new()) };
    let failed = |cause: &str| StartError::Certificates(path.display().to_string(), cause.to_owned());
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(none) if none.is_empty() => Err(failed("it contains no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(cause) => Err(failed(&cause.to_string())),
    }
}
