//! Which of the PostgreSQL servers takes writes, and how the pools follow it.
//!
//! As long as everything works, no server is probed. A statement that fails as it does on a server that is gone, or is
//! a standby, starts a search: every server of the URL in turn, the current one first, until one takes writes. The
//! pools then connect there. Earlier connections are no longer used, and callers that wait on one are notified at once,
//! however long the network would keep them waiting.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{
    DbErr, RuntimeErr, SqlxError,
    sqlx::{
        ConnectOptions as _, Connection as _, Executor as _, Row as _,
        postgres::{PgConnectOptions, PgSslMode},
    },
};
use tokio::{sync::Notify, time::timeout};

use super::{
    hosts::{Host, Plans},
    worker::WorkerGuard,
};
use crate::store::{error::ServerSignal, source::OpenError};

/// How long one server may take to report whether it takes writes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a reply may take after the server has ended its statement.
const REPLY_GRACE: Duration = Duration::from_secs(5);

/// The pause between two rounds of a search.
const SEARCH_PAUSE: Duration = Duration::from_millis(200);

/// How long statements in progress may continue after the pools have another server: most of them wait for a
/// connection, and get one there.
const SWITCH_GRACE: Duration = Duration::from_secs(1);

/// The servers, and which one is in use.
#[derive(Debug)]
pub(in crate::store) struct Primary {
    hosts: Vec<Host>,
    current: AtomicUsize,
    /// Incremented whenever connections are abandoned: those of an earlier generation are not used.
    generation: AtomicU64,
    /// Whether the server in use has refused a write since the last search.
    is_read_only: AtomicBool,
    /// Whether the last search found nothing.
    is_lost: AtomicBool,
    suspected: Notify,
    abandoned: Notify,
    /// How long a statement may take, its reply included.
    statement_max: OnceLock<Duration>,
}

impl Primary {
    pub(super) fn new(hosts: Vec<Host>) -> Self {
        Self {
            hosts,
            current: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            is_read_only: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            suspected: Notify::new(),
            abandoned: Notify::new(),
            statement_max: OnceLock::new(),
        }
    }

    /// Finds the server to start with. A single one is used whatever it reports: the reason may be needed.
    pub(super) async fn choose(&self, patience: Duration) -> Result<(), OpenError> {
        let began = Instant::now();
        while self.hosts.len() > 1 {
            match self.find().await {
                Ok(found) => {
                    self.current.store(found, Ordering::SeqCst);
                    break;
                }
                Err(cause) if began.elapsed() >= patience => return Err(OpenError::NoPrimary(cause)),
                Err(_) => tokio::time::sleep(SEARCH_PAUSE).await,
            }
        }
        Ok(())
    }

    fn host(&self) -> Option<&Host> {
        self.hosts.get(self.current.load(Ordering::SeqCst))
    }

    /// The host name and port of the server in use.
    pub(in crate::store) fn name(&self) -> &str {
        self.host().map(|host| host.name.as_str()).unwrap_or_default()
    }

