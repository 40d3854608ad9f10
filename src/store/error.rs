//! Failures between the store and its database.

use sea_orm::{DbErr, RuntimeErr, SqlxError};

/// A failure of the store. A missing row is not a failure: look-ups return `None`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is unreachable, locked, full, read-only or shutting down: nothing was written, and the same call
    /// may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(DbErr),
    /// The connection broke while a write was being committed: it may or may not be durable.
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
            DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
                is_temporary(cause)
            }
            _ => false,
        };
        if passing {
            Self::Unavailable(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Stored JSON, or JSON of a response, cannot be read or written.
impl From<serde_json::Error> for StoreError {
    fn from(cause: serde_json::Error) -> Self {
        Self::Corrupt(cause.to_string())
    }
}

impl StoreError {
    /// Whether the failure is temporary, so that the same call may succeed later. Any other failure is a bug of ours.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::InDoubt(_))
    }

    /// This node's master keys do not open a secret that a request needs: another node may have the right ones.
    #[must_use]
    pub fn unreadable_secret() -> Self {
        let cause = "the signing secret does not open with the master keys of this node";
        Self::Unavailable(DbErr::Custom(cause.to_owned()))
    }

    /// A failure of a commit, or of a statement that is a whole transaction. If the connection broke, nobody knows
    /// whether the server had already committed.
    pub(super) fn of_commit(error: DbErr) -> Self {
        let is_broken = match &error {
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => is_cut_off(cause),
            _ => false,
        };
        if is_broken { Self::InDoubt(error) } else { error.into() }
    }
}

/// PostgreSQL's error classes for a lost connection, a rolled-back transaction, insufficient resources and operator
/// intervention (including a statement timeout), and the codes of the other timeouts (lock, idle in transaction) and of
/// a server that is a standby, as after a failover (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const POSTGRES_TEMPORARY: [&str; 7] = ["08", "40", "53", "57", "55P03", "25P03", "25006"];

/// Whether the connection broke or the server ended it: a server that is stopped while it waits for a synchronous
/// standby has already committed.
fn is_cut_off(error: &SqlxError) -> bool {
    match error {
        SqlxError::Io(_) | SqlxError::Protocol(_) => true,
        SqlxError::Database(cause) => {
            let code = cause.code().unwrap_or_default();
            ["08", "57P01", "57P02"].iter().any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

/// What an error says about the server at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerSignal {
    /// Nothing: the statement itself failed.
    None,
    /// It may be gone.
    MayBeGone,
    /// It takes no writes: it is a standby, or was switched to read-only.
    IsReadOnly,
}

impl ServerSignal {
    pub(super) fn of(error: &DbErr) -> Self {
        let (DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause))) = error
        else {
            let is_lost = matches!(error, DbErr::Conn(_) | DbErr::ConnectionAcquire(_));
            return if is_lost { Self::MayBeGone } else { Self::None };
        };
        match &**cause {
            SqlxError::Database(cause) if cause.code().as_deref() == Some("25006") => Self::IsReadOnly,
            SqlxError::Database(cause) if cause.code().as_deref() == Some("57P03") => Self::MayBeGone,
            SqlxError::PoolTimedOut | SqlxError::Tls(_) => Self::MayBeGone,
            cause if is_cut_off(cause) => Self::MayBeGone,
            _ => Self::None,
        }
    }
}

fn is_temporary(error: &SqlxError) -> bool {
    match error {
        SqlxError::Database(cause) => {
            let code = cause.code().unwrap_or_default();
            POSTGRES_TEMPORARY.iter().any(|class| code.starts_with(class))
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

/// The parsed value of a stored word, or an error that names the unreadable word.
pub(super) fn readable<T>(value: Option<T>, column: &str, stored: &str) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Corrupt(format!("{column} holds {stored:?}")))
}
