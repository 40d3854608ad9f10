//! What can go wrong between us and the database.

use sea_orm::{DbErr, RuntimeErr, SqlxError};

/// A failure of the store. A row that does not exist is no failure: look-ups answer `None`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is locked, full or shutting down: nothing was written, and the
    /// same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(DbErr),
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

/// SQLite's primary result codes for a lock, a full or failing disk and a file that went away
/// (<https://www.sqlite.org/rescode.html>): busy, locked, no memory, read-only, I/O error, full, cannot open.
const SQLITE_PASSING: [i32; 7] = [5, 6, 7, 8, 10, 13, 14];

/// PostgreSQL's error classes for a lost connection, a rolled-back transaction, missing resources and an operator's
/// intervention, a statement timeout among them, and the codes of the other timeouts: of a lock, and of a transaction
/// that idled (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const POSTGRES_PASSING: [&str; 6] = ["08", "40", "53", "57", "55P03", "25P03"];

fn is_passing(error: &SqlxError) -> bool {
    match error {
        SqlxError::Database(cause) => {
            let code = cause.code().unwrap_or_default();
            // SQLite's codes are decimal numbers of fewer than five digits whose low byte is the primary
            // code; PostgreSQL's are five characters.
            if code.len() == 5 {
                POSTGRES_PASSING.iter().any(|class| code.starts_with(class))
            } else {
                code.parse::<i32>()
                    .is_ok_and(|code| SQLITE_PASSING.contains(&(code & 0xff)))
            }
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
