//! What can go wrong between us and the database.

use sea_orm::{DbErr, RuntimeErr, SqlxError};

/// A failure of the store. A row that does not exist is no failure: look-ups return `None`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is locked, full, read-only or shutting down: nothing was written, and the same
    /// call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(DbErr),
    /// The connection broke while a write was being committed: it may be durable, or not.
    #[error("the connection broke while a write was committed: {0}")]
    InDoubt(DbErr),
    /// The database refused a statement, which means that code and schema disagree.
    #[error("the database refused a statement: {0}")]
    Refused(DbErr),
    /// A row holds something that this version cannot read.
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let passing = match &error {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
            DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => is_passing(cause),
            _ => false,
        };
        if passing {
            Self::Unavailable(error)
        } else {
            Self::Refused(error)
        }
    }
}

impl StoreError {
    /// The secret that a request needs does not open with this node's master keys: another node may have the right ones.
    #[must_use]
    pub fn unreadable_secret() -> Self {
        let cause = "the signing secret does not open with the master keys of this node";
        Self::Unavailable(DbErr::Custom(cause.to_owned()))
    }

    /// A failure of a commit, or of a statement that is a whole transaction. Where the connection broke, nobody knows
    /// whether the server had committed by then.
    pub(super) fn of_commit(error: DbErr) -> Self {
        let is_broken = match &error {
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
                matches!(**cause, SqlxError::Io(_) | SqlxError::Protocol(_))
            }
            _ => false,
        };
        if is_broken { Self::InDoubt(error) } else { error.into() }
    }
}

/// PostgreSQL's error classes for a lost connection, a rolled-back transaction, missing resources and an operator's
/// intervention, a statement timeout among them, and the codes of the other timeouts: of a lock, and of a transaction
/// that idled; and that of a server that only follows another one, which a failover leaves behind
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const POSTGRES_PASSING: [&str; 7] = ["08", "40", "53", "57", "55P03", "25P03", "25006"];

fn is_passing(error: &SqlxError) -> bool {
    match error {
        SqlxError::Database(cause) => {
            let code = cause.code().unwrap_or_default();
            POSTGRES_PASSING.iter().any(|class| code.starts_with(class))
        }
        SqlxError::Io(_)
        | SqlxError::Tls(_)
        | SqlxError::Protocol(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed => true,
        _ => false,
    }
}

/// Reads a stored word, or says which one could not be read.
pub(super) fn readable<T>(value: Option<T>, column: &str, stored: &str) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Corrupt(format!("{column} holds {stored:?}")))
}
