//! PostgreSQL: pools of connections, and how they are set up.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqlxError, Statement,
    TransactionTrait as _,
    sqlx::{Connection as _, PgPool, postgres::PgPoolOptions},
};
use tokio::task::JoinHandle;

use super::{Connection, hosts::hosts, primary::Primary, worker::Workers, writer::BoxFuture};
use crate::{
    config::DatabaseOptions,
    domain::id::NodeId,
    store::{StoreError, source::OpenError},
};

/// How long a caller waits for a free connection before the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that nobody used for this long is tried before it is used: the server may have closed it meanwhile. One
/// in steady use is not, for that would be a round trip for each statement.
const TRIED_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Who asks. Each has connections of its own, so that neither the API nor the engine can starve the other, and nothing
/// at all the heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Side {
    /// Requests, and what the command line does.
    Api,
    /// The delivery engine.
    Delivery,
    /// The node's heartbeat.
    Heartbeat,
}

impl Side {
    /// Every side, with the name of its pool in metrics.
    pub(in crate::store) const ALL: [(Self, &'static str); 3] = [
        (Self::Api, "api"),
        (Self::Delivery, "delivery"),
        (Self::Heartbeat, "heartbeat"),
    ];
}

/// How long a heartbeat may take before the server is suspected to be gone: others take a node for dead soon after.
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(2);

/// The pools. Clones share them.
#[derive(Clone)]
pub(in crate::store) struct Postgres {
    api: DatabaseConnection,
    delivery: DatabaseConnection,
    heartbeat: DatabaseConnection,
    /// Which server they lead to.
    pub(in crate::store) primary: Arc<Primary>,
    _follower: Arc<Follower>,
}

/// The task that makes the pools follow the server that takes writes. It ends with the last clone of the pools.
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Postgres {
    /// Opens the pools. The node says who it is.
    pub(in crate::store) async fn open(
        options: &DatabaseOptions,
        node: NodeId,
        workers: &Workers,
    ) -> Result<Self, OpenError> {
        let primary = Arc::new(Primary::new(hosts(options, node)?));
        primary.choose(ACQUIRE_TIMEOUT).await?;
        // One for the heartbeat; the engine's few statements are large, the API's many are small.
        let shared = options.connections_max.saturating_sub(1).max(2);
        let delivery = (shared / 2).max(1);
        let pools = [
            connect(&primary, shared - delivery).await?,
            connect(&primary, delivery).await?,
            connect(&primary, 1).await?,
        ];
        let [api, delivery, heartbeat] = pools.clone().map(DatabaseConnection::from);
        warn_of_settings(&api).await?;
        let follower = tokio::spawn(Arc::clone(&primary).follow(pools.into(), workers.begin("postgres primary")));
        Ok(Self {
            api,
            delivery,
            heartbeat,
            primary,
            _follower: Arc::new(Follower(follower)),
        })
    }

    /// The pool of a side.
    pub(in crate::store) fn side(&self, side: Side) -> &DatabaseConnection {
        match side {
            Side::Api => &self.api,
            Side::Delivery => &self.delivery,
            Side::Heartbeat => &self.heartbeat,
        }
    }

    /// The same as something to run statements on.
    pub(in crate::store) fn pool(&self, side: Side) -> Pool<'_> {
        Pool {
            connections: self.side(side),
            primary: &self.primary,
            patience: (side == Side::Heartbeat).then_some(HEARTBEAT_PATIENCE),
        }
    }

    /// Closes every connection, after the statements under way.
    pub(in crate::store) async fn close(&self) -> Result<(), DbErr> {
        for (side, _) in Side::ALL {
            self.side(side).close_by_ref().await?;
        }
        Ok(())
    }
}

/// Connections to whichever server takes writes.
#[derive(Clone, Copy)]
pub(in crate::store) struct Pool<'a> {
    connections: &'a DatabaseConnection,
    primary: &'a Primary,
    patience: Option<Duration>,
}

impl<'a> Pool<'a> {
    /// Runs a statement on a connection of the pool.
    pub(super) async fn run<T, F>(&self, statement: impl FnOnce(&'a DatabaseConnection) -> F) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        self.primary.watch(self.patience, statement(self.connections)).await
    }
}

/// A transaction, on a connection that may be abandoned meanwhile.
pub(in crate::store) struct Transaction<'a> {
    tx: DatabaseTransaction,
    primary: &'a Primary,
    generation: u64,
}

impl<'a> Transaction<'a> {
    async fn begin(pool: Pool<'a>) -> Result<Self, DbErr> {
        let tx = pool.run(DatabaseConnection::begin).await?;
        Ok(Self {
            tx,
            primary: pool.primary,
            generation: pool.primary.generation(),
        })
    }

    /// Runs a statement in the transaction.
    pub(super) async fn run<'t, T, F>(
        &'t self,
        statement: impl FnOnce(&'t DatabaseTransaction) -> F,
    ) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        self.primary.watch_since(self.generation, statement(&self.tx)).await
    }

    async fn commit(self) -> Result<(), DbErr> {
        self.primary.watch_since(self.generation, self.tx.commit()).await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.primary.watch_since(self.generation, self.tx.rollback()).await
    }
}

/// Runs a write in a transaction of its own: committed if it succeeds, rolled back otherwise.
pub(in crate::store) async fn write<F, T, E>(pool: Pool<'_>, work: F) -> Result<T, E>
where
    F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    let tx = Transaction::begin(pool).await.map_err(StoreError::from)?;
    let result = {
        let connection = Connection::PostgresTransaction(&tx);
        work(&connection).await
    };
    match result {
        Ok(done) => {
            tx.commit().await.map_err(StoreError::of_commit)?;
            Ok(done)
        }
        Err(error) => {
            // Where this fails the connection is gone, and the transaction with it.
            drop(tx.rollback().await);
            Err(error)
        }
    }
}

async fn connect(primary: &Arc<Primary>, connections_max: u32) -> Result<PgPool, OpenError> {
    let (acquiring, releasing) = (Arc::clone(primary), Arc::clone(primary));
    let pool = PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(move |connection, used| {
            let is_valid = acquiring.is_valid(&used);
            Box::pin(async move {
                if is_valid && used.idle_for >= TRIED_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(is_valid)
            })
        })
        .after_release(move |_, used| {
            let is_valid = releasing.is_valid(&used);
            Box::pin(async move { Ok(is_valid) })
        });
    let connected = pool.connect_with(primary.connect_options()).await;
    connected.map_err(|cause| match cause {
        // The driver's own failures of TLS are words alone: this one says that the server said no.
        SqlxError::Tls(cause) if cause.to_string().contains("does not support TLS") => {
            OpenError::NoTls(primary.name().to_owned())
        }
        cause => DbErr::Conn(RuntimeErr::SqlxError(cause.into())).into(),
    })
}

/// Warns if nothing ends a statement that hangs, which would hold its locks and its connection forever, and if plans
/// are kept.
async fn warn_of_settings(pool: &DatabaseConnection) -> Result<(), DbErr> {
    const SETTINGS: &str =
        "SELECT current_setting('statement_timeout') AS timeout, current_setting('plan_cache_mode') AS plans";
    let row = pool
        .query_one_raw(Statement::from_string(DbBackend::Postgres, SETTINGS))
        .await?;
    let Some(row) = row else { return Ok(()) };
    let (timeout, plans): (String, String) = (row.try_get("", "timeout")?, row.try_get("", "plans")?);
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
