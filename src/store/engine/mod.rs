//! The two database engines behind one interface: [`Connection`] is what a statement runs on, whichever engine it is.
//!
//! | file | what it holds |
//! |---|---|
//! | [`sqlite`] | SQLite in this process: sea-orm's `ConnectionTrait` on rusqlite, and the pool of readers |
//! | [`rows`] | its parameters and rows as sea-orm's values |
//! | [`writer`] | the one thread that writes to SQLite, with group commit for every write |
//! | [`postgres`] | the pools of PostgreSQL and their settings |
//! | [`pool`] | one pool: connections that are lent and kept, and transactions |
//! | [`hosts`] | how each of its servers is connected to: TLS, settings |
//! | [`primary`] | which of them takes writes, and how the pools follow it |
//! | [`among`] | conditions whose text does not depend on how many values they have |
//! | [`side`] | who asks: each has connections of its own |
//! | [`worker`] | what of this runs by itself, and is watched |
//! | [`batch`] | group commit for PostgreSQL: concurrent writes of one kind share one statement |

pub(super) mod among;
pub(super) mod batch;
mod hosts;
pub(super) mod pool;
pub(super) mod postgres;
mod primary;
pub(super) mod rows;
pub(super) mod side;
pub(super) mod sqlite;
pub(super) mod worker;
pub(super) mod writer;

use std::sync::Arc;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use self::{
    pool::{Pool, Transaction},
    postgres::Postgres,
    side::Side,
    sqlite::Sqlite,
};

/// An open database of one engine. Clones share its connections.
#[derive(Clone)]
pub(super) enum Engine {
    /// One process, one file.
    Sqlite(Arc<Sqlite>),
    /// Any number of nodes.
    Postgres(Postgres),
}

/// What a statement runs on: a connection that only reads, or a transaction.
pub(super) enum Connection<'a> {
    /// SQLite: each statement takes a free connection of that side, on the caller's thread.
    SqliteRead(&'a Sqlite, Side),
    /// The same for reads that may take long: they do not hold up the runtime's other tasks.
    SqliteLongRead(&'a Sqlite, Side),
    /// SQLite: the transaction of the thread that writes, or a snapshot.
    SqliteTransaction(&'a sqlite::Connection),
    /// PostgreSQL: each statement takes a connection of the pool.
    Postgres(&'a Pool),
    /// PostgreSQL: a transaction.
    PostgresTransaction(&'a Transaction),
}

#[async_trait::async_trait]
impl ConnectionTrait for Connection<'_> {
    fn get_database_backend(&self) -> DbBackend {
        match self {
            Self::SqliteRead(..) | Self::SqliteLongRead(..) | Self::SqliteTransaction(_) => DbBackend::Sqlite,
            Self::Postgres(_) | Self::PostgresTransaction(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Self::SqliteRead(sqlite, side) => sqlite.reading(*side, |connection| connection.execute(&statement)),
            Self::SqliteLongRead(sqlite, side) => {
                sqlite
                    .reading_long(*side, |connection| connection.execute(&statement))
                    .await
            }
            Self::SqliteTransaction(connection) => connection.execute(&statement),
            Self::Postgres(pool) => pool.execute(statement).await,
            Self::PostgresTransaction(tx) => tx.execute(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Self::SqliteRead(sqlite, side) => sqlite.reading(*side, |connection| connection.execute_script(sql)),
            Self::SqliteLongRead(sqlite, side) => {
                sqlite
                    .reading_long(*side, |connection| connection.execute_script(sql))
                    .await
            }
            Self::SqliteTransaction(connection) => connection.execute_script(sql),
            Self::Postgres(pool) => pool.execute_script(sql).await,
            Self::PostgresTransaction(tx) => tx.execute_script(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Self::SqliteRead(sqlite, side) => sqlite.reading(*side, |connection| connection.query_one(&statement)),
            Self::SqliteLongRead(sqlite, side) => {
                sqlite
                    .reading_long(*side, |connection| connection.query_one(&statement))
                    .await
            }
            Self::SqliteTransaction(connection) => connection.query_one(&statement),
            Self::Postgres(pool) => pool.query_one(statement).await,
            Self::PostgresTransaction(tx) => tx.query_one(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Self::SqliteRead(sqlite, side) => sqlite.reading(*side, |connection| connection.query_all(&statement)),
            Self::SqliteLongRead(sqlite, side) => {
                sqlite
                    .reading_long(*side, |connection| connection.query_all(&statement))
                    .await
            }
            Self::SqliteTransaction(connection) => connection.query_all(&statement),
            Self::Postgres(pool) => pool.query_all(statement).await,
            Self::PostgresTransaction(tx) => tx.query_all(statement).await,
        }
    }
}
