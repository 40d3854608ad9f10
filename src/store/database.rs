//! Opening a database: pools, pragmas, the lock of an embedded one, and how a write begins.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use migration::{Migrator, MigratorTrait as _};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
    sea_query::{Asterisk, Expr, ExprTrait as _, IntoColumnRef, IntoValueTuple, Query},
};
use uuid::Uuid;

use super::{StoreError, batch::Batcher, events, finish, keys::Keys, tokens::UsesUnderWay};
use crate::{clock::Clock, config::DatabaseOptions, domain::keyring::KeyRingError, metrics::Metrics};

/// How long a statement of SQLite waits for another process's write lock.
const SQLITE_BUSY_TIMEOUT_MS: u32 = 5_000;

/// How many connections read an SQLite database at once; writes have one of their own.
const SQLITE_READERS_MAX: u32 = 4;

/// How long a caller waits for a free connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Lets one process migrate at a time, until its transaction ends; a lock of the transaction, not of the session, works
/// behind PgBouncer too. The wait for that turn may last; a wait for a table that is in use may not, because all later
/// users of the table would queue up behind it. The number is arbitrary, but must stay what it is.
const MIGRATION_LOCK: &str = "SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = 0;
    SELECT pg_advisory_xact_lock(8230645551847);
    SET LOCAL lock_timeout = '5s'";

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
    /// There is no file to add a master key to.
    #[error("the master keys are given by --master-key (KALLIMA_MASTER_KEY): add the new key there, before the others")]
    NoKeyFile,
    /// A ring has 256 keys at most.
    #[error("every id of a master key is taken: remove one that seals no secret")]
    KeyRingFull,
    /// The file of the master keys cannot be read, made or changed.
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
    pub(super) keys: Arc<Keys>,
    /// This process, as the holder of leases.
    pub(super) node: Uuid,
    /// The tokens whose use is being noted.
    pub(super) token_uses: UsesUnderWay,
    pub(super) publisher: Batcher<events::Publication, events::Recorded>,
    pub(super) finisher: Batcher<finish::Finished, bool>,
    metrics: Metrics,
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
        let is_sqlite = options.is_sqlite();
        if !is_sqlite && !options.is_postgres() {
            return Err(OpenError::UnknownEngine);
        }
        let keys = Arc::new(Keys::load(options)?);
        let (write, read) = if is_sqlite {
            let write = sea_orm::Database::connect(sqlite(&options.url, 1)).await?;
            let read = sea_orm::Database::connect(sqlite(&options.url, SQLITE_READERS_MAX)).await?;
            (write, read)
        } else {
            let pool = sea_orm::Database::connect(postgres(options)).await?;
            warn_of_settings(&pool).await?;
            (pool.clone(), pool)
        };
        let metrics = Metrics::default();
        let publisher = Batcher::spawn(metrics.batch_sizes("publish"), {
            let (write, clock) = (write.clone(), clock.clone());
            move |batch| events::record_batch(write.clone(), clock.clone(), batch)
        });
        let finisher = Batcher::spawn(metrics.batch_sizes("finish"), {
            let (write, clock) = (write.clone(), clock.clone());
            move |batch| finish::finish_batch(write.clone(), clock.clone(), batch)
        });
        Ok(Self {
            write,
            read,
            keys,
            node: Uuid::new_v4(),
            token_uses: UsesUnderWay::default(),
            publisher,
            finisher,
            metrics,
        })
    }

    /// Applies the migrations that the database does not have yet: all of them or none, in one transaction. Of several
    /// processes that do so at once, one goes first and the others find nothing left to do.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if !Migrator::is_behind(&self.read).await? {
            return Ok(());
        }
        let tx = self.begin().await?;
        if self.engine() == DbBackend::Postgres {
            tx.execute_unprepared(MIGRATION_LOCK).await?;
        }
        Migrator::up(&tx, None).await?;
        Ok(tx.commit().await?)
    }

    /// Whether the database answers and has every migration of this version.
    pub async fn is_ready(&self) -> Result<bool, StoreError> {
        Ok(!Migrator::is_behind(&self.read).await?)
    }

    /// What is measured in this process. It rides with the database, which everything that measures has anyway.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
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

fn postgres(options: &DatabaseOptions) -> ConnectOptions {
    let mut connect = ConnectOptions::new(&options.url);
    let timeout_ms = options.statement_timeout_ms;
    connect
        .max_connections(options.connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(move |connect| {
            // PgBouncer refuses what it does not know at the start of a connection, and this says nothing that
            // PostgreSQL 12 and newer do not do by themselves.
            let connect = connect.extra_float_digits(None);
            if timeout_ms == 0 {
                return connect;
            }
            let half = timeout_ms.div_ceil(2).to_string();
            connect.options([
                ("statement_timeout", timeout_ms.to_string()),
                ("lock_timeout", half.clone()),
                ("idle_in_transaction_session_timeout", half),
                // A plan that is kept suits the tables as they were when it was made. The queue is empty one moment and
                // long the next: what was planned for the former reads all of it for each batch of the latter, until
                // somebody analyzes the table.
                ("plan_cache_mode", "force_custom_plan".to_owned()),
            ])
        });
    connect
}

/// Says so where nothing ends a statement that hangs, which would hold its locks and its connection for ever, and where
/// plans are kept.
async fn warn_of_settings(pool: &DatabaseConnection) -> Result<(), DbErr> {
    const ASK: &str = "SELECT current_setting('statement_timeout'), current_setting('plan_cache_mode')";
    let row = pool
        .query_one_raw(Statement::from_string(DbBackend::Postgres, ASK))
        .await?;
    let Some(row) = row else { return Ok(()) };
    let (timeout, plans): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    if timeout == "0" {
        tracing::warn!("PostgreSQL has no statement_timeout: give --statement-timeout-ms, or set it on the server");
    }
    if plans != "force_custom_plan" {
        tracing::warn!(
            "PostgreSQL's plan_cache_mode is {plans}, not force_custom_plan: give --statement-timeout-ms, or set it on \
             the server"
        );
    }
    Ok(())
}

/// That the columns, taken together, are one of `keys`. By VALUES: SQLite takes no list of tuples.
pub(super) fn among<C: IntoColumnRef, K: IntoValueTuple>(
    columns: impl IntoIterator<Item = C>,
    keys: impl IntoIterator<Item = K>,
) -> Expr {
    let keys: Vec<K> = keys.into_iter().collect();
    if keys.is_empty() {
        return Expr::value(false);
    }
    let keys = Query::select()
        .expr(Expr::col(Asterisk))
        .from_values(keys, "keys")
        .take();
    Expr::tuple(columns.into_iter().map(Expr::col)).in_subquery(keys)
}

/// Placeholders for so many rows of so many values: `($1,$2),($3,$4)`.
pub(super) fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let numbers = (1..=columns).map(|column| format!("${}", row * columns + column));
        format!("({})", numbers.collect::<Vec<_>>().join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
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
pub(super) fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    let path = path.split('?').next()?;
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}
