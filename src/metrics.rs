//! What is measured, for Prometheus: the one list of metrics, and the handle that everything is told to.
//!
//! No label holds an id, so the number of series is bounded: by the operations of openapi.yaml, the statuses they
//! answer, the words of outcomes. What only the database knows is read when Prometheus asks, not when it changes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::domain::{
    delivery::AttemptTrigger,
    outcome::{ErrorWord, Outcome},
};

/// Where durations are divided, in seconds: from a write to a fast disk to the longest attempt.
const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0,
];

/// Where the sizes of batches are divided.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The word for an attempt that was a success, beside those of [`ErrorWord`].
const DELIVERED: &str = "delivered";

/// A gauge of any number; not a number while nobody knows.
type Measure = Gauge<f64, std::sync::atomic::AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    operation: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempts {
    trigger: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    write: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolName {
    pool: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connections {
    pool: &'static str,
    state: &'static str,
}

/// How a pool of database connections is used.
#[derive(Clone, Copy, Debug)]
pub struct PoolUse {
    /// Which pool.
    pub name: &'static str,
    /// Connections that serve a statement or a transaction.
    pub busy: u32,
    /// Connections that wait for one.
    pub idle: u32,
    /// Connections at most.
    pub connections_max: u32,
}

/// The due work of the whole database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backlog {
    /// Deliveries that are due and not under way, counted up to a limit.
    pub due: u64,
    /// How long the oldest of them has been due.
    pub oldest_age: Duration,
    /// Webhooks with pending deliveries whose breaker is open.
    pub breakers_open: u64,
    /// Rows of the queue that are gone and not vacuumed yet. None on SQLite.
    pub dead_rows: u64,
    /// How long the oldest snapshot has been held: nothing newer can be vacuumed. Zero on SQLite.
    pub oldest_snapshot_age: Duration,
}

/// Where everything is told what happened. Clones tell the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<Requests, Counter>,
    request_duration: Family<Operation, Histogram>,
    attempts: Family<Attempts, Counter>,
    attempt_duration: Histogram,
    group_commit: Family<Write, Histogram>,
    attempts_running: Gauge,
    deliveries_waiting: Gauge,
    sqlite_statements: Counter,
    sqlite_commits: Counter,
    deliveries_due: Measure,
    oldest_due_age: Measure,
    breakers_open: Measure,
    queue_dead_rows: Measure,
    oldest_snapshot_age: Measure,
    database_up: Gauge,
    connections: Family<Connections, Gauge>,
    connections_max: Family<PoolName, Gauge>,
    log_lines_dropped: Counter,
    clock_skew: Measure,
    retention_paused: Gauge,
    master_keys_wrong: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(SECONDS);
        let sizes: fn() -> Histogram = || Histogram::new(SIZES);
        let mut inner = Inner {
            registry: Registry::with_prefix("kallima"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            attempts: Family::default(),
            attempt_duration: durations(),
            group_commit: Family::new_with_constructor(sizes),
            attempts_running: Gauge::default(),
            deliveries_waiting: Gauge::default(),
            sqlite_statements: Counter::default(),
            sqlite_commits: Counter::default(),
            deliveries_due: Measure::default(),
            oldest_due_age: Measure::default(),
            breakers_open: Measure::default(),
            queue_dead_rows: Measure::default(),
            oldest_snapshot_age: Measure::default(),
            database_up: Gauge::default(),
            connections: Family::default(),
            connections_max: Family::default(),
            log_lines_dropped: Counter::default(),
            clock_skew: Measure::default(),
            retention_paused: Gauge::default(),
            master_keys_wrong: Gauge::default(),
        };
        inner.register();
        let metrics = Self(Arc::new(inner));
        metrics.begin();
        metrics
    }
}

