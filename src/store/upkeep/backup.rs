//! A copy of an SQLite database while a server writes to it.
//!
//! SQLite's online backup copies the pages of one snapshot: what is committed meanwhile goes to the log and not into
//! the copy, and nobody waits. The copy gets its name only after it was read back and verified.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup as Copying, StepResult},
};
use tempfile::NamedTempFile;

use crate::{
    config::DatabaseOptions,
    store::{
        engine::sqlite,
        secrets::keys::{self, Keys},
        source::{Creation, OpenError, database_file, folder, sqlite_path, sync_folder, with_suffix},
    },
};

/// How long to wait for a lock, which is held briefly when a server starts or ends.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages copied between two progress reports: 4 MiB.
const PAGES_AT_A_TIME: i32 = 1024;

/// Files that SQLite keeps next to a database. Leftovers of another one would be taken for the copy's.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL has its own tools.
    #[error(
        "PostgreSQL is backed up by its own tools: pg_dump --format=custom --file FILE \"$KALLIMA_DATABASE_URL\", and \
         pg_restore --dbname URL FILE into an empty database"
    )]
    Postgres,
    /// A file with that name exists, or one that SQLite would take for a part of it.
    #[error("{0} exists already: a backup replaces nothing")]
    Exists(PathBuf),
    /// The copy could not be written.
    #[error("cannot write {0}: {1}")]
    File(PathBuf, io::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite failed.
    #[error("the database could not be copied: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What was read back differs from what was copied.
    #[error("the copy is not whole, and was removed: {0}")]
    Damaged(String),
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many pages of the database are copied.
    Copied {
        /// The pages that are copied.
        pages: u64,
        /// The pages that there are.
        total: u64,
    },
    /// All are copied; the copy is read back and verified. SQLite does not say how far that is.
    Checking,
}

/// A verified copy.
#[derive(Debug)]
pub struct Backup {
    /// The tables with their row counts.
    pub tables: Vec<(String, u64)>,
    /// The size of the copy.
    pub bytes: u64,
    /// Where the master keys were copied to; `None` if they were omitted.
    pub key_file: Option<PathBuf>,
}

/// Copies the SQLite database of these options to a new file that only the owner can read. If requested, its master
/// keys are copied, too, to the file's name plus `.key`, where a server looks for them. `report` gets the
/// progress.
pub fn make(
    options: &DatabaseOptions,
    to: &Path,
    with_key: bool,
    mut report: impl FnMut(Progress),
) -> Result<Backup, BackupError> {
    let path = sqlite_path(&options.url).ok_or(OpenError::InMemory)?;
    let path = database_file(path, Creation::Refused)?;
    if !sqlite::is_ours(&path).map_err(OpenError::from)? {
        return Err(OpenError::NotMigrated(path.display().to_string()).into());
    }
    let key_file = with_key.then(|| with_suffix(to, "key"));
    refuse_existing(to, key_file.as_deref())?;
    let failed = |cause| BackupError::File(to.to_owned(), cause);
    // Dropped before it has its name, it is removed. Only the owner can read it.
    let draft = NamedTempFile::new_in(folder(to)).map_err(failed)?;
    let tables = copy(&path, draft.path(), &mut report)?;
    report(Progress::Checking);
    verify(draft.path(), &tables)?;
    if let Some(key_file) = &key_file {
        // After the copy, since by then every key that has sealed something in it exists.
        let keyring = Keys::load(options, Creation::Refused)?.keyring();
        keys::write_new(key_file, &keyring).map_err(|cause| BackupError::File(key_file.clone(), cause))?;
    }
    let bytes = finish(draft, to).inspect_err(|_| {
        // A key without its database would only be in the way.
        if let Some(key_file) = &key_file {
            drop(fs::remove_file(key_file));
        }
    })?;
    Ok(Backup {
        tables,
        bytes,
        key_file,
    })
}

