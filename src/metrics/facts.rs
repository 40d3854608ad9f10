//! What metrics take as a whole: snapshots of the database's state, and totals.

use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

/// How a pool of database connections is used.
#[derive(Clone, Copy, Debug)]
pub struct PoolUse {
    /// Which pool.
    pub name: &'static str,
    /// Connections that serve a statement or a transaction.
    pub busy: u32,
    /// Connections that wait for one.
    pub idle: u32,
    /// Maximum number of connections.
    pub connections_max: u32,
}

/// The pending work of the whole database.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// Pending deliveries by what they wait for.
    pub pending: PendingCounts,
    /// How long the oldest delivery that is due and leased to no node has been due.
    pub oldest_due_age: Duration,
    /// The same, including leased deliveries that have not been attempted yet, since their publication.
    pub oldest_owed_age: Duration,
    /// Webhooks with pending deliveries whose breaker is open.
    pub breakers_open: u64,
    /// Dead rows of the queue that are not vacuumed yet. `None` on SQLite.
    pub dead_rows: u64,
    /// How long the oldest snapshot has been held: nothing newer can be vacuumed. Zero on SQLite.
    pub oldest_snapshot_age: Duration,
}

/// Pending deliveries by what they wait for, each counted up to a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingCounts {
    /// For a node: they are due.
    pub due: u64,
    /// For their time: a retry, most often.
    pub scheduled: u64,
    /// For the node that has leased them, or the end of their attempt.
    pub leased: u64,
    /// For the breaker of their webhook to close.
    pub breaker: u64,
    /// For their webhook's own rate.
    pub rate: u64,
    /// For their webhook to be enabled.
    pub disabled: u64,
}

impl PendingCounts {
    pub(super) fn by_state(self) -> [(&'static str, u64); 6] {
        let Self {
            due,
            scheduled,
            leased,
            breaker,
            rate,
            disabled,
        } = self;
        [
            ("due", due),
            ("scheduled", scheduled),
            ("leased", leased),
            ("breaker", breaker),
            ("rate", rate),
            ("disabled", disabled),
        ]
    }
}

/// Why a request was answered 503.
#[derive(Clone, Copy, Debug, IntoStaticStr, PartialEq, Eq, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum UnavailableReason {
    /// The node had as many requests in progress as it takes.
    Overloaded,
    /// The database did not answer, or the outcome of a write is unknown.
    Database,
    /// The request took too long.
    Timeout,
    /// The node is stopping.
    Stopping,
    /// The node is not ready, as its probe says.
    NotReady,
}

/// How many things have happened since the start; the basis of summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events published.
    pub published: u64,
    /// Attempts that delivered.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that failed permanently.
    pub exhausted: u64,
}
