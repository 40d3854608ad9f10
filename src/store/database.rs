//! Opening a database: pools, pragmas, the lock of an embedded one, and how a write begins.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use migration::{Migrator, MigratorTrait as _};
use sea_orm::{
    ConnectOptions, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};

use super::{StoreError, batch::Batcher, events, finish, keys};
use crate::{
    clock::Clock,
    config::DatabaseOptions,
    domain::keyring::{KeyRing, KeyRingError},
};

/// How long a statement of SQLite waits for another process's write lock.
const SQLITE_BUSY_TIMEOUT_MS: u32 = 5_000;

/// How many connections read an SQLite database at once; writes have one of their own.
const SQLITE_READERS_MAX: u32 = 4;

/// How long a caller waits for a free connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A database that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no engine that we know.
    #[error("database URL must begin with sqlite:// or postgres://")]
    UnknownEngine,
    /// Another process serves from the same SQLite file.
    #[error(
        "{0} is in use by another kallima-webhooks process; an SQLite database has one server, PostgreSQL any number"
    )]
    InUse(PathBuf),
    /// The lock file beside an SQLite database could not be made.
    #[error("cannot lock {path}: {cause}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// PostgreSQL's nodes must be told the key that they share.
    #[error(
        "PostgreSQL needs a master key: give --master-key or --master-key-file (32 random bytes, written as 1:BASE64)"
    )]
    NoKey,
    /// The master keys cannot be read.
    #[error(transparent)]
    Key(#[from] KeyRingError),
    /// The file of the master keys cannot be read or made.
    #[error("master key file {0}: {1}")]
    KeyFile(PathBuf, std::io::Error),
    /// The database itself said no.
    #[error("cannot open the database: {0}")]
    Database(#[from] DbErr),
}

/// An open database. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    /// SQLite: the one connection that writes. PostgreSQL: the same pool as `read`.
    pub(super) write: DatabaseConnection,
    /// Reads that need not see a transaction under way.
    pub(super) read: DatabaseConnection,
    /// What signing secrets are sealed and opened with.
    pub(super) keys: Arc<KeyRing>,
    pub(super) publisher: Batcher<events::Publication, events::Recorded>,
    pub(super) finisher: Batcher<finish::Finished, bool>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Database")
            .field("engine", &self.engine())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens a database and its pools. An SQLite file is made where there is none.
    pub async fn open(options: &DatabaseOptions, clock: &Clock) -> Result<Self, OpenError> {
        let is_sqlite = options.url.starts_with("sqlite:");
        if !is_sqlite && !options.is_postgres() {
            return Err(OpenError::UnknownEngine);
        }
        let keys = Arc::new(keys::load(options, sqlite_path(&options.url))?);
        let (write, read) = if is_sqlite {
            let write = sea_orm::Database::connect(sqlite(&options.url, 1)).await?;
            let read = sea_orm::Database::connect(sqlite(&options.url, SQLITE_READERS_MAX)).await?;
            (write, read)
        } else {
            let mut connect = ConnectOptions::new(&options.url);
            connect
                .max_connections(options.connections_max)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .sqlx_logging(false);
            let pool = sea_orm::Database::connect(connect).await?;
            (pool.clone(), pool)
        };
        let publisher = Batcher::spawn({
            let (write, clock) = (write.clone(), clock.clone());
            move |batch| events::record_batch(write.clone(), clock.clone(), batch)
        });
        let finisher = Batcher::spawn({
            let write = write.clone();
            move |batch| finish::finish_batch(write.clone(), batch)
        });
        Ok(Self {
            write,
            read,
            keys,
            publisher,
            finisher,
        })
    }

    /// Applies the migrations that the database does not have yet.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(Migrator::up(&self.write, None).await?)
    }

    /// Whether the database answers and has every migration.
    pub async fn is_ready(&self) -> Result<bool, StoreError> {
        self.read.ping().await?;
        Ok(Migrator::get_pending_migrations(&self.read).await?.is_empty())
    }

    /// Closes every connection, after the statements under way.
    pub async fn close(self) -> Result<(), StoreError> {
        self.write.close_by_ref().await?;
        Ok(self.read.close_by_ref().await?)
    }

    /// Which engine answers.
    pub(super) fn engine(&self) -> DbBackend {
        self.write.get_database_backend()
    }

    pub(super) async fn begin(&self) -> Result<DatabaseTransaction, StoreError> {
        begin(&self.write).await
    }
}

/// Begins a transaction that will write. On SQLite it takes the write lock at once: a transaction that reads
/// first and writes later could otherwise find that another process has written between, and fail.
pub(super) async fn begin(connection: &DatabaseConnection) -> Result<DatabaseTransaction, StoreError> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(connection.begin_with_options(options).await?)
}

fn sqlite(url: &str, connections_max: u32) -> ConnectOptions {
    let mut connect = ConnectOptions::new(url);
    connect
        .min_connections(1)
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        // FULL: with WAL, a commit is on disk before it is acknowledged, power cut included.
        .map_sqlx_sqlite_opts(|options| {
            options
                .create_if_missing(true)
                .pragma("journal_mode", "WAL")
                .pragma("synchronous", "FULL")
                .pragma("foreign_keys", "ON")
                .pragma("busy_timeout", SQLITE_BUSY_TIMEOUT_MS.to_string())
        });
    connect
}

/// The claim of one process to serve from an SQLite file, held until it is dropped or the process ends,
/// however it ends. PostgreSQL needs none: its nodes share the database.
#[derive(Debug)]
pub struct ServerLock(#[expect(dead_code, reason = "held for its lock, which ends with it")] Option<File>);

impl ServerLock {
    /// Claims the database of `url` for this process.
    pub fn acquire(url: &str) -> Result<Self, OpenError> {
        let Some(path) = sqlite_path(url) else {
            return Ok(Self(None));
        };
        let path = PathBuf::from(format!("{}.lock", path.display()));
        let failed = |cause| OpenError::Lock {
            path: path.clone(),
            cause,
        };
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path)),
            Err(std::fs::TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }
}

/// The file of an SQLite URL; none for PostgreSQL and for a database in memory.
fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    let path = path.split('?').next()?;
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}
