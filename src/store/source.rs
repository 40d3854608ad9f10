//! Where a database is, and why it cannot be opened.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sea_orm::DbErr;

use super::StoreError;
use crate::domain::keyring::KeyRingError;

/// What only the owner may read and write: the mode of every file that is made.
pub(in crate::store) const OWNER_ONLY: u32 = 0o600;

/// Whether opening a database may make its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// An SQLite database that is not there is made, and so is the key file beside it.
    Allowed,
    /// What is not there is an error, and what is there stays as it is.
    Refused,
}

/// A database that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no engine that we know.
    #[error("database URL must begin with sqlite:// or postgres://")]
    UnknownEngine,
    /// An SQLite database in memory would be another one for each connection.
    #[error("an SQLite database must be a file: give sqlite://PATH")]
    InMemory,
    /// There is no such SQLite file, and this command makes none.
    #[error("there is no database {0}: check --database-url; `kallima-webhooks migrate` makes a new one")]
    NoDatabase(PathBuf),
    /// The schema is not this version's, and this command does not change it.
    #[error("{0} lacks migrations of this version: run `kallima-webhooks migrate`")]
    NotMigrated(String),
    /// Another name for the same file would have another log, another lock and another key.
    #[error(
        "{path} has {links} hard links: opened by two names, an SQLite database is corrupted; remove all but one name"
    )]
    HardLinks {
        /// The database file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// The SQLite file could not be made or looked at.
    #[error("cannot open the database {0}: {1}")]
    File(PathBuf, io::Error),
    /// Another process serves from the same SQLite file.
    #[error(
        "{0} is in use by another kallima-webhooks process; an SQLite database has one server, PostgreSQL any number"
    )]
    InUse(PathBuf),
    /// The lock file beside an SQLite database could not be made.
    #[error("cannot lock {path}: {cause}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// PostgreSQL's nodes must be told the key that they share.
    #[error(
        "PostgreSQL needs a master key: give --master-key or --master-key-file (32 random bytes, written as 1:BASE64)"
    )]
    NoKey,
    /// The master keys cannot be read.
    #[error(transparent)]
    Key(#[from] KeyRingError),
    /// There is no file to add a master key to.
    #[error("the master keys are given by --master-key (KALLIMA_MASTER_KEY): add the new key there, before the others")]
    NoKeyFile,
    /// A ring has 256 keys at most.
    #[error("every id of a master key is taken: remove one that seals no secret")]
    KeyRingFull,
    /// The key file that was made with an SQLite database is not there, and this command makes none.
    #[error("there is no master key file {0}: put it back, or name another by --master-key-file")]
    KeyFileGone(PathBuf),
    /// The file of the master keys cannot be read, made or changed.
    #[error("master key file {0}: {1}")]
    KeyFile(PathBuf, io::Error),
    /// The URL cannot be meant.
    #[error("--database-url: {0}")]
    Url(String),
    /// A file that the URL names cannot be read.
    #[error("--database-url: {parameter} {path}: {cause}")]
    Certificate {
        /// The parameter that names it.
        parameter: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The server would have been written to in plaintext.
    #[error(
        "PostgreSQL at {0} offers no TLS: turn it on there (ssl = on), or give sslmode=disable in --database-url to send \
         everything in plaintext"
    )]
    NoTls(String),
    /// None of several servers can be used.
    #[error("no PostgreSQL server takes writes: {0}")]
    NoPrimary(String),
    /// The server cannot be reached, or lets nobody in.
    #[error("cannot connect to PostgreSQL at {server}: {cause}")]
    Connect {
        /// Its name and port.
        server: String,
        /// What it, or the network, says.
        cause: String,
        /// Whether it may answer later: it is not there yet, or is starting.
        is_passing: bool,
    },
    /// The database itself said no.
    #[error("cannot open the database: {0}")]
    Database(#[from] DbErr),
    /// It answered, but not as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether the database may be there later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoPrimary(_) => true,
            Self::Connect { is_passing, .. } => *is_passing,
            _ => false,
        }
    }
}

/// The file of an SQLite URL; none for PostgreSQL and for a database in memory.
#[must_use]
pub fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    let path = path.split('?').next()?;
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}

/// The SQLite file of that path, which is made where that is allowed, by its one name: symbolic links are followed, so
/// that the lock and the key, which are named after it, are the same whatever link was given.
///
/// # Errors
/// A file with several hard links has no such name.
pub(in crate::store) fn database_file(path: &Path, creation: Creation) -> Result<PathBuf, OpenError> {
    let failed = |cause: io::Error| match (cause.kind(), creation) {
        (io::ErrorKind::NotFound, Creation::Refused) => OpenError::NoDatabase(path.to_owned()),
        _ => OpenError::File(path.to_owned(), cause),
    };
    // Only where it is not there: closing the file would release the locks that this process has on it by SQLite
    // (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    if creation == Creation::Allowed && !path.exists() {
        let mut options = OpenOptions::new();
        // SQLite gives the files beside it the same mode.
        options.write(true).create(true).truncate(false).mode(OWNER_ONLY);
        options.open(path).map_err(failed)?;
    }
    let path = fs::canonicalize(path).map_err(failed)?;
    match fs::metadata(&path) {
        Ok(found) if found.is_file() && found.nlink() > 1 => Err(OpenError::HardLinks {
            path,
            links: found.nlink(),
        }),
        Ok(_) => Ok(path),
        Err(cause) => Err(OpenError::File(path, cause)),
    }
}

/// Makes the name of a new file durable: it is on the disk once its folder is.
pub(in crate::store) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The folder that a file is in.
pub(in crate::store) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The path of a file beside another one: its name, a dot and the suffix.
pub(in crate::store) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
