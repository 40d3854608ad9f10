//! Metrics for Prometheus: the handle that records them, and what it takes.
//!
//! No label holds an id, so the number of series is bounded: by the operations of openapi.yaml, the statuses they return,
//! the words of outcomes. What only the database knows is read when Prometheus scrapes, not when it changes.

mod facts;
mod families;
mod labels;
mod process;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, histogram::Histogram},
};
use strum::VariantArray as _;

pub use self::{
    facts::{Backlog, PendingCounts, PoolUse, Totals, UnavailableReason},
    process::ProcessUse,
};
use self::{
    families::Families,
    labels::{Attempts, Connections, Operation, Pending, PoolName, Reason, Requests, Write},
};
use crate::domain::{
    delivery::{AttemptTrigger, DisabledReason},
    outcome::{ErrorWord, Outcome},
    word::Word as _,
};

/// The outcome of a successful attempt, in addition to the words of [`ErrorWord`].
const DELIVERED: &str = "delivered";

/// Records what happened. Clones share the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self(Arc::new(Families::new()));
        metrics.begin();
        metrics
    }
}

/// The possible outcomes of an attempt.
fn outcomes() -> impl Iterator<Item = &'static str> {
    ErrorWord::written().map(ErrorWord::as_str).chain([DELIVERED])
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "the counts end long before a float loses one")]
fn measure(count: u64) -> f64 {
    count as f64
}

impl Metrics {
    /// Creates the series that are known in advance, so that Prometheus sees their first change as a change.
    fn begin(&self) {
        let deliveries = &self.0.deliveries;
        for trigger in AttemptTrigger::written().map(AttemptTrigger::as_str) {
            for outcome in outcomes() {
                drop(deliveries.attempts.get_or_create(&Attempts { trigger, outcome }));
            }
        }
        for reason in DisabledReason::written().map(DisabledReason::as_str) {
            drop(deliveries.webhooks_disabled.get_or_create(&Reason { reason }));
        }
        for reason in UnavailableReason::VARIANTS.iter().map(Into::into) {
            drop(self.0.api.unavailable.get_or_create(&Reason { reason }));
        }
        self.set_backlog(None);
    }

    /// Creates the series of an operation's responses and of their duration.
    pub fn begin_operation(&self, operation: &'static str, statuses: &[u16]) {
        for &status in statuses {
            drop(self.0.api.requests.get_or_create(&Requests { operation, status }));
        }
        drop(self.0.api.request_duration.get_or_create(&Operation { operation }));
    }

    /// A request was answered.
    pub fn request(&self, operation: &'static str, status: u16, took: Duration) {
        let api = &self.0.api;
        api.requests.get_or_create(&Requests { operation, status }).inc();
        let duration = api.request_duration.get_or_create(&Operation { operation });
        duration.observe(took.as_secs_f64());
    }

    /// A request was answered 503.
    pub fn unavailable(&self, reason: UnavailableReason) {
        let reason = reason.into();
        self.0.api.unavailable.get_or_create(&Reason { reason }).inc();
    }

    /// An event was published.
    pub fn published(&self) {
        self.0.api.events_published.inc();
    }

    /// An attempt ended.
    pub fn attempt(&self, trigger: AttemptTrigger, outcome: &Outcome, took: Duration) {
        let labels = Attempts {
            trigger: trigger.as_str(),
            outcome: outcome.error.map_or(DELIVERED, ErrorWord::as_str),
        };
        let deliveries = &self.0.deliveries;
        deliveries.attempts.get_or_create(&labels).inc();
        deliveries.attempt_duration.observe(took.as_secs_f64());
    }

    /// The first attempt of a delivery started, this long after its event was published.
    pub fn first_attempt(&self, delay: Duration) {
        self.0.deliveries.first_attempt_delay.observe(delay.as_secs_f64());
    }

