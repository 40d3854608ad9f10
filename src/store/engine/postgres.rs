//! PostgreSQL: pools of connections, and how they are set up.

use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait as _,
};

use super::{Connection, writer::BoxFuture};
use crate::{config::DatabaseOptions, store::StoreError};

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

/// The pools. Clones share them.
#[derive(Clone)]
pub(in crate::store) struct Postgres {
    api: DatabaseConnection,
    delivery: DatabaseConnection,
    heartbeat: DatabaseConnection,
}

impl Postgres {
    /// Opens the pools.
    pub(in crate::store) async fn open(options: &DatabaseOptions) -> Result<Self, DbErr> {
        // One for the heartbeat; the engine's few statements are large, the API's many are small.
        let shared = options.connections_max.saturating_sub(1).max(2);
        let delivery = (shared / 2).max(1);
        let pool = async |connections_max| sea_orm::Database::connect(connect_options(options, connections_max)).await;
        let api = pool(shared - delivery).await?;
        warn_of_settings(&api).await?;
        Ok(Self {
            api,
            delivery: pool(delivery).await?,
            heartbeat: pool(1).await?,
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

    /// Closes every connection, after the statements under way.
    pub(in crate::store) async fn close(&self) -> Result<(), DbErr> {
        for (side, _) in Side::ALL {
            self.side(side).close_by_ref().await?;
        }
        Ok(())
    }
}

/// Runs a write in a transaction of its own: committed if it succeeds, rolled back otherwise.
pub(in crate::store) async fn write<F, T, E>(pool: &DatabaseConnection, work: F) -> Result<T, E>
where
    F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    let tx = pool.begin().await.map_err(StoreError::from)?;
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

fn connect_options(options: &DatabaseOptions, connections_max: u32) -> ConnectOptions {
    let mut connect = ConnectOptions::new(&options.url);
    let timeout_ms = options.statement_timeout_ms;
    connect
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire_if_idle_for(TRIED_AFTER_IDLE)
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
