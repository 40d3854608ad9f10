//! Where a database is, and why it cannot be opened.

use std::path::{Path, PathBuf};

use sea_orm::DbErr;

use super::StoreError;
use crate::domain::keyring::KeyRingError;

/// A database that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no engine that we know.
    #[error("database URL must begin with sqlite:// or postgres://")]
    UnknownEngine,
    /// An SQLite database in memory would be another one for each connection.
    #[error("an SQLite database must be a file: give sqlite://PATH")]
    InMemory,
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
        cause: std::io::Error,
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
    /// The file of the master keys cannot be read, made or changed.
    #[error("master key file {0}: {1}")]
    KeyFile(PathBuf, std::io::Error),
    /// The database itself said no.
    #[error("cannot open the database: {0}")]
    Database(#[from] DbErr),
    /// It answered, but not as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The file of an SQLite URL; none for PostgreSQL and for a database in memory.
#[must_use]
pub fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
    let path = path.split('?').next()?;
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}
