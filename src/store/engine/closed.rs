//! Whether a database was closed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sea_orm::{DbErr, RuntimeErr};

/// Whether the database was closed. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Closed(Arc<AtomicBool>);

impl Closed {
    /// From now on.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Refuses whatever comes after the database was closed.
    pub(super) fn refuse(&self) -> Result<(), DbErr> {
        if self.0.load(Ordering::SeqCst) {
            return Err(DbErr::Conn(RuntimeErr::Internal("the database was closed".to_owned())));
        }
        Ok(())
    }
}
