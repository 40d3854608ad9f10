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
    /// Opens the database file. Where it may have been made for this, it is switched to WAL, which stays with the file; one
    /// that was there is left as it is.
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

    /// Waits for the writes that were handed in, and moves the log into the database file.
    pub(in crate::store) async fn close(&self) -> Result<(), DbErr> {
        self.writer.close().await;
        let connection = self.connect()?;
        // Whoever reads keeps a part of the log: it is moved the next time.
        drop(connection.execute_script("PRAGMA wal_checkpoint(TRUNCATE)"));
        Ok(())
    }

    /// A connection of its own that writes, for migrations.
    pub(in crate::store) fn connect(&self) -> Result<SqliteConnection, DbErr> {
        SqliteConnection::open(&self.path, Mode::Write, &self.kinds, &self.counts)
    }

    /// A connection of its own whose reads all see the database as it is at its first one.
    pub(in crate::store) fn snapshot(&self) -> Result<SqliteConnection, DbErr> {
        let connection = SqliteConnection::open(&self.path, Mode::Read, &self.kinds, &self.counts)?;
        connection.execute_script("BEGIN")?;
        Ok(connection)
    }
}

/// Whether a database file has been migrated by any version of ours. It only reads, so that a file of another program
/// stays as it is.
pub(in crate::store) fn is_ours(path: &Path) -> Result<bool, DbErr> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.table_exists(None, MIGRATIONS).map_err(failed)
}