impl Inner {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let help = "Requests answered, by operation of openapi.yaml and status";
        registry.register("requests", help, self.requests.clone());
        let help = "From a request's head to its answer's head, by operation";
        registry.register_with_unit("request_duration", help, Unit::Seconds, self.request_duration.clone());
        let help = "Attempts that ended, by trigger and outcome: delivered, or the word of the error";
        registry.register("attempts", help, self.attempts.clone());
        let help = "How long attempts took, to the last byte of the answer";
        registry.register_with_unit("attempt_duration", help, Unit::Seconds, self.attempt_duration.clone());
        let help = "Writes that shared one transaction, by kind of write";
        registry.register("group_commit_batch_size", help, self.group_commit.clone());
        let help = "Attempts whose requests are under way on this node";
        registry.register("attempts_running", help, self.attempts_running.clone());
        let help = "Deliveries that this node has leased and that wait for an attempt";
        registry.register("deliveries_waiting", help, self.deliveries_waiting.clone());
        let help = "Statements that SQLite has run; none on PostgreSQL";
        registry.register("sqlite_statements", help, self.sqlite_statements.clone());
        let help = "Transactions that SQLite has committed; none on PostgreSQL";
        registry.register("sqlite_commits", help, self.sqlite_commits.clone());
        let help = "Deliveries that are due and leased to no node, in the whole database; counted up to 100000";
        registry.register("deliveries_due", help, self.deliveries_due.clone());
        let help = "How long the oldest delivery that is due has been due";
        registry.register_with_unit("oldest_due_age", help, Unit::Seconds, self.oldest_due_age.clone());
        let help = "Webhooks with pending deliveries whose breaker is open: only probes go out to them";
        registry.register("breakers_open", help, self.breakers_open.clone());
        let help = "Rows of the queue that are gone and that PostgreSQL has not vacuumed yet; none on SQLite";
        registry.register("queue_dead_rows", help, self.queue_dead_rows.clone());
        let help = "How long PostgreSQL's oldest snapshot has been held, which keeps dead rows from being vacuumed";
        registry.register_with_unit(
            "oldest_snapshot_age",
            help,
            Unit::Seconds,
            self.oldest_snapshot_age.clone(),
        );
        let help = "Whether the database answered when these metrics were read";
        registry.register("database_up", help, self.database_up.clone());
        let help = "Connections to the database, by pool and state";
        registry.register("database_connections", help, self.connections.clone());
        let help = "Connections to the database at most, by pool";
        registry.register("database_connections_max", help, self.connections_max.clone());
        let help = "Lines of the log that nobody read in time, so that they were dropped";
        registry.register("log_lines_dropped", help, self.log_lines_dropped.clone());
        let help = "How far this machine's clock is ahead of the one that the service goes by";
        registry.register_with_unit("clock_skew", help, Unit::Seconds, self.clock_skew.clone());
        let help = "Whether retention deletes nothing because the clock has jumped";
        registry.register("retention_paused", help, self.retention_paused.clone());
        let help =
            "Whether the master keys, or those in a key file that was not taken, do not open the signing secrets";
        registry.register("master_keys_wrong", help, self.master_keys_wrong.clone());
    }
}

impl Metrics {
    /// Makes the series that are known beforehand, so that their first change is seen as one.
    fn begin(&self) {
        for trigger in AttemptTrigger::ALL {
            for outcome in ErrorWord::ALL.into_iter().map(ErrorWord::as_str).chain([DELIVERED]) {
                let trigger = trigger.as_str();
                drop(self.0.attempts.get_or_create(&Attempts { trigger, outcome }));
            }
        }
    }

    /// A request was answered.
    pub fn request(&self, operation: &'static str, status: u16, took: Duration) {
        self.0.requests.get_or_create(&Requests { operation, status }).inc();
        let duration = self.0.request_duration.get_or_create(&Operation { operation });
        duration.observe(took.as_secs_f64());
    }