fn refuse_existing(to: &Path, key_file: Option<&Path>) -> Result<(), BackupError> {
    let beside = BESIDE.map(|suffix| {
        let mut name = to.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    let taken = [Some(to), key_file]
        .into_iter()
        .flatten()
        .chain(beside.iter().map(PathBuf::as_path))
        .find(|path| fs::symlink_metadata(path).is_ok());
    match taken {
        Some(path) => Err(BackupError::Exists(path.to_owned())),
        None => Ok(()),
    }
}

/// Copies one snapshot into an empty file, and returns its tables with their row counts.
fn copy(from: &Path, to: &Path, mut report: impl FnMut(Progress)) -> Result<Vec<(String, u64)>, BackupError> {
    let source = open(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut target = open(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // The same snapshot is counted and copied: it lasts as long as the transaction.
    source.execute_batch("BEGIN")?;
    let tables = count(&source)?;
    let copying = Copying::new(&source, &mut target)?;
    let step = loop {
        let step = copying.step(PAGES_AT_A_TIME)?;
        let (left, all) = (copying.progress().remaining, copying.progress().pagecount);
        report(Progress::Copied {
            pages: (all - left).unsigned_abs().into(),
            total: all.unsigned_abs().into(),
        });
        if step != StepResult::More {
            break step;
        }
    };
    drop(copying);
    source.execute_batch("ROLLBACK")?;
    if step != StepResult::Done {
        return Err(BackupError::Damaged(format!("copying ended with {step:?}")));
    }
    // The first page brought WAL mode with it. Without it the copy is a single file.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    Ok(tables)
}

/// Reads a whole copy back and checks the row counts.
fn verify(path: &Path, expected: &[(String, u64)]) -> Result<(), BackupError> {
    let copy = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(BackupError::Damaged(found));
    }
    let tables = count(&copy)?;
    if tables != expected {
        return Err(BackupError::Damaged(format!(
            "rows expected {expected:?}, found {tables:?}"
        )));
    }
    Ok(())
}

/// Gives the copy its name, durably, and returns its size.
fn finish(draft: NamedTempFile, to: &Path) -> Result<u64, BackupError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        _ => BackupError::File(to.to_owned(), cause),
    };
    draft.as_file().sync_all().map_err(failed)?;
    let file = draft.persist_noclobber(to).map_err(|error| failed(error.error))?;
    sync_folder(to).map_err(failed)?;
    Ok(file.metadata().map_err(failed)?.len())
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// The tables ordered by name, with their row counts.
fn count(connection: &Connection) -> Result<Vec<(String, u64)>, rusqlite::Error> {
    const TABLES: &str =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = connection.prepare(TABLES)?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let count = |name: String| {
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0))?;
        Ok((name, rows.unsigned_abs()))
    };
    names.into_iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of a hundred pages, and its copy.
    fn copied(folder: &Path) -> (PathBuf, Vec<(String, u64)>) {
        let (from, to) = (folder.join("from.db"), folder.join("to.db"));
        let source = Connection::open(&from).unwrap();
        source
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE t (n INTEGER PRIMARY KEY, filling BLOB NOT NULL) STRICT;
                 CREATE TABLE u (n INTEGER) STRICT;
                 WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
                 INSERT INTO t SELECT n, zeroblob(400) FROM numbers",
            )
            .unwrap();
        fs::write(&to, "").unwrap();
        let tables = copy(&from, &to, |_| {}).unwrap();
        (to, tables)
    }

    #[test]
    fn a_whole_copy_passes() {
        let folder = tempfile::tempdir().unwrap();
        let (copy, tables) = copied(folder.path());
        assert_eq!(tables, [("t".to_owned(), 1000), ("u".to_owned(), 0)]);
        verify(&copy, &tables).unwrap();
        assert!(
            fs::metadata(&copy).unwrap().len() > 400_000,
            "nothing was left in a log"
        );
    }

    #[test]
    fn a_copy_that_lost_a_row_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (copy, tables) = copied(folder.path());
        let changed = Connection::open(&copy).unwrap();
        changed.execute_batch("DELETE FROM t WHERE n = 500").unwrap();
        drop(changed);
        let refused = verify(&copy, &tables).unwrap_err().to_string();
        assert!(refused.contains("999"), "{refused}");
    }

    #[test]
    fn a_copy_with_a_broken_page_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (copy, tables) = copied(folder.path());
        let mut bytes = fs::read(&copy).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 4096].fill(0xff);
        fs::write(&copy, bytes).unwrap();
        assert!(verify(&copy, &tables).is_err());
    }
}
