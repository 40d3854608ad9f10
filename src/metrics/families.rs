//! The list of all metrics: names, units, help texts and buckets.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};

use super::labels::{Attempts, Connections, Operation, Pending, PoolName, Reason, Requests, Write};

/// Buckets of durations, in seconds: from a write to a fast disk to the longest attempt.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 90.0, 120.0,
];

/// Buckets of the time from publication to delivery, in seconds: from the plain case to the end of the schedule.
const DELAYS: [f64; 20] = [
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 36000.0,
    86400.0, 345_600.0,
];

/// Buckets of the time of statements, and of waiting for a connection, in seconds.
const STATEMENTS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// Buckets of batch sizes.
const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// A gauge of any number; NaN while it is unknown.
pub(super) type Measure = Gauge<f64, AtomicU64>;

/// A histogram for each value of a label.
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

fn delays() -> Histogram {
    Histogram::new(DELAYS)
}

fn statements() -> Histogram {
    Histogram::new(STATEMENTS)
}

fn sizes() -> Histogram {
    Histogram::new(SIZES)
}

/// Every metric.
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) api: Api,
    pub(super) deliveries: Deliveries,
    pub(super) database: DatabaseFamilies,
    pub(super) node: Node,
    pub(super) process: ProcessFamilies,
}

/// Requests to the API.
pub(super) struct Api {
    pub(super) requests: Family<Requests, Counter>,
    pub(super) request_duration: Histograms<Operation>,
    pub(super) running: Gauge,
    pub(super) running_max: Gauge,
    pub(super) unavailable: Family<Reason, Counter>,
    pub(super) events_published: Counter,
}

/// Deliveries, made and pending.
pub(super) struct Deliveries {
    pub(super) attempts: Family<Attempts, Counter>,
    pub(super) attempt_duration: Histogram,
    pub(super) first_attempt_delay: Histogram,
    pub(super) delivery_delay: Histogram,
    pub(super) running: Gauge,
    pub(super) running_max: Gauge,
    pub(super) waiting: Gauge,
    pub(super) exhausted: Counter,
    pub(super) leases_lost: Counter,
    pub(super) webhooks_disabled: Family<Reason, Counter>,
    pub(super) pending: Family<Pending, Measure>,
    pub(super) oldest_due_age: Measure,
    pub(super) oldest_owed_age: Measure,
    pub(super) breakers_open: Measure,
}

/// The database.
pub(super) struct DatabaseFamilies {
    pub(super) up: Gauge,
    pub(super) connections: Family<Connections, Gauge>,
    pub(super) connections_max: Family<PoolName, Gauge>,
    pub(super) wait: Histograms<PoolName>,
    pub(super) statement: Histograms<PoolName>,
    pub(super) group_commit: Histograms<Write>,
    pub(super) sqlite_statements: Counter,
    pub(super) sqlite_commits: Counter,
    pub(super) queue_dead_rows: Measure,
    pub(super) oldest_snapshot_age: Measure,
}

/// The state of this node.
pub(super) struct Node {
    pub(super) alive: Gauge,
    pub(super) takeovers: Counter,
    pub(super) clock_skew: Measure,
    pub(super) master_keys_wrong: Gauge,
    pub(super) retention_paused: Gauge,
    pub(super) retention_success: Measure,
    pub(super) log_lines_dropped: Counter,
    pub(super) spans_dropped: Counter,
}

/// What the process uses, under the names that Prometheus's own client libraries use.
pub(super) struct ProcessFamilies {
    pub(super) cpu: Counter<f64, AtomicU64>,
    pub(super) start_time: Measure,
    pub(super) resident_memory: Gauge,
    pub(super) open_fds: Gauge,
    pub(super) max_fds: Gauge,
    pub(super) threads: Gauge,
}

/// A registry in which registering a metric takes one line.
struct To<'a>(&'a mut Registry);

impl To<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}

impl Families {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let process = ProcessFamilies::new(&mut To(&mut registry));
        let own = &mut To(registry.sub_registry_with_prefix("kallima"));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.0.register("build", "The version that runs", build);
        let (api, deliveries) = (Api::new(own), Deliveries::new(own));
        let (database, node) = (DatabaseFamilies::new(own), Node::new(own));
        Self {
            registry,
            api,
            deliveries,
            database,
            node,
            process,
        }
    }
}

impl Api {
    fn new(to: &mut To<'_>) -> Self {
        let requests = "Requests answered, by operation of openapi.yaml and status";
        let duration = "From a request's head to its response's head, by operation";
        let running = "Requests of organizations in progress on this node, until their responses are sent";
        let running_max = "Requests that may be in progress on this node";
        let unavailable = "Requests that were answered 503, by the reason";
        let published = "Events published on this node";
        Self {
            requests: to.add("requests", requests, Family::default()),
            request_duration: to.seconds("request_duration", duration, Family::new_with_constructor(durations)),
            running: to.add("requests_running", running, Gauge::default()),
            running_max: to.add("requests_max", running_max, Gauge::default()),
            unavailable: to.add("unavailable", unavailable, Family::default()),
            events_published: to.add("events_published", published, Counter::default()),
        }
    }
}

