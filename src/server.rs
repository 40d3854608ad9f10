//! Starting everything in order, accepting connections, and stopping everything in order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    api::{self, ApiState, AttemptNow},
    clock::Clock,
    config::ServeOptions,
    contract::{Contract, ContractError},
    delivery::{Engine, connector::Resolver, dispatcher, sender::Sender},
    store::{Database, StoreError, queue},
};

/// Open API connections at most; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;

/// How long a client may take to send a request's head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(15);

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
}

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    dispatching: JoinHandle<()>,
    db: Database,
}

/// Starts serving. The database has every migration already.
pub async fn start(
    options: &ServeOptions,
    db: Database,
    clock: Clock,
    resolver: Resolver,
) -> Result<Server, StartError> {
    let contract = Arc::new(Contract::load()?);
    let destinations = Arc::new(options.destinations());
    let sender = sender(options, resolver)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|cause| StartError::Listen(options.listen, cause))?;
    let address = listener
        .local_addr()
        .map_err(|cause| StartError::Listen(options.listen, cause))?;
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
    );
    let attempt_now = AttemptNow::new({
        let engine = engine.clone();
        move |lease, trigger| {
            let engine = engine.clone();
            async move { engine.attempt(lease, trigger).await }
        }
    });
    let lease = options.engine.lease();
    let router = api::router(ApiState {
        db: db.clone(),
        clock,
        contract,
        destinations,
        lease,
        attempt_now,
        wake,
    });
    let (stop, stopped) = watch::channel(false);
    let dispatching = tokio::spawn(dispatcher::run(engine, stopped.clone()));
    let accepting = tokio::spawn(accept(
        listener,
        router,
        stopped,
        options.engine.attempt_timeout() + STOP_MARGIN,
    ));
    Ok(Server {
        address,
        stop,
        accepting,
        dispatching,
        db,
    })
}

impl Server {
    /// Stops accepting, finishes the requests and the attempts under way, and closes the database.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in [self.accepting, self.dispatching] {
            if let Err(cause) = task.await {
                tracing::error!(%cause, "a task of the server ended badly");
            }
        }
        if let Err(error) = self.db.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }
}

fn sender(options: &ServeOptions, resolver: Resolver) -> Result<Sender, StartError> {
    let file = options.tls_ca_file.as_deref();
    let refused = |cause: String| {
        StartError::Certificates(file.map(|path| path.display().to_string()).unwrap_or_default(), cause)
    };
    let extra = match file {
        None => Vec::new(),
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|cause| refused(cause.to_string()))?,
    };
    let policy = options.destinations().addresses;
    Sender::new(resolver, policy, options.engine.attempt_timeout(), extra).map_err(|cause| refused(cause.to_string()))
}

/// Accepts connections until `stop` says so; then lets the requests under way finish within `grace`.
async fn accept(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>, grace: Duration) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            (Ok((stream, _)), Ok(place)) => {
                let connection = graceful.watch(connection(stream, router.clone()));
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

fn connection(stream: TcpStream, router: Router) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    let mut builder = http1::Builder::new();
    // Without a timer hyper would not enforce the timeout at all.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT);
    builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}