    /// How the certificate of the server in use is verified, for a sentence.
    pub(in crate::store) fn verification(&self) -> &'static str {
        match self.host().map(|host| host.connect.get_ssl_mode()) {
            Some(PgSslMode::VerifyFull) => "whose certificate is verified",
            // sqlx trusts public authorities besides those that it is given.
            Some(PgSslMode::VerifyCa) => {
                "whose certificate is verified, but not its name, so that any public one will do: give sslmode=verify-full"
            }
            _ => "whose certificate is not verified: give sslmode=verify-full",
        }
    }

    /// How to connect to the server in use.
    pub(super) fn connect_options(&self, plans: Plans) -> PgConnectOptions {
        let options = self.host().map(|host| host.connect_options(plans));
        options.unwrap_or_default()
    }

    /// Whether no server takes writes, as far as is known.
    pub(in crate::store) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }

    /// Sets after what time the server ends a statement; `None` if it never does.
    pub(super) fn set_statement_timeout(&self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.statement_max.get_or_init(|| timeout + REPLY_GRACE);
        }
    }

    /// Waits for the end of a statement on a connection of the pools. If the server should have ended it long ago, the
    /// connection is lost, although nothing says so: a firewall has forgotten it, for example.
    pub(super) async fn reply<T>(&self, statement: impl Future<Output = Result<T, SqlxError>>) -> Result<T, SqlxError> {
        let Some(&max) = self.statement_max.get() else {
            return statement.await;
        };
        let lost = |_| Err(SqlxError::Io(std::io::ErrorKind::TimedOut.into()));
        timeout(max, statement).await.unwrap_or_else(lost)
    }

    /// The current generation of connections, which rises when they are abandoned.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Starts a search because the server in use may be gone.
    pub(super) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// The server in use takes no writes: abandons its connections and starts a search for another one.
    pub(in crate::store) fn turned_read_only(&self) {
        self.is_read_only.store(true, Ordering::SeqCst);
        self.abandon();
        self.suspect();
    }

    /// No existing connection is used again.
    fn abandon(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Runs an operation on a connection, and draws conclusions from its failure. It ends shortly after connections are
    /// abandoned; if it takes longer than `patience`, the server is probed meanwhile.
    pub(super) async fn watch<T>(
        &self,
        patience: Option<Duration>,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let generation = self.generation();
        let abandoned = async {
            loop {
                self.abandoned.notified().await;
                if generation != self.generation() {
                    return;
                }
            }
        };
        let slow = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
            self.suspect();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = abandoned => Err(gone()),
            result = statement => result.inspect_err(|error| match ServerSignal::of(error) {
                ServerSignal::None => {}
                ServerSignal::MayBeGone => self.suspect(),
                ServerSignal::IsReadOnly => self.turned_read_only(),
            }),
            () = slow => Err(gone()),
        }
    }

    /// The same for a statement on a connection that was taken at that generation.
    pub(super) async fn watch_since<T>(
        &self,
        generation: u64,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        if generation == self.generation() {
            self.watch(None, statement).await
        } else {
            Err(gone())
        }
    }

    /// Follows whichever server takes writes. It never returns.
    pub(super) async fn follow(self: Arc<Self>, work: WorkerGuard) {
        loop {
            tokio::select! {
                () = self.suspected.notified() => {}
                () = work.fails_on_purpose() => {}
            }
            while let Err(cause) = self.search().await {
                if !self.is_lost.swap(true, Ordering::SeqCst) {
                    tracing::warn!(exception.message = %cause, "no PostgreSQL server takes writes; searching");
                }
                tokio::time::sleep(SEARCH_PAUSE).await;
            }
            tokio::time::sleep(SEARCH_PAUSE).await;
        }
    }

    async fn search(&self) -> Result<(), String> {
        let found = self.find().await?;
        let is_another = self.current.swap(found, Ordering::SeqCst) != found;
        if is_another {
            tracing::warn!(server.address = self.name(), "switched to another PostgreSQL server");
        }
        if self.is_lost.swap(false, Ordering::SeqCst) {
            tracing::info!(server.address = self.name(), "a PostgreSQL server takes writes again");
        }
        // Connections that were opened while the server was read-only may remember that.
        if self.is_read_only.swap(false, Ordering::SeqCst) || is_another {
            self.abandon();
            tokio::time::sleep(SWITCH_GRACE).await;
            self.abandoned.notify_waiters();
        }
        Ok(())
    }

    /// The first server that takes writes, starting with the one in use; or what each of them reports.
    async fn find(&self) -> Result<usize, String> {
        let current = self.current.load(Ordering::SeqCst);
        let mut reports = Vec::new();
        for offset in 0..self.hosts.len() {
            let index = (current + offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else { continue };
            match timeout(PROBE_TIMEOUT, takes_writes(&host.connect)).await {
                Ok(Ok(true)) => return Ok(index),
                Ok(Ok(false)) => reports.push(format!("{} is read-only", host.name)),
                Ok(Err(cause)) => reports.push(format!("{}: {cause}", host.name)),
                Err(_) => reports.push(format!("{} does not respond", host.name)),
            }
        }
        Err(reports.join("; "))
    }
}

/// Queries whether a server takes writes, over a connection of its own.
async fn takes_writes(connect: &PgConnectOptions) -> Result<bool, SqlxError> {
    let mut connection = connect.connect().await?;
    let row = connection.fetch_one("SHOW transaction_read_only").await?;
    let read_only: String = row.try_get(0)?;
    // Whether it closes cleanly doesn't matter.
    drop(connection.close().await);
    Ok(read_only == "off")
}

/// The connection was abandoned: nobody knows how its statements ended.
fn gone() -> DbErr {
    let cause = std::io::Error::new(
        std::io::ErrorKind::ConnectionAborted,
        "the PostgreSQL server is used no more",
    );
    DbErr::Conn(RuntimeErr::SqlxError(SqlxError::Io(cause).into()))
}