impl Deliveries {
    fn new(to: &mut To<'_>) -> Self {
        let attempts = "Attempts that ended, by trigger and outcome: delivered, or the word of the error";
        let duration = "How long attempts took, to the last byte of the response";
        let first = "From the publication of an event to the start of the first attempt of a delivery";
        let delivered = "From the publication of an event to the end of the attempt that delivered it; without replays";
        let running = "Attempts whose requests are in progress on this node";
        let running_max = "Attempts that may be in progress on this node";
        let waiting = "Deliveries that this node has leased and that wait for an attempt";
        let exhausted = "Deliveries that failed for good: their schedule is used up";
        let lost = "Leases that were lost during an attempt, or ended without a record";
        let disabled = "Webhooks that the service disabled, by the reason";
        let pending = "Pending deliveries of the whole database by what they wait for; each counted up to 100000";
        let due_age = "How long the oldest delivery that is due, and leased to no node, has been due";
        let owed_age =
            "How long the oldest delivery that should be in progress has been owed: due, or leased unattempted";
        let breakers = "Webhooks with pending deliveries whose breaker is open: only probes go out to them";
        Self {
            attempts: to.add("attempts", attempts, Family::default()),
            attempt_duration: to.seconds("attempt_duration", duration, durations()),
            first_attempt_delay: to.seconds("first_attempt_delay", first, delays()),
            delivery_delay: to.seconds("delivery_delay", delivered, delays()),
            running: to.add("attempts_running", running, Gauge::default()),
            running_max: to.add("attempts_max", running_max, Gauge::default()),
            waiting: to.add("deliveries_waiting", waiting, Gauge::default()),
            exhausted: to.add("deliveries_exhausted", exhausted, Counter::default()),
            leases_lost: to.add("leases_lost", lost, Counter::default()),
            webhooks_disabled: to.add("webhooks_disabled", disabled, Family::default()),
            pending: to.add("deliveries_pending", pending, Family::default()),
            oldest_due_age: to.seconds("oldest_due_age", due_age, Measure::default()),
            oldest_owed_age: to.seconds("oldest_owed_age", owed_age, Measure::default()),
            breakers_open: to.add("breakers_open", breakers, Measure::default()),
        }
    }
}

impl DatabaseFamilies {
    fn new(to: &mut To<'_>) -> Self {
        let up = "Whether the database answered when these metrics were read";
        let connections = "Connections to the database, by pool and state";
        let connections_max = "Connections to the database at most, by pool";
        let wait = "How long statements waited for a connection; SQLite's writes, for their transaction";
        let statement = "How long statements of PostgreSQL took, and transactions of SQLite, by pool";
        let group_commit = "Writes that shared one transaction, by kind of write";
        let statements_run = "Statements that SQLite has run; none on PostgreSQL";
        let commits = "Transactions that SQLite has committed; none on PostgreSQL";
        let dead = "Rows of the queue that are gone and that PostgreSQL has not vacuumed yet; none on SQLite";
        let snapshot = "How long PostgreSQL's oldest snapshot has been held, which keeps dead rows from being vacuumed";
        let of = Family::new_with_constructor;
        Self {
            up: to.add("database_up", up, Gauge::default()),
            connections: to.add("database_connections", connections, Family::default()),
            connections_max: to.add("database_connections_max", connections_max, Family::default()),
            wait: to.seconds("database_wait", wait, of(statements)),
            statement: to.seconds("database_statement_duration", statement, of(statements)),
            group_commit: to.add(
                "group_commit_batch_size",
                group_commit,
                Family::new_with_constructor(sizes),
            ),
            sqlite_statements: to.add("sqlite_statements", statements_run, Counter::default()),
            sqlite_commits: to.add("sqlite_commits", commits, Counter::default()),
            queue_dead_rows: to.add("queue_dead_rows", dead, Measure::default()),
            oldest_snapshot_age: to.seconds("oldest_snapshot_age", snapshot, Measure::default()),
        }
    }
}

impl Node {
    fn new(to: &mut To<'_>) -> Self {
        let alive = "Nodes that share the database and are alive, as this one knows";
        let takeovers = "How many times this node took over what a dead one held";
        let skew = "How far this machine's clock is ahead of the one that the service goes by";
        let keys =
            "Whether the master keys, or those in a key file that was not taken, do not open the signing secrets";
        let paused = "Whether retention deletes nothing because the clock has jumped";
        let success = "When retention last came to the end of a pass, in seconds since 1970; 0 before the first";
        let lines = "Lines of the log that nobody read in time, so that they were dropped";
        let spans = "Spans that were not exported: too many waited, or the collector did not take them";
        Self {
            alive: to.add("nodes_alive", alive, Gauge::default()),
            takeovers: to.add("takeovers", takeovers, Counter::default()),
            clock_skew: to.seconds("clock_skew", skew, Measure::default()),
            master_keys_wrong: to.add("master_keys_wrong", keys, Gauge::default()),
            retention_paused: to.add("retention_paused", paused, Gauge::default()),
            retention_success: to.seconds("retention_last_success_timestamp", success, Measure::default()),
            log_lines_dropped: to.add("log_lines_dropped", lines, Counter::default()),
            spans_dropped: to.add("spans_dropped", spans, Counter::default()),
        }
    }
}

impl ProcessFamilies {
    fn new(to: &mut To<'_>) -> Self {
        let cpu = "CPU time of this process, user and system";
        let start = "When this process started, in seconds since 1970";
        let memory = "Memory of this process that is resident";
        let threads = "Threads of this process";
        let resident_memory = Gauge::default();
        let registered = resident_memory.clone();
        to.0.register_with_unit("process_resident_memory", memory, Unit::Bytes, registered);
        Self {
            cpu: to.seconds("process_cpu", cpu, Counter::default()),
            start_time: to.seconds("process_start_time", start, Measure::default()),
            resident_memory,
            open_fds: to.add("process_open_fds", "File descriptors that are open", Gauge::default()),
            max_fds: to.add("process_max_fds", "File descriptors that may be open", Gauge::default()),
            threads: to.add("process_threads", threads, Gauge::default()),
        }
    }
}