    /// An attempt ended.
    pub fn attempt(&self, trigger: AttemptTrigger, outcome: &Outcome, took: Duration) {
        let labels = Attempts {
            trigger: trigger.as_str(),
            outcome: outcome.error.map_or(DELIVERED, ErrorWord::as_str),
        };
        self.0.attempts.get_or_create(&labels).inc();
        self.0.attempt_duration.observe(took.as_secs_f64());
    }

    /// Where one kind of write tells the sizes of its batches.
    #[must_use]
    pub fn batch_sizes(&self, write: &'static str) -> BatchSizes {
        BatchSizes(self.0.group_commit.get_or_create_owned(&Write { write }))
    }

    /// What the database said of itself just now; nothing where it did not answer.
    pub fn set_backlog(&self, backlog: Option<Backlog>) {
        self.0.database_up.set(i64::from(backlog.is_some()));
        #[expect(clippy::cast_precision_loss, reason = "the counts end long before a float loses one")]
        let count = |of: fn(&Backlog) -> u64| backlog.as_ref().map_or(f64::NAN, |backlog| of(backlog) as f64);
        let age = |of: fn(&Backlog) -> Duration| backlog.as_ref().map_or(f64::NAN, |backlog| of(backlog).as_secs_f64());
        self.0.deliveries_due.set(count(|backlog| backlog.due));
        self.0.breakers_open.set(count(|backlog| backlog.breakers_open));
        self.0.queue_dead_rows.set(count(|backlog| backlog.dead_rows));
        self.0.oldest_due_age.set(age(|backlog| backlog.oldest_age));
        self.0
            .oldest_snapshot_age
            .set(age(|backlog| backlog.oldest_snapshot_age));
    }

    /// What this node is doing: attempts under way, and deliveries that wait for one.
    pub fn set_load(&self, running: usize, waiting: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.0.attempts_running.set(number(running));
        self.0.deliveries_waiting.set(number(waiting));
    }

    /// What SQLite has done since the start.
    pub fn set_sqlite(&self, statements: u64, commits: u64) {
        for (counter, total) in [
            (&self.0.sqlite_statements, statements),
            (&self.0.sqlite_commits, commits),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// How the pools are used just now.
    pub fn set_pools(&self, pools: &[PoolUse]) {
        for &PoolUse {
            name: pool,
            busy,
            idle,
            connections_max,
        } in pools
        {
            for (state, connections) in [("busy", busy), ("idle", idle)] {
                let gauge = self.0.connections.get_or_create(&Connections { pool, state });
                gauge.set(i64::from(connections));
            }
            let gauge = self.0.connections_max.get_or_create(&PoolName { pool });
            gauge.set(i64::from(connections_max));
        }
    }

    /// How many lines of the log were dropped since the process started.
    pub fn set_log_lines_dropped(&self, lines: u64) {
        self.0.log_lines_dropped.inner().fetch_max(lines, Ordering::Relaxed);
    }

    /// How far the machine's clock is ahead, in milliseconds, and whether the master keys are wrong.
    pub fn set_node(&self, skew_ms: i64, has_wrong_keys: bool) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds of all recorded history are exact in a float"
        )]
        self.0.clock_skew.set(skew_ms as f64 / 1000.0);
        self.0.master_keys_wrong.set(has_wrong_keys.into());
    }

    /// Whether retention is paused. True if that is a change.
    #[must_use]
    pub fn set_retention_paused(&self, is_paused: bool) -> bool {
        self.0.retention_paused.set(is_paused.into()) != i64::from(is_paused)
    }

    /// All of it, as `OpenMetrics` text.
    ///
    /// # Errors
    /// Where a metric cannot be written, which no metric here can bring about.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// The sizes of the batches of one kind of write.
#[derive(Clone)]
pub struct BatchSizes(Histogram);

impl BatchSizes {
    /// So many writes share one transaction.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a batch is far smaller than what a float holds exactly"
    )]
    pub fn observe(&self, size: usize) {
        self.0.observe(size as f64);
    }
}

impl std::fmt::Debug for BatchSizes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("BatchSizes")
    }
}
