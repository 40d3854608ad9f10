//! Starting everything in order, accepting connections, and stopping everything in order.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};
use tower_service::Service as _;

use crate::{
    api::{self, ApiState, AttemptNow, Limiter, PeerAddress},
    clock::Clock,
    config::{METRICS_LISTEN, MetricsListen, ServeOptions},
    contract::{Contract, ContractError},
    delivery::{
        Engine,
        connector::Resolver,
        dispatcher, heartbeat,
        sender::{self, Sender},
    },
    scrape,
    store::{Database, StoreError, idempotency, nodes, queue, retention},
    telemetry::{otlp::Export, spans::Spans},
};

/// Open API connections at most; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;

/// Open connections for metrics at most.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// How large a request's head may be. hyper refuses more, and more than 100 headers, with 431 and no body: there is no
/// request yet that a problem could speak of.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What a request may take beyond the reading of its body and the attempt that it asks for, each with a limit of its own:
/// its statements.
const REQUEST_MARGIN: Duration = Duration::from_secs(30);

/// How much longer than an attempt the requests under way get when the server stops: `/test` waits for one.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Why the server did not start: one clear line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// openapi.yaml cannot be worked with.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The certificate authorities cannot be used.
    #[error("cannot use the certificate authorities of {0}: {1}")]
    Certificates(String, String),
    /// Traces cannot be exported as the environment's variables of OpenTelemetry ask.
    #[error("cannot export traces: {0}")]
    Traces(String),
}

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where `/metrics` is; none where that is off.
    pub metrics_address: Option<SocketAddr>,
    /// How long `/readyz` says no before the server stops to accept.
    delay: Duration,
    stopping: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// The heart beats until the last attempt has ended: others would take over what is under way.
    heart: JoinHandle<()>,
    still_heart: watch::Sender<bool>,
    db: Database,
    /// Where traces go; none where they are not exported.
    traces: Option<Export>,
}

/// Starts serving. The database has every migration already.
pub async fn start(
    options: &ServeOptions,
    db: Database,
    clock: Clock,
    resolver: Resolver,
) -> Result<Server, StartError> {
    let contract = Arc::new(Contract::load()?);
    let sender = sender(options, resolver)?;
    let traces = traces(options)?;
    let spans = traces.as_ref().map(Export::spans).unwrap_or_default();
    let (listener, address) = listen(options.listen).await?;
    let metrics = listen_for_metrics(options.metrics_listen).await?;
    idempotency::recover(&db).await?;
    let recovered = queue::recover(&db, clock.now()).await?;
    if recovered > 0 {
        tracing::info!(
            deliveries = recovered,
            "attempts were cut off when the server last stopped; they are due again"
        );
    }
    let wake = Arc::new(Notify::new());
    let engine = Engine::new(
        db.clone(),
        clock.clone(),
        options.engine.clone(),
        sender,
        Arc::clone(&wake),
    )
    .traced(spans.clone());
    // Before anything is claimed: leases of a node that nobody knows would be taken over.
    heartbeat::beat(&engine).await?;
    let state = state(options, &db, &clock, contract, engine.clone(), wake, spans);
    let stopping = Arc::clone(&state.stopping);
    let router = api::router(state);
    let (stop, stopped) = watch::channel(false);
    let door = Door {
        connections_max: CONNECTIONS_MAX,
        head_read_timeout: options.http.head_read_timeout(),
        grace: options.engine.attempt_timeout() + STOP_MARGIN,
    };
    let (still_heart, stilled) = watch::channel(false);
    let heart = tokio::spawn(heartbeat::run(engine.clone(), stilled));
    let mut tasks = vec![
        tokio::spawn(dispatcher::run(engine, stopped.clone())),
        tokio::spawn(idempotency::run(db.clone(), clock.clone(), stopped.clone())),
        tokio::spawn(accept(listener, router, door, stopped.clone())),
    ];
    if let Some(keep) = options.retention() {
        let pruning = retention::run(db.clone(), clock.clone(), keep, stopped.clone());
        tasks.push(tokio::spawn(pruning));
    }
    let metrics_address = metrics.map(|(listener, address)| {
        let router = scrape::router(db.clone(), clock);
        let door = Door {
            connections_max: METRICS_CONNECTIONS_MAX,
            grace: STOP_MARGIN,
            ..door
        };
        let accepting = accept(listener, router, door, stopped);
        tasks.push(tokio::spawn(accepting));
        address
    });
    Ok(Server {
        address,
        metrics_address,
        delay: options.shutdown_delay(),
        stopping,
        stop,
        tasks,
        heart,
        still_heart,
        db,
        traces,
    })
}

