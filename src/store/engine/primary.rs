//! Which of the PostgreSQL servers takes writes, and how the pools follow it.
//!
//! While all goes well nobody is asked. A statement that fails as it does on a server that is gone, or that only follows
//! another one, starts a search: every server of the URL in turn, the present one first, until one takes writes. The pools
//! then connect there. Connections from before are used no more, and whoever waits on one hears of it at once, however
//! long the network would go on waiting.

use std::{
    future::Future,
    sync::{
        Arc,
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

use super::{hosts::Host, worker::Work};
use crate::store::{error::ServerSign, source::OpenError};

/// How long one server may take to say whether it takes writes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between two rounds of a search.
const SEARCH_PAUSE: Duration = Duration::from_millis(200);

/// How long what is under way may go on after the pools have another server: most of it waits for a connection, and gets
/// one there.
const SWITCH_GRACE: Duration = Duration::from_secs(1);

/// The servers, and the one that is used.
#[derive(Debug)]
pub(in crate::store) struct Primary {
    hosts: Vec<Host>,
    current: AtomicUsize,
    /// Rises whenever connections are abandoned: those of an earlier generation are not used.
    generation: AtomicU64,
    /// The server in use has refused a write since the last search.
    is_read_only: AtomicBool,
    /// The last search found nothing.
    is_lost: AtomicBool,
    suspected: Notify,
    abandoned: Notify,
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
        }
    }

    /// Finds the server to begin with. Where there is only one, it is used whatever it says: it may be asked why.
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

    /// The server in use: its name and port.
    pub(in crate::store) fn name(&self) -> &str {
        self.host().map(|host| host.name.as_str()).unwrap_or_default()
    }

    /// Whether the certificate of the server in use is verified.
    pub(in crate::store) fn is_verified(&self) -> bool {
        let mode = self.host().map(|host| host.connect.get_ssl_mode());
        matches!(mode, Some(PgSslMode::VerifyCa | PgSslMode::VerifyFull))
    }

    /// How to connect to the server in use.
    pub(super) fn connect_options(&self) -> PgConnectOptions {
        let host = self.host().map(|host| host.connect.clone());
        host.unwrap_or_default()
    }

    /// Whether no server takes writes, as far as is known.
    pub(in crate::store) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }

    /// Which connections are in use; a higher number after they were abandoned.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The server in use may be gone: it is asked.
    pub(super) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// The server in use takes no writes: its connections are abandoned, and another one is searched for.
    pub(in crate::store) fn turned_read_only(&self) {
        self.is_read_only.store(true, Ordering::SeqCst);
        self.abandon();
        self.suspect();
    }

    /// No connection that there is now is used again.
    fn abandon(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Runs something on a connection, and draws conclusions from its failure. It ends a little after connections were
    /// abandoned; if it takes longer than `patience`, the server is asked meanwhile.
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
            result = statement => result.inspect_err(|error| match ServerSign::of(error) {
                ServerSign::None => {}
                ServerSign::MayBeGone => self.suspect(),
                ServerSign::IsReadOnly => self.turned_read_only(),
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
    pub(super) async fn follow(self: Arc<Self>, work: Work) {
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
            tracing::warn!(
                server.address = self.name(),
                "another PostgreSQL server is used from now on"
            );
        }
        if self.is_lost.swap(false, Ordering::SeqCst) {
            tracing::info!(server.address = self.name(), "a PostgreSQL server takes writes again");
        }
        // Connections that were made while the server was read-only may remember that.
        if self.is_read_only.swap(false, Ordering::SeqCst) || is_another {
            self.abandon();
            tokio::time::sleep(SWITCH_GRACE).await;
            self.abandoned.notify_waiters();
        }
        Ok(())
    }

    /// The first server that takes writes, beginning with the one in use; or what each of them says.
    async fn find(&self) -> Result<usize, String> {
        let current = self.current.load(Ordering::SeqCst);
        let mut said = Vec::new();
        for offset in 0..self.hosts.len() {
            let index = (current + offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else { continue };
            match timeout(PROBE_TIMEOUT, takes_writes(&host.connect)).await {
                Ok(Ok(true)) => return Ok(index),
                Ok(Ok(false)) => said.push(format!("{} is read-only", host.name)),
                Ok(Err(cause)) => said.push(format!("{}: {cause}", host.name)),
                Err(_) => said.push(format!("{} does not answer", host.name)),
            }
        }
        Err(said.join("; "))
    }
}

/// Asks a server whether it takes writes, by a connection of its own.
async fn takes_writes(connect: &PgConnectOptions) -> Result<bool, SqlxError> {
    let mut connection = connect.connect().await?;
    let row = connection.fetch_one("SHOW transaction_read_only").await?;
    let read_only: String = row.try_get(0)?;
    // Whether it closes cleanly is no matter.
    drop(connection.close().await);
    Ok(read_only == "off")
}

/// The connection was abandoned: nobody knows what came of what was under way on it.
fn gone() -> DbErr {
    let cause = std::io::Error::new(
        std::io::ErrorKind::ConnectionAborted,
        "the PostgreSQL server is used no more",
    );
    DbErr::Conn(RuntimeErr::SqlxError(SqlxError::Io(cause).into()))
}
