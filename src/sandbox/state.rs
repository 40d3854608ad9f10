//! A sandbox, as its operations know it.

use std::{ops::Deref, sync::Arc};

use tokio::sync::Mutex;

use super::{examples::Setting, failures::Failures, mailbox::Mailbox};
use crate::{api::Limiter, clock::Clock, contract::Contract, store::Database};

/// A sandbox, as its operations know it. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Sandbox(Arc<State>);

impl Sandbox {
    pub(super) fn new(parts: Parts, limiter: Arc<Limiter>) -> Self {
        Self(Arc::new(State {
            parts,
            limiter,
            failures: Failures::default(),
            turn: Mutex::default(),
        }))
    }
}

impl Deref for Sandbox {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// What a sandbox is made of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub db: Database,
    /// Its clock, which can be advanced.
    pub clock: Clock,
    /// The catalog of event types.
    pub contract: Arc<Contract>,
    /// What requests for its own operations are checked by.
    pub operations: Contract,
    /// Where the pages about errors are.
    pub error_pages_url: String,
    /// What arrived at the inbox.
    pub mailbox: Arc<Mailbox>,
    /// What a reset begins with again.
    pub setting: Setting,
    /// Whether that has examples.
    pub has_examples: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) parts: Parts,
    pub(super) limiter: Arc<Limiter>,
    pub(super) failures: Failures,
    /// Held by whoever moves the clock or resets.
    pub(super) turn: Mutex<()>,
}