    /// A delivery succeeded, this long after its event was published.
    pub fn delivered(&self, delay: Duration) {
        self.0.deliveries.delivery_delay.observe(delay.as_secs_f64());
    }

    /// A delivery's schedule is used up.
    pub fn exhausted(&self) {
        self.0.deliveries.exhausted.inc();
    }

    /// The service disabled a webhook.
    pub fn webhook_disabled(&self, reason: DisabledReason) {
        let reason = reason.as_str();
        self.0
            .deliveries
            .webhooks_disabled
            .get_or_create(&Reason { reason })
            .inc();
    }

    /// Leases were lost during attempts, or ended without a record.
    pub fn leases_lost(&self, leases: u64) {
        self.0.deliveries.leases_lost.inc_by(leases);
    }

    /// This node took over the leases of a dead one.
    pub fn took_over(&self) {
        self.0.node.takeovers.inc();
    }

    /// How many nodes share the database.
    pub fn set_nodes(&self, nodes: usize) {
        self.0.node.alive.set(gauge(nodes as u64));
    }

    /// How many things have happened since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let deliveries = &self.0.deliveries;
        let (mut delivered, mut failed) = (0, 0);
        for trigger in AttemptTrigger::written().map(AttemptTrigger::as_str) {
            for outcome in outcomes() {
                let count = deliveries.attempts.get_or_create(&Attempts { trigger, outcome }).get();
                *if outcome == DELIVERED {
                    &mut delivered
                } else {
                    &mut failed
                } += count;
            }
        }
        Totals {
            published: self.0.api.events_published.get(),
            delivered,
            failed,
            exhausted: deliveries.exhausted.get(),
        }
    }

    /// Records the batch sizes of one kind of write.
    #[must_use]
    pub fn batch_sizes(&self, write: &'static str) -> BatchSizes {
        BatchSizes(self.0.database.group_commit.get_or_create_owned(&Write { write }))
    }

    /// Records how long the statements of one connection pool wait, and how long they take.
    #[must_use]
    pub fn statement_times(&self, pool: &'static str) -> StatementTimes {
        StatementTimes {
            wait: self.0.database.wait.get_or_create_owned(&PoolName { pool }),
            statement: self.0.database.statement.get_or_create_owned(&PoolName { pool }),
        }
    }

    /// The state of the database; `None` if it did not answer.
    pub fn set_backlog(&self, backlog: Option<Backlog>) {
        let (deliveries, database) = (&self.0.deliveries, &self.0.database);
        database.up.set(i64::from(backlog.is_some()));
        let count = |of: fn(&Backlog) -> u64| backlog.as_ref().map_or(f64::NAN, |backlog| measure(of(backlog)));
        let age = |of: fn(&Backlog) -> Duration| backlog.as_ref().map_or(f64::NAN, |backlog| of(backlog).as_secs_f64());
        for (state, pending) in backlog.unwrap_or_default().pending.by_state() {
            let pending = backlog.map_or(f64::NAN, |_| measure(pending));
            deliveries.pending.get_or_create(&Pending { state }).set(pending);
        }
        deliveries.breakers_open.set(count(|backlog| backlog.breakers_open));
        deliveries.oldest_due_age.set(age(|backlog| backlog.oldest_due_age));
        deliveries.oldest_owed_age.set(age(|backlog| backlog.oldest_owed_age));
        database.queue_dead_rows.set(count(|backlog| backlog.dead_rows));
        database
            .oldest_snapshot_age
            .set(age(|backlog| backlog.oldest_snapshot_age));
    }

    /// What this node is doing: attempts in progress, and deliveries that wait for one.
    pub fn set_load(&self, running: usize, waiting: usize) {
        self.0.deliveries.running.set(gauge(running as u64));
        self.0.deliveries.waiting.set(gauge(waiting as u64));
    }

    /// How many requests are in progress.
    pub fn set_requests_running(&self, running: usize) {
        self.0.api.running.set(gauge(running as u64));
    }

    /// How many requests and attempts may be in progress.
    pub fn set_limits(&self, requests_max: usize, attempts_max: u32) {
        self.0.api.running_max.set(gauge(requests_max as u64));
        self.0.deliveries.running_max.set(attempts_max.into());
    }

    /// What SQLite has done since the start.
    pub fn set_sqlite(&self, statements: u64, commits: u64) {
        let database = &self.0.database;
        raise(&database.sqlite_statements, statements);
        raise(&database.sqlite_commits, commits);
    }

    /// How the pools are used.
    pub fn set_pools(&self, pools: &[PoolUse]) {
        for &PoolUse {
            name: pool,
            busy,
            idle,
            connections_max,
        } in pools
        {
            for (state, connections) in [("busy", busy), ("idle", idle)] {
                let gauge = self.0.database.connections.get_or_create(&Connections { pool, state });
                gauge.set(i64::from(connections));
            }
            let gauge = self.0.database.connections_max.get_or_create(&PoolName { pool });
            gauge.set(i64::from(connections_max));
        }
    }

    /// How many log lines and spans have been dropped since the process started.
    pub fn set_dropped(&self, lines: u64, spans: u64) {
        raise(&self.0.node.log_lines_dropped, lines);
        raise(&self.0.node.spans_dropped, spans);
    }

    /// What the process uses.
    pub fn set_process(&self, used: &ProcessUse) {
        let process = &self.0.process;
        let cpu = used.cpu.as_secs_f64() - process.cpu.get();
        process.cpu.inc_by(cpu.max(0.0));
        process.start_time.set(used.start_time_s);
        process.resident_memory.set(gauge(used.resident_memory_bytes));
        process.open_fds.set(gauge(used.open_fds));
        process.max_fds.set(gauge(used.max_fds));
        process.threads.set(gauge(used.threads));
    }

    /// How far the machine's clock is ahead, in milliseconds, and whether the master keys are wrong.
    pub fn set_node(&self, skew_ms: i64, has_wrong_keys: bool) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds of all recorded history are exact in a float"
        )]
        self.0.node.clock_skew.set(skew_ms as f64 / 1000.0);
        self.0.node.master_keys_wrong.set(has_wrong_keys.into());
    }

    /// Sets whether retention is paused. Returns whether that is a change.
    #[must_use]
    pub fn set_retention_paused(&self, is_paused: bool) -> bool {
        self.0.node.retention_paused.set(is_paused.into()) != i64::from(is_paused)
    }

    /// Retention completed a pass at this time, in milliseconds since 1970.
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of all recorded history are exact in a float"
    )]
    pub fn retention_succeeded(&self, at_ms: i64) {
        self.0.node.retention_success.set(at_ms as f64 / 1000.0);
    }

    /// All metrics as `OpenMetrics` text.
    ///
    /// # Errors
    /// If a metric cannot be encoded; none of ours can cause that.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// Raises a counter to a total that is counted elsewhere.
fn raise(counter: &Counter, total: u64) {
    counter.inner().fetch_max(total, Ordering::Relaxed);
}

/// The sizes of the batches of one kind of write.
#[derive(Clone)]
pub struct BatchSizes(Histogram);

impl BatchSizes {
    /// Records how many writes shared one transaction.
    pub fn observe(&self, size: usize) {
        self.0.observe(measure(size as u64));
    }
}

impl std::fmt::Debug for BatchSizes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("BatchSizes")
    }
}

/// How long the statements of one pool wait for a connection, and how long they take.
#[derive(Clone)]
pub struct StatementTimes {
    wait: Histogram,
    statement: Histogram,
}

impl StatementTimes {
    /// Records how long a statement waited for a connection.
    pub fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    /// Records how long a statement took.
    pub fn took(&self, time: Duration) {
        self.statement.observe(time.as_secs_f64());
    }
}

impl std::fmt::Debug for StatementTimes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StatementTimes")
    }
}
