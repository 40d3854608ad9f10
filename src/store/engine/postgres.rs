//! PostgreSQL: pools of connections, and how they are set up.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ConnectOptions, DatabaseConnection, DbBackend, DbErr, RuntimeErr, SqlxError, Statement, sqlx::ConnectOptions as _,
};
use strum::VariantArray as _;
use tokio::task::JoinHandle;

use super::{
    connection::Connection,
    hosts::{Plans, hosts},
    pool::{ACQUIRE_TIMEOUT, Pool},
    primary::Primary,
    side::Side,
    worker::Workers,
    writer::BoxFuture,
};
use crate::{
    config::DatabaseOptions,
    domain::id::NodeId,
    metrics::Metrics,
    store::{StoreError, source::OpenError},
};

/// How long a heartbeat may take before the server is suspected to be gone: soon after that, others consider the node
/// dead.
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(2);

/// The error code of a server that is starting or stopping (`cannot_connect_now`).
const STARTING: &str = "57P03";

/// The pools. Clones share them.
#[derive(Clone)]
pub(in crate::store) struct Postgres {
    api: Pool,
    delivery: Pool,
    heartbeat: Pool,
    publication: Pool,
    /// Which server they connect to.
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
    /// Opens the pools. `node` identifies this process to the server.
    pub(in crate::store) async fn open(
        options: &DatabaseOptions,
        node: NodeId,
        workers: &Workers,
    ) -> Result<Self, OpenError> {
        let primary = Arc::new(Primary::new(hosts(options, node)?));
        primary.choose(ACQUIRE_TIMEOUT).await?;
        // One for the heartbeat, and one for publishing, a batch at a time. Of the others, the engine's statements are few
        // and large, the API's are many and small.
        let shared = options.connections_max.saturating_sub(2).max(2);
        let delivery = (shared / 2).max(1);
        let pool = |connections_max, patience| Pool::new(&primary, connections_max, patience, Plans::Fresh);
        let api = pool(shared - delivery, None)?;
        api.test().await.map_err(|cause| connect_error(cause, &primary))?;
        primary.set_statement_timeout(check_settings(&api).await?);
        let delivery = pool(delivery, None)?;
        let heartbeat = pool(1, Some(HEARTBEAT_PATIENCE))?;
        let publication = Pool::new(&primary, 1, None, Plans::Kept)?;
        let follower = tokio::spawn(Arc::clone(&primary).follow(workers.begin("postgres primary")));
        Ok(Self {
            api,
            delivery,
            heartbeat,
            publication,
            primary,
            _follower: Arc::new(Follower(follower)),
        })
    }

    /// Sets where the statements of each pool are observed.
    pub(in crate::store) fn observe(&self, metrics: &Metrics) {
        for &side in Side::VARIANTS {
            self.side(side).observe(metrics.statement_times(side.into()));
        }
    }

    /// A connection of sea-orm's own kind, for its migrator.
    pub(in crate::store) async fn for_migrations(&self) -> Result<DatabaseConnection, DbErr> {
        let options = self.primary.connect_options(Plans::Fresh);
        let mut connect = ConnectOptions::new(options.to_url_lossy());
        connect
            .max_connections(1)
            .sqlx_logging(false)
            .map_sqlx_postgres_opts(move |_| options.clone());
        sea_orm::Database::connect(connect).await
    }

    /// The pool of a side.
    pub(in crate::store) fn side(&self, side: Side) -> &Pool {
        match side {
            Side::Api => &self.api,
            Side::Delivery => &self.delivery,
            Side::Heartbeat => &self.heartbeat,
            Side::Publication => &self.publication,
        }
    }

    /// Closes every connection, after the statements in progress.
    pub(in crate::store) async fn close(&self) {
        for &side in Side::VARIANTS {
            self.side(side).close().await;
        }
    }
}

/// Runs a write in a transaction of its own: committed if it succeeds, rolled back otherwise.
pub(in crate::store) async fn write<F, T, E>(pool: &Pool, work: F) -> Result<T, E>
where
    F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    let tx = Box::pin(pool.begin()).await.map_err(StoreError::from)?;
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
            // If this fails the connection is gone, and the transaction with it.
            drop(tx.roll_back().await);
            Err(error)
        }
    }
}

/// Why there is no first connection.
fn connect_error(cause: DbErr, primary: &Primary) -> OpenError {
    match &cause {
        // The driver's own TLS failures are text only: this one says that the server refused.
        DbErr::Conn(RuntimeErr::SqlxError(tls)) if matches!(&**tls, SqlxError::Tls(said) if said.to_string().contains("does not support TLS")) => {
            OpenError::NoTls(primary.name().to_owned())
        }
        DbErr::Conn(RuntimeErr::SqlxError(refusal)) => {
            let (said, is_temporary) = match &**refusal {
                SqlxError::Database(said) => (said.message().to_owned(), said.code().as_deref() == Some(STARTING)),
                SqlxError::Io(cause) => (cause.to_string(), true),
                other => (other.to_string(), false),
            };
            OpenError::Connect {
                server: primary.name().to_owned(),
                cause: said,
                is_temporary,
            }
        }
        DbErr::ConnectionAcquire(_) => OpenError::Connect {
            server: primary.name().to_owned(),
            cause: "no response in time".to_owned(),
            is_temporary: true,
        },
        _ => cause.into(),
    }
}

/// Warns if nothing ends a hanging statement, which would hold its locks and its connection forever, and if plans are
/// cached. Returns when the server ends a statement.
async fn check_settings(pool: &Pool) -> Result<Option<Duration>, DbErr> {
    const SETTINGS: &str = "SELECT setting::bigint AS timeout_ms, current_setting('plan_cache_mode') AS plans
        FROM pg_settings WHERE name = 'statement_timeout'";
    let row = pool
        .query_one(Statement::from_string(DbBackend::Postgres, SETTINGS))
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (timeout_ms, plans): (i64, String) = (row.try_get("", "timeout_ms")?, row.try_get("", "plans")?);
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.unsigned_abs()));
    if timeout.is_none() {
        tracing::warn!("PostgreSQL has no statement_timeout: give --statement-timeout-ms, or set it on the server");
    }
    if plans != "force_custom_plan" {
        tracing::warn!(
            "PostgreSQL's plan_cache_mode is {plans}, not force_custom_plan: give --statement-timeout-ms, or set it on \
             the server"
        );
    }
    Ok(timeout)
}
