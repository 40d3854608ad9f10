//! What a statement runs on, for either engine.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use super::{
    pool::{Pool, Transaction},
    readers::Readers,
    side::Side,
    sqlite_connection::SqliteConnection,
};

/// What a statement runs on: a read-only connection, or a transaction.
pub(in crate::store) enum Connection<'a> {
    /// SQLite: each statement takes a free connection of that side, on the caller's thread.
    SqliteRead(&'a Readers, Side),
    /// The same for reads that may take long, without blocking the runtime's other tasks.
    SqliteLongRead(&'a Readers, Side),
    /// SQLite: the writer thread's transaction, or a snapshot.
    SqliteTransaction(&'a SqliteConnection),
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
            Self::SqliteRead(readers, side) => readers.reading(*side, |connection| connection.execute(&statement)),
            Self::SqliteLongRead(readers, side) => {
                readers
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
            Self::SqliteRead(readers, side) => readers.reading(*side, |connection| connection.execute_script(sql)),
            Self::SqliteLongRead(readers, side) => {
                readers
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
            Self::SqliteRead(readers, side) => readers.reading(*side, |connection| connection.query_one(&statement)),
            Self::SqliteLongRead(readers, side) => {
                readers
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
            Self::SqliteRead(readers, side) => readers.reading(*side, |connection| connection.query_all(&statement)),
            Self::SqliteLongRead(readers, side) => {
                readers
                    .reading_long(*side, |connection| connection.query_all(&statement))
                    .await
            }
            Self::SqliteTransaction(connection) => connection.query_all(&statement),
            Self::Postgres(pool) => pool.query_all(statement).await,
            Self::PostgresTransaction(tx) => tx.query_all(statement).await,
        }
    }
}
