//! Whether a database has been closed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sea_orm::{DbErr, RuntimeErr};

/// Whether the database has been closed. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Closed(Arc<AtomicBool>);

impl Closed {
    /// Marks the database as closed.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Refuses everything after the database was closed.
    pub(super) fn refuse(&self) -> Result<(), DbErr> {
        if self.0.load(Ordering::SeqCst) {
            return Err(DbErr::Conn(RuntimeErr::Internal("the database was closed".to_owned())));
        }
        Ok(())
    }
}
