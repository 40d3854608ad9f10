//! A pool of connections to PostgreSQL, and what statements run on.
//!
//! sqlx's own pool pings each connection when it is returned, in a task of its own: a second round trip per statement.
//! This one tests a connection only if it was idle for a while, or was returned in the middle of a statement. One that
//! was returned in the middle of a transaction is closed at once, which releases its locks.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts},
};
use sea_orm::{
    ConnAcquireErr, DbErr, ExecResult, QueryResult, RuntimeErr, SqlxError, Statement,
    sea_query::Values,
    sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, PgConnection, Postgres, query::Query},
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use super::{hosts::Plans, primary::Primary};
use crate::metrics::StatementTimes;

/// How long a caller waits for a free connection before the database counts as unavailable.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for this long is tested before use: the server may have closed it.
const TESTED_AFTER_IDLE: Duration = Duration::from_secs(1);

/// A connection is replaced after this time, so that the memory of its server process does not grow forever.
const AGE_MAX: Duration = Duration::from_mins(30);

/// How often closing checks whether the last connection was returned.
const CLOSE_INTERVAL: Duration = Duration::from_millis(5);

/// How full a pool is.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Fill {
    /// Open connections, in use or idle.
    pub(in crate::store) open: usize,
    /// Those that are idle.
    pub(in crate::store) idle: usize,
    /// How many may be open.
    pub(in crate::store) max: usize,
}

/// A pool of connections to whichever server takes writes. Clones share it.
#[derive(Clone)]
pub(in crate::store) struct Pool {
    connections: managed::Pool<Manager>,
    primary: Arc<Primary>,
    /// How long a statement may take before the server is suspected to be gone.
    patience: Option<Duration>,
    times: Arc<OnceLock<StatementTimes>>,
}

impl Pool {
    /// A pool that opens up to `connections_max` connections on demand.
    pub(super) fn new(
        primary: &Arc<Primary>,
        connections_max: u32,
        patience: Option<Duration>,
        plans: Plans,
    ) -> Result<Self, DbErr> {
        let times = Arc::<OnceLock<StatementTimes>>::default();
        let config = PoolConfig {
            max_size: usize::try_from(connections_max).unwrap_or(usize::MAX),
            timeouts: Timeouts {
                wait: Some(ACQUIRE_TIMEOUT),
                create: Some(CONNECT_TIMEOUT),
                recycle: Some(CONNECT_TIMEOUT),
            },
            // The most recently used connection has the statements prepared, and needs no test.
            queue_mode: QueueMode::Lifo,
        };
        let manager = Manager {
            primary: Arc::clone(primary),
            plans,
            times: Arc::clone(&times),
        };
        let pool = managed::Pool::builder(manager)
            .config(config)
            .runtime(Runtime::Tokio1)
            .build();
        Ok(Self {
            connections: pool.map_err(|cause| DbErr::Conn(RuntimeErr::Internal(cause.to_string())))?,
            primary: Arc::clone(primary),
            patience,
            times,
        })
    }

    /// Sets where its statements are observed. Called once.
    pub(super) fn observe(&self, times: StatementTimes) {
        drop(self.times.set(times));
    }

    async fn get(&self) -> Result<Object<Manager>, DbErr> {
        let began = Instant::now();
        // Boxed: otherwise the state for connecting would make the future of every statement large.
        let connection = Box::pin(self.connections.get()).await;
        if let Some(times) = self.times.get() {
            times.waited(began.elapsed());
        }
        connection.map_err(|error| match error {
            PoolError::Backend(cause) => DbErr::Conn(RuntimeErr::SqlxError(cause.into())),
            PoolError::Closed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            PoolError::Timeout(_) => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            other => DbErr::Conn(RuntimeErr::Internal(other.to_string())),
        })
    }

