//! The two database engines behind one interface: [`Connection`] is what a statement runs on, whichever engine it is.
//!
//! | file | what it holds |
//! |---|---|
//! | [`sqlite`] | SQLite in this process: sea-orm's `ConnectionTrait` on rusqlite, and the pool of readers |
//! | [`writer`] | the one thread that writes to SQLite, with group commit for every write |
//! | [`postgres`] | the pools of PostgreSQL and their settings |
//! | [`among`] | conditions whose text does not depend on how many values they have |
//! | [`batch`] | group commit for PostgreSQL: concurrent writes of one kind share one statement |

pub(super) mod among;
pub(super) mod batch;
pub(super) mod postgres;
pub(super) mod sqlite;
pub(super) mod writer;

use std::sync::Arc;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
};

use self::{
    postgres::{Postgres, Side},
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
    Postgres(&'a DatabaseConnection),
    /// PostgreSQL: a transaction.
    PostgresTransaction(&'a DatabaseTransaction),
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
            Self::Postgres(pool) => pool.execute_raw(statement).await,
            Self::PostgresTransaction(tx) => tx.execute_raw(statement).await,
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
            Self::Postgres(pool) => pool.execute_unprepared(sql).await,
            Self::PostgresTransaction(tx) => tx.execute_unprepared(sql).await,
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
            Self::Postgres(pool) => pool.query_one_raw(statement).await,
            Self::PostgresTransaction(tx) => tx.query_one_raw(statement).await,
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
            Self::Postgres(pool) => pool.query_all_raw(statement).await,
            Self::PostgresTransaction(tx) => tx.query_all_raw(statement).await,
        }
    }
}
