//! The two database engines behind one interface: [`Connection`] is what a statement runs on, for either engine.
//!
//! | file | what it holds |
//! |---|---|
//! | [`connection`] | what a statement runs on: sea-orm's `ConnectionTrait` over both engines |
//! | [`sqlite`] | SQLite in this process: its readers and its writer |
//! | [`sqlite_connection`] | one connection to it, on rusqlite |
//! | [`rows`] | its parameters and rows as sea-orm's values |
//! | [`readers`] | the read-only connections |
//! | [`writer`] | the one thread that writes to SQLite, with group commit for every write |
//! | [`batch_time`] | how long one of its transactions accepts more writes |
//! | [`closed`] | whether it has been closed, which readers and writer check |
//! | [`postgres`] | the pools of PostgreSQL and their settings |
//! | [`pool`] | one pool: connections that are borrowed and reused, and transactions |
//! | [`hosts`] | how each of its servers is connected to: TLS, settings |
//! | [`primary`] | which of them takes writes, and how the pools follow it |
//! | [`among`] | conditions whose text does not depend on the number of values |
//! | [`side`] | who uses the database: each has connections of its own |
//! | [`worker`] | the engines' background tasks, which are supervised |
//! | [`batch`] | group commit for PostgreSQL: concurrent writes of one kind share one statement |

pub(super) mod among;
pub(super) mod batch;
mod batch_time;
mod closed;
mod connection;
mod hosts;
pub(super) mod pool;
pub(super) mod postgres;
mod primary;
mod readers;
pub(super) mod rows;
pub(super) mod side;
pub(super) mod sqlite;
pub(super) mod sqlite_connection;
pub(super) mod worker;
pub(super) mod writer;

use std::sync::Arc;

pub(super) use self::connection::Connection;
use self::{postgres::Postgres, sqlite::Sqlite};

/// An open database of one engine. Clones share its connections.
#[derive(Clone)]
pub(super) enum DatabaseEngine {
    /// SQLite: one process, one file.
    Sqlite(Arc<Sqlite>),
    /// PostgreSQL: any number of nodes.
    Postgres(Postgres),
}