    async fn watch<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        self.primary.watch(self.patience, statement).await
    }

    /// Opens a connection, or returns why it cannot.
    pub(super) async fn test(&self) -> Result<(), DbErr> {
        self.get().await.map(drop)
    }

    pub(in crate::store) async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.watch(async { self.get().await?.execute(statement).await }).await
    }

    pub(super) async fn execute_script(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.watch(async { self.get().await?.execute_script(sql).await }).await
    }

    pub(super) async fn query_one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.watch(async { self.get().await?.query_one(statement).await }).await
    }

    pub(super) async fn query_all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.watch(async { self.get().await?.query_all(statement).await }).await
    }

    /// Begins a transaction. Dropped unfinished, it closes its connection.
    pub(super) async fn begin(&self) -> Result<Transaction, DbErr> {
        let begun = async {
            let mut connection = self.get().await?;
            connection.in_transaction = true;
            connection.execute_script("BEGIN").await?;
            Ok(connection)
        };
        let connection = self.watch(begun).await?;
        Ok(Transaction {
            generation: connection.generation,
            connection: Mutex::new(connection),
            _closes: CloseAbandoned(self.connections.clone()),
            primary: Arc::clone(&self.primary),
        })
    }

    /// How full the pool is.
    pub(in crate::store) fn fill(&self) -> Fill {
        let status = self.connections.status();
        Fill {
            open: status.size,
            idle: status.available.min(status.size),
            max: status.max_size,
        }
    }

    /// Stops lending connections, and closes each one when it is returned.
    pub(super) async fn close(&self) {
        self.connections.close();
        let all = async {
            while self.connections.status().size > 0 {
                tokio::time::sleep(CLOSE_INTERVAL).await;
            }
        };
        // A hanging statement ends with its connection.
        drop(tokio::time::timeout(ACQUIRE_TIMEOUT, all).await);
    }
}

/// A transaction on one connection, which may be abandoned meanwhile.
pub(in crate::store) struct Transaction {
    connection: Mutex<Object<Manager>>,
    /// Declared after the connection, and so dropped after it was returned.
    _closes: CloseAbandoned,
    primary: Arc<Primary>,
    generation: u64,
}

/// Closes the pool's connections that were returned in the middle of a transaction. Whether such a transaction is still
/// open is unknown, since its COMMIT may have been sent.
struct CloseAbandoned(managed::Pool<Manager>);

impl Drop for CloseAbandoned {
    fn drop(&mut self) {
        self.0.retain(|pooled, _| !pooled.in_transaction);
    }
}

impl Transaction {
    async fn watch<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        self.primary.watch_since(self.generation, statement).await
    }

    pub(super) async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.watch(async { self.connection.lock().await.execute(statement).await })
            .await
    }

    pub(super) async fn execute_script(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.watch(async { self.connection.lock().await.execute_script(sql).await })
            .await
    }

    pub(super) async fn query_one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.watch(async { self.connection.lock().await.query_one(statement).await })
            .await
    }

    pub(super) async fn query_all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.watch(async { self.connection.lock().await.query_all(statement).await })
            .await
    }

    pub(super) async fn commit(self) -> Result<(), DbErr> {
        self.end("COMMIT").await
    }

    pub(super) async fn roll_back(self) -> Result<(), DbErr> {
        self.end("ROLLBACK").await
    }

    async fn end(self, how: &str) -> Result<(), DbErr> {
        self.execute_script(how).await?;
        self.connection.into_inner().in_transaction = false;
        Ok(())
    }
}

/// Opens connections, and decides which can be reused.
pub(in crate::store) struct Manager {
    primary: Arc<Primary>,
    plans: Plans,
    times: Arc<OnceLock<StatementTimes>>,
}

impl managed::Manager for Manager {
    type Type = PooledConnection;
    type Error = SqlxError;

    async fn create(&self) -> Result<PooledConnection, SqlxError> {
        let generation = self.primary.generation();
        Ok(PooledConnection {
            connection: PgConnection::connect_with(&self.primary.connect_options(self.plans)).await?,
            generation,
            primary: Arc::clone(&self.primary),
            times: Arc::clone(&self.times),
            in_statement: None,
            in_transaction: false,
            is_broken: false,
        })
    }

    async fn recycle(&self, pooled: &mut PooledConnection, metrics: &Metrics) -> RecycleResult<SqlxError> {
        let is_unusable = pooled.is_broken || pooled.in_transaction;
        if is_unusable || pooled.generation != self.primary.generation() || metrics.age() > AGE_MAX {
            return Err(RecycleError::message("it is not used again"));
        }
        if pooled.in_statement.is_some() || metrics.last_used() >= TESTED_AFTER_IDLE {
            // Its reply comes after everything that is still unread.
            pooled.connection.ping().await?;
        }
        pooled.in_statement = None;
        Ok(())
    }
}

