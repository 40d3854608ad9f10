//! Where a database is, and why it cannot be opened.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sea_orm::DbErr;

use super::StoreError;
use crate::domain::keyring::KeyringError;

/// Only the owner may read and write: the mode of every file that is created.
pub(in crate::store) const OWNER_ONLY: u32 = 0o600;

/// Whether opening a database may create its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// A missing SQLite database is created, and its key file with it.
    Allowed,
    /// A missing file is an error, and existing ones are left as they are.
    Refused,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no engine that we know.
    #[error("database URL must begin with sqlite:// or postgres://")]
    UnknownEngine,
    /// An SQLite database in memory would be a separate one for each connection.
    #[error("an SQLite database must be a file: give sqlite://PATH")]
    InMemory,
    /// There is no such SQLite file, and this command creates none.
    #[error("there is no database {0}: check --database-url; `kallima-webhooks migrate` makes a new one")]
    NoDatabase(PathBuf),
    /// The schema is not this version's, and this command does not change it.
    #[error("{0} lacks migrations of this version: run `kallima-webhooks migrate`")]
    NotMigrated(String),
    /// Another name for the same file would mean another log, another lock and another key.
    #[error(
        "{path} has {links} hard links: opened by two names, an SQLite database is corrupted; remove all but one name"
    )]
    HardLinks {
        /// The database file.
        path: PathBuf,
        /// How many hard links it has.
        links: u64,
    },
    /// The SQLite file could not be created or inspected.
    #[error("cannot open the database {0}: {1}")]
    File(PathBuf, io::Error),
    /// Another process serves from the same SQLite file.
    #[error(
        "{0} is in use by another kallima-webhooks process; an SQLite database has one server, PostgreSQL any number"
    )]
    InUse(PathBuf),
    /// The lock file of an SQLite database could not be created.
    #[error("cannot lock {path}: {cause}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// PostgreSQL's nodes share a key, which must be configured.
    #[error(
        "PostgreSQL needs a master key: give --master-key or --master-key-file (32 random bytes, written as 1:BASE64)"
    )]
    NoKey,
    /// The master keys cannot be read.
    #[error(transparent)]
    Key(#[from] KeyringError),
    /// There is no file to add a master key to.
    #[error("the master keys are given by --master-key (KALLIMA_MASTER_KEY): add the new key there, before the others")]
    NoKeyFile,
    /// A keyring holds at most 256 keys.
    #[error("every id of a master key is taken: remove one that seals no secret")]
    KeyringFull,
    /// The key file that was created with an SQLite database is missing, and this command creates none.
    #[error("there is no master key file {0}: put it back, or name another by --master-key-file")]
    KeyFileGone(PathBuf),
    /// The file of the master keys cannot be read, created or changed.
    #[error("master key file {0}: {1}")]
    KeyFile(PathBuf, io::Error),
    /// The URL is invalid.
    #[error("--database-url: {0}")]
    Url(String),
    /// A file that the URL names cannot be read.
    #[error("--database-url: {parameter} {path}: {cause}")]
    Certificate {
        /// The parameter that names it.
        parameter: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The server would have been sent everything in plaintext.
    #[error(
        "PostgreSQL at {0} offers no TLS: turn it on there (ssl = on), or give sslmode=disable in --database-url to send \
         everything in plaintext"
    )]
    NoTls(String),
    /// None of the servers can be used.
    #[error("no PostgreSQL server takes writes: {0}")]
    NoPrimary(String),
    /// The server cannot be reached, or refuses to let us in.
    #[error("cannot connect to PostgreSQL at {server}: {cause}")]
    Connect {
        /// Its host name and port.
        server: String,
        /// What the server, or the network, reports.
        cause: String,
        /// Whether it may respond later: it is not up yet, or is starting.
        is_temporary: bool,
    },
    /// The database refused.
    #[error("cannot open the database: {0}")]
    Database(#[from] DbErr),
    /// It responded, but not as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether the database may be available later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NoPrimary(_) => true,
            Self::Connect { is_temporary, .. } => *is_temporary,
            _ => false,
        }
    }
}

/// The file of an SQLite URL; `None` for PostgreSQL and for a database in memory.
#[must_use]
pub fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    let path = path.split('?').next()?;
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}

/// The SQLite file at that path, created if `creation` allows, by its one true name: symbolic links are resolved, so
/// that the lock and the key, which are named after it, are the same whatever link was given.
///
/// # Errors
/// A file with several hard links has no such name.
pub(in crate::store) fn database_file(path: &Path, creation: Creation) -> Result<PathBuf, OpenError> {
    let failed = |cause: io::Error| match (cause.kind(), creation) {
        (io::ErrorKind::NotFound, Creation::Refused) => OpenError::NoDatabase(path.to_owned()),
        _ => OpenError::File(path.to_owned(), cause),
    };
    // Only if it does not exist: closing the file would release the locks that SQLite holds on it for this process
    // (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    if creation == Creation::Allowed && !path.exists() {
        let mut options = OpenOptions::new();
        // SQLite gives its auxiliary files the same mode.
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

/// Makes the name of a new file durable: it is on disk once its folder is.
pub(in crate::store) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The folder that a file is in.
pub(in crate::store) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The path of a file next to another one: its name, a dot and the suffix.
pub(in crate::store) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