/// What every handler can reach.
fn state(
    options: &ServeOptions,
    db: &Database,
    clock: &Clock,
    contract: Arc<Contract>,
    engine: Engine,
    wake: Arc<Notify>,
    spans: Spans,
) -> ApiState {
    let attempt_now = AttemptNow::new(move |lease, trigger| {
        let engine = engine.clone();
        async move { engine.attempt(lease, trigger).await }
    });
    ApiState {
        db: db.clone(),
        limiter: Arc::new(Limiter::new(clock.clone())),
        clock: clock.clone(),
        contract,
        destinations: Arc::new(options.destinations()),
        trusted_proxies: options.trusted_proxies.clone().into(),
        cors_origins: options.http.cors_origins.clone().into(),
        places: Arc::new(Semaphore::new(options.http.requests_max())),
        request_timeout: options.http.body_read_timeout() + options.engine.attempt_timeout() + REQUEST_MARGIN,
        body_read_timeout: options.http.body_read_timeout(),
        lease: options.engine.lease(),
        attempt_now,
        spans,
        wake,
        stopping: Arc::default(),
    }
}

/// How connections are accepted.
#[derive(Clone, Copy)]
struct Door {
    /// Open connections at most; more wait to be accepted.
    connections_max: usize,
    /// How long a client may take to send a request's head.
    head_read_timeout: Duration,
    /// How long requests under way may take to finish when the server stops.
    grace: Duration,
}

impl Server {
    /// Says that it is not ready, and goes on as before for the delay, so that whoever sends requests here can learn of
    /// it. Then it stops accepting, finishes the requests and the attempts under way, and closes the database.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        self.stop.send_replace(true);
        for task in self.tasks {
            ended(task).await;
        }
        self.still_heart.send_replace(true);
        ended(self.heart).await;
        if let Err(error) = nodes::leave(&self.db).await {
            tracing::warn!(%error, "the other nodes could not be told that this one stops");
        }
        if let Err(error) = self.db.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
        // Last, so that the spans of what was under way are among them.
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
    }
}

async fn ended(task: JoinHandle<()>) {
    if let Err(cause) = task.await {
        tracing::error!(%cause, "a task of the server ended badly");
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |cause| StartError::Listen(address, cause);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Listens where the operator says. The address that nobody asked for is given up when something else has it, such as a
/// second server on this machine: metrics are no reason not to serve.
async fn listen_for_metrics(asked: Option<MetricsListen>) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    match asked {
        Some(MetricsListen::Off) => Ok(None),
        Some(MetricsListen::At(address)) => listen(address).await.map(Some),
        None => Ok(listen(METRICS_LISTEN)
            .await
            .inspect_err(|cause| tracing::warn!(%cause, "no metrics are served; give --metrics-listen"))
            .ok()),
    }
}

fn sender(options: &ServeOptions, resolver: Resolver) -> Result<Sender, StartError> {
    let extra = authorities(options.tls_ca_file.as_deref())?;
    let policy = options.destinations().addresses;
    Sender::new(resolver, policy, options.engine.attempt_timeout(), extra).map_err(|cause| unusable(options, &cause))
}

/// The way out of traces, where a collector is named.
fn traces(options: &ServeOptions) -> Result<Option<Export>, StartError> {
    let Some(collector) = &options.otlp_endpoint else {
        return Ok(None);
    };
    let extra = authorities(options.tls_ca_file.as_deref())?;
    let tls = sender::tls(extra).map_err(|cause| unusable(options, &cause))?;
    let export = Export::start(collector, tls).map_err(|cause| StartError::Traces(cause.to_string()))?;
    Ok(Some(export))
}

fn unusable(options: &ServeOptions, cause: &rustls::Error) -> StartError {
    let file = options.tls_ca_file.as_deref().map(Path::display);
    StartError::Certificates(file.map(|path| path.to_string()).unwrap_or_default(), cause.to_string())
}

/// The certificate authorities of a PEM file; none where no file is given.
pub fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let Some(path) = file else { return Ok(Vec::new()) };
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|cause| StartError::Certificates(path.display().to_string(), cause.to_string()))
}

/// Accepts connections until `stop` says so; then lets the requests under way finish within `grace`.
async fn accept(listener: TcpListener, router: Router, door: Door, mut stop: watch::Receiver<bool>) {
    let Door {
        connections_max,
        head_read_timeout,
        grace,
    } = door;
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            (Ok((stream, peer)), Ok(place)) => {
                let connection = graceful.watch(connection(stream, peer.ip(), router.clone(), head_read_timeout));
                tokio::spawn(async move {
                    // A client that hangs up or talks nonsense is its own affair.
                    if let Err(cause) = connection.await {
                        tracing::debug!(%cause, "a connection ended badly");
                    }
                    drop(place);
                });
            }
            (Err(cause), _) => {
                // Out of file descriptors, most likely: others will be closed soon.
                tracing::warn!(%cause, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (_, Err(_)) => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

fn connection(
    stream: TcpStream,
    peer: IpAddr,
    router: Router,
    head_read_timeout: Duration,
) -> impl GracefulConnection<Error = hyper::Error> + Send + 'static {
    let mut builder = http1::Builder::new();
    // Without a timer hyper would not enforce the timeout at all.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_read_timeout)
        .max_buf_size(HEAD_BYTES_MAX);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        router.clone().call(request)
    });
    builder.serve_connection(TokioIo::new(stream), service)
}