/// A pooled connection, and what it was returned in the middle of.
pub(in crate::store) struct PooledConnection {
    connection: PgConnection,
    /// Which server it goes to, as counted by [`Primary::generation`].
    generation: u64,
    primary: Arc<Primary>,
    times: Arc<OnceLock<StatementTimes>>,
    /// When the unfinished statement began, if there is one.
    in_statement: Option<Instant>,
    in_transaction: bool,
    is_broken: bool,
}

impl PooledConnection {
    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.in_statement = Some(Instant::now());
        let done = self.primary.reply(query(statement).execute(&mut self.connection)).await;
        let done = self
            .finished(done)
            .map_err(|cause| DbErr::Exec(RuntimeErr::SqlxError(cause.into())))?;
        Ok(done.into())
    }

    async fn execute_script(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.in_statement = Some(Instant::now());
        let done = self.primary.reply(self.connection.execute(AssertSqlSafe(sql))).await;
        let done = self
            .finished(done)
            .map_err(|cause| DbErr::Exec(RuntimeErr::SqlxError(cause.into())))?;
        Ok(done.into())
    }

    async fn query_one(&mut self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.in_statement = Some(Instant::now());
        let row = self
            .primary
            .reply(query(statement).fetch_optional(&mut self.connection))
            .await;
        let row = self
            .finished(row)
            .map_err(|cause| DbErr::Query(RuntimeErr::SqlxError(cause.into())))?;
        Ok(row.map(Into::into))
    }

    async fn query_all(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.in_statement = Some(Instant::now());
        let rows = self
            .primary
            .reply(query(statement).fetch_all(&mut self.connection))
            .await;
        let rows = self
            .finished(rows)
            .map_err(|cause| DbErr::Query(RuntimeErr::SqlxError(cause.into())))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Records that a statement has ended, and whether the connection has, too.
    fn finished<T>(&mut self, result: Result<T, SqlxError>) -> Result<T, SqlxError> {
        if let (Some(began), Some(times)) = (self.in_statement.take(), self.times.get()) {
            times.took(began.elapsed());
        }
        let is_whole = matches!(result, Ok(_) | Err(SqlxError::Database(_) | SqlxError::RowNotFound));
        self.is_broken |= !is_whole;
        result
    }
}

/// Converts the statement for sqlx.
fn query<'a>(statement: Statement) -> Query<'a, Postgres, SqlxValues> {
    let values = statement.values.unwrap_or(Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

#[cfg(test)]
mod tests {
    use sea_orm::DbBackend;

    use super::*;
    use crate::{config::DatabaseOptions, domain::id::NodeId, store::engine::hosts::hosts};

    const LOCK: &str = "SELECT pg_advisory_xact_lock(7165109)";

    /// Only if a PostgreSQL server is configured.
    #[tokio::test]
    async fn an_abandoned_transaction_ends_with_its_connection_and_frees_its_locks() {
        let Ok(server) = std::env::var("TEST_DATABASE_URL") else {
            return;
        };
        let hosts = hosts(&DatabaseOptions::of(&server), NodeId::NIL).unwrap();
        let primary = Arc::new(Primary::new(hosts));
        let [pool, other] = [(); 2].map(|()| Pool::new(&primary, 1, None, Plans::Fresh).unwrap());
        let abandoned = pool.begin().await.unwrap();
        abandoned.execute_script(LOCK).await.unwrap();
        assert_eq!(pool.fill().open, 1);
        drop(abandoned);
        assert_eq!(
            pool.fill().open,
            0,
            "it would keep its locks until somebody needs the connection"
        );
        // This pool has no connection to spare: another one requests the lock.
        let locked = other.execute_script(LOCK);
        tokio::time::timeout(ACQUIRE_TIMEOUT, locked).await.unwrap().unwrap();

        let committed = pool.begin().await.unwrap();
        committed.commit().await.unwrap();
        let one = Statement::from_string(DbBackend::Postgres, "SELECT 1");
        pool.query_one(one).await.unwrap().unwrap();
        assert_eq!(pool.fill().open, 1, "a connection whose transaction has ended stays");
    }
}
