//! SQLite in this process: connections that read, and one that writes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::OpenFlags;
use sea_orm::DbErr;

use super::{
    closed::Closed,
    readers::Readers,
    rows::{Kinds, failed},
    sqlite_connection::{BUSY_TIMEOUT, Counts, Mode, SqliteConnection},
    worker::Workers,
    writer::Writer,
};
use crate::store::source::Creation;

/// The table of the migrations.
const MIGRATIONS: &str = "seaql_migrations";

/// An open SQLite database: its readers and its writer.
pub(in crate::store) struct Sqlite {
    path: PathBuf,
    pub(in crate::store) readers: Readers,
    pub(in crate::store) writer: Writer,
    kinds: Arc<Kinds>,
    pub(in crate::store) counts: Arc<Counts>,
}

impl Sqlite {
    /// Opens the database file. If it may have been created by this call, it is switched to WAL, which the file
    /// remembers; an existing one is left as it is.
    pub(in crate::store) fn open(
        path: &Path,
        kinds: Kinds,
        creation: Creation,
        workers: &Workers,
    ) -> Result<Self, DbErr> {
        let (kinds, counts) = (Arc::new(kinds), Arc::new(Counts::default()));
        let open = |mode| SqliteConnection::open(path, mode, &kinds, &counts);
        let writer = open(Mode::Write)?;
        if creation == Creation::Allowed {
            writer.execute_script("PRAGMA journal_mode = WAL")?;
        }
        let closed = Closed::default();
        let writer = Writer::spawn(workers.begin("sqlite writer"), writer, closed.clone())?;
        Ok(Self {
            path: path.to_owned(),
            readers: Readers::open(|| open(Mode::Read), closed)?,
            writer,
            kinds,
            counts,
        })
    }

    /// Waits for the submitted writes, and moves the log into the database file.
    pub(in crate::store) async fn close(&self) -> Result<(), DbErr> {
        self.writer.close().await;
        let connection = self.connect()?;
        // A reader keeps a part of the log: it is moved next time.
        drop(connection.execute_script("PRAGMA wal_checkpoint(TRUNCATE)"));
        Ok(())
    }

    /// A separate connection that writes, for migrations.
    pub(in crate::store) fn connect(&self) -> Result<SqliteConnection, DbErr> {
        SqliteConnection::open(&self.path, Mode::Write, &self.kinds, &self.counts)
    }

    /// A separate connection whose reads all see the database as of its first read.
    pub(in crate::store) fn snapshot(&self) -> Result<SqliteConnection, DbErr> {
        let connection = SqliteConnection::open(&self.path, Mode::Read, &self.kinds, &self.counts)?;
        connection.execute_script("BEGIN")?;
        Ok(connection)
    }
}

/// Whether a database file has been migrated by any version of ours. Read-only, so that another program's file stays as
/// it is.
pub(in crate::store) fn is_ours(path: &Path) -> Result<bool, DbErr> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.table_exists(None, MIGRATIONS).map_err(failed)
}
