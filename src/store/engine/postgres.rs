//! PostgreSQL: pools of connections, and how they are set up.

use std::str::FromStr as _;

use sea_orm::{
    ConnectOptions, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement,
    sqlx::{ConnectOptions as _, postgres::PgConnectOptions},
};

use super::{Connection, pool::Pool, writer::BoxFuture};
use crate::{config::DatabaseOptions, store::StoreError};

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

/// The pools. Clones share them.
#[derive(Clone)]
pub(in crate::store) struct Postgres {
    options: Box<PgConnectOptions>,
    api: Pool,
    delivery: Pool,
    heartbeat: Pool,
}

impl Postgres {
    /// Opens the pools.
    pub(in crate::store) async fn open(options: &DatabaseOptions) -> Result<Self, DbErr> {
        // One for the heartbeat; the engine's few statements are large, the API's many are small.
        let shared = options.connections_max.saturating_sub(1).max(2);
        let delivery = (shared / 2).max(1);
        let count = |connections: u32| usize::try_from(connections).unwrap_or(usize::MAX);
        let connect = connect_options(options)?;
        let pool = |connections_max| Pool::new(connect.clone(), count(connections_max));
        let api = pool(shared - delivery)?;
        warn_of_settings(&api).await?;
        Ok(Self {
            api,
            delivery: pool(delivery)?,
            heartbeat: pool(1)?,
            options: Box::new(connect),
        })
    }

    /// A connection of sea-orm's own kind, for its migrator.
    pub(in crate::store) async fn for_migrations(&self) -> Result<DatabaseConnection, DbErr> {
        let options = PgConnectOptions::clone(&self.options);
        let mut connect = ConnectOptions::new(options.to_url_lossy().to_string());
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
        }
    }

    /// Closes every connection, after the statements under way.
    pub(in crate::store) async fn close(&self) {
        for (side, _) in Side::ALL {
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
            // Where this fails the connection is gone, and the transaction with it.
            drop(tx.roll_back().await);
            Err(error)
        }
    }
}

fn connect_options(options: &DatabaseOptions) -> Result<PgConnectOptions, DbErr> {
    let connect =
        PgConnectOptions::from_str(&options.url).map_err(|cause| DbErr::Conn(RuntimeErr::SqlxError(cause.into())))?;
    // PgBouncer refuses what it does not know at the start of a connection, and this says nothing that PostgreSQL 12 and
    // newer do not do by themselves.
    let connect = connect.disable_statement_logging().extra_float_digits(None);
    let timeout_ms = options.statement_timeout_ms;
    if timeout_ms == 0 {
        return Ok(connect);
    }
    let half = timeout_ms.div_ceil(2).to_string();
    Ok(connect.options([
        ("statement_timeout", timeout_ms.to_string()),
        ("lock_timeout", half.clone()),
        ("idle_in_transaction_session_timeout", half),
        // A plan that is kept suits the tables as they were when it was made. The queue is empty one moment and long the
        // next: what was planned for the former reads all of it for each batch of the latter, until somebody analyzes
        // the table.
        ("plan_cache_mode", "force_custom_plan".to_owned()),
    ]))
}

/// Warns if nothing ends a statement that hangs, which would hold its locks and its connection forever, and if plans
/// are kept.
async fn warn_of_settings(pool: &Pool) -> Result<(), DbErr> {
    const SETTINGS: &str =
        "SELECT current_setting('statement_timeout') AS timeout, current_setting('plan_cache_mode') AS plans";
    let row = pool
        .query_one(Statement::from_string(DbBackend::Postgres, SETTINGS))
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
