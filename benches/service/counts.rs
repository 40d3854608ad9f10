//! What requests and events cost in statements, round trips, transactions and bytes of log: figures that do not depend
//! on how busy the machine is. And what an idle node does.

use std::{
    slice::from_ref,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sea_orm::sqlx::{self, PgPool};

use super::{
    driver::{Pool, Until, keep_busy, pace},
    process,
    server::{Server, Tenant},
    stage::{Stage, changes, publications, reads},
    table::{Cost, Unit},
    wire::Wire,
};

const IDLE_CPU: &str = "idle node: CPU, of one core";
const IDLE_STATEMENTS: &str = "idle node: statements";
const COUNTS: &str = "costs of a request and of an event";

/// How long an idle node is watched, per run.
const IDLE: Duration = Duration::from_secs(10);

/// How long the service may take to record what has arrived.
const SETTLE: Duration = Duration::from_secs(1);

pub(crate) async fn measure(stage: &mut Stage<'_>) {
    if !stage.wants(&[IDLE_CPU, IDLE_STATEMENTS, COUNTS]) {
        return;
    }
    let meter = Meter::install(stage).await;
    let server = Server::start_on(&stage.settings.binary, &meter.url, true).await;
    if stage.wants(&[IDLE_CPU, IDLE_STATEMENTS]) {
        idle(stage, &server, &meter).await;
    }
    if stage.wants(&[COUNTS]) {
        costs(stage, &server, &meter).await;
    }
    server.stop().await;
}

/// What counts while the service works.
struct Meter {
    /// The URL of the database, through the counting proxy, if any.
    url: String,
    wire: Option<Wire>,
    pool: Option<PgPool>,
    /// Whether the server counts statements, too.
    server_counts: bool,
}

/// The counts so far; `None` if nothing counts it.
#[derive(Clone, Copy, Default)]
struct Reading {
    statements: Option<f64>,
    /// The same, from `pg_stat_statements`.
    calls: Option<f64>,
    round_trips: Option<f64>,
    transactions: Option<f64>,
    bytes: Option<f64>,
}

impl Meter {
    async fn install(stage: &mut Stage<'_>) -> Self {
        let Some(pool) = stage.database.pool().cloned() else {
            stage.report.notes.push(
                "Statements and transactions are the counters `kallima_sqlite_statements_total` and \
                 `kallima_sqlite_commits_total` of `/metrics`, and unknown (–) of versions without them; bytes are what \
                 the process wrote to the disk: log and checkpoints."
                    .to_owned(),
            );
            return Self {
                url: stage.database.url(),
                wire: None,
                pool: None,
                server_counts: false,
            };
        };
        let mut url = url::Url::parse(&stage.database.url()).unwrap();
        let host = url.host_str().unwrap_or("127.0.0.1").to_owned();
        let wire = Wire::open(host, url.port().unwrap_or(5432)).await;
        url.set_ip_host(wire.address.ip()).unwrap();
        url.set_port(Some(wire.address.port())).unwrap();
        let loaded: String = sqlx::query_scalar("SELECT current_setting('shared_preload_libraries')")
            .fetch_one(&pool)
            .await
            .unwrap();
        let server_counts = loaded.contains("pg_stat_statements");
        if server_counts {
            let create = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
            sqlx::raw_sql(create).execute(&pool).await.unwrap();
        }
        stage.report.notes.push(format!(
            "Statements (`BEGIN` and `COMMIT` included), round trips and transactions are counted on the wire between \
             the service and PostgreSQL; bytes are those of the WAL, of the whole server, full-page images included. {}",
            if server_counts {
                "In brackets: as counted by `pg_stat_statements`."
            } else {
                "`pg_stat_statements` is not loaded, so it cannot confirm them."
            }
        ));
        Self {
            url: url.to_string(),
            wire: Some(wire),
            pool: Some(pool),
            server_counts,
        }
    }

    async fn read(&self, server: &Server) -> Reading {
        let (Some(wire), Some(pool)) = (&self.wire, &self.pool) else {
            return Reading {
                statements: server.counter("kallima_sqlite_statements_total").await,
                transactions: server.counter("kallima_sqlite_commits_total").await,
                bytes: Some(process::bytes_written(server.pid) as f64),
                ..Reading::default()
            };
        };
        let (counters, count) = (&wire.counters, |counter: &std::sync::atomic::AtomicU64| {
            Some(counter.load(Ordering::Relaxed) as f64)
        });
        // The log position is available at once; `pg_stat_wal` lags by a second or more.
        let bytes = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8");
        let calls = sqlx::query_scalar(
            "SELECT sum(calls)::float8 FROM pg_stat_statements
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        Reading {
            statements: count(&counters.statements),
            calls: if self.server_counts {
                calls.fetch_one(pool).await.unwrap()
            } else {
                None
            },
            round_trips: count(&counters.round_trips),
            transactions: count(&counters.transactions),
            bytes: bytes.fetch_one(pool).await.unwrap(),
        }
    }
}

impl Reading {
    /// The difference to an earlier reading, per operation.
    fn since(self, before: Self, count: f64) -> Self {
        let each = |now: Option<f64>, before: Option<f64>| Some((now? - before?) / count);
        Self {
            statements: each(self.statements, before.statements),
            calls: each(self.calls, before.calls),
            round_trips: each(self.round_trips, before.round_trips),
            transactions: each(self.transactions, before.transactions),
            bytes: each(self.bytes, before.bytes),
        }
    }
}

async fn idle(stage: &mut Stage<'_>, server: &Server, meter: &Meter) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let time = IDLE * u32::try_from(stage.settings.runs).unwrap();
    eprintln!(
        "{}: watching an idle node for {} s",
        stage.engine.name(),
        time.as_secs()
    );
    let (before, cpu) = (meter.read(server).await, process::cpu(server.pid));
    tokio::time::sleep(time).await;
    // At the same instant: the reading is work, too.
    let cpu = process::cpu(server.pid).saturating_sub(cpu);
    let seen = meter.read(server).await.since(before, time.as_secs_f64());
    let percent = 100.0 * cpu.as_secs_f64() / time.as_secs_f64();
    stage
        .report
        .add(IDLE_CPU, Unit::Percent, vec![percent], None, "≤ 0.1 %");
    if let Some(statements) = seen.statements {
        let goal = stage.engine.pick("", "≤ 3/s");
        stage
            .report
            .add(IDLE_STATEMENTS, Unit::Rarely, vec![statements], None, goal);
    }
}

async fn costs(stage: &mut Stage<'_>, server: &Server, meter: &Meter) {
    let tenant = stage.tenant(server, 1).await;
    warm_up(stage, server, &tenant).await;
    for (name, connections, count) in [("one at a time", 1, 500), ("32 at a time", 32, 2_000)] {
        let until = Until::Count(count);
        let before = meter.read(server).await;
        keep_busy(&reads(server.address, &tenant), connections, until).await;
        add(stage, server, meter, &format!("GET, {name}"), before, count).await;
        let before = meter.read(server).await;
        keep_busy(&changes(server, &tenant, true), connections, until).await;
        add(stage, server, meter, &format!("PATCH, {name}"), before, count).await;
    }
    for rate in [100, 300] {
        let count = u64::from(rate) * 4;
        let before = meter.read(server).await;
        paced(stage, server, &tenant, rate, count).await;
        add(stage, server, meter, &format!("event, {rate} events/s"), before, count).await;
    }
    let count = 4_000;
    let before = meter.read(server).await;
    let round = stage.receiver.expect(count, 1);
    let load = publications(server, from_ref(&tenant), round.first);
    let work = keep_busy(&load, 32, Until::Count(count)).await;
    round.elapsed_since(work.started).await;
    add(stage, server, meter, "event, 32 at a time", before, count).await;
}

/// Prepares what is prepared once: connections and statements.
async fn warm_up(stage: &Stage<'_>, server: &Server, tenant: &Tenant) {
    let until = Until::Count(1_000);
    keep_busy(&reads(server.address, tenant), 32, until).await;
    keep_busy(&changes(server, tenant, true), 32, until).await;
    let round = stage.receiver.expect(1_000, 1);
    let work = keep_busy(&publications(server, from_ref(tenant), round.first), 32, until).await;
    round.elapsed_since(work.started).await;
    tokio::time::sleep(SETTLE).await;
}

async fn paced(stage: &Stage<'_>, server: &Server, tenant: &Tenant, rate: u32, count: u64) {
    let round = stage.receiver.expect(count, 1);
    let pool = Arc::new(Pool::open(publications(server, from_ref(tenant), round.first)).await);
    let start = std::time::Instant::now();
    pace(rate, count, |number| {
        let pool = Arc::clone(&pool);
        async move { pool.send(number).await }
    })
    .await;
    round.elapsed_since(start).await;
}

/// Reports the difference to `before`, including what the service records afterwards.
async fn add(stage: &mut Stage<'_>, server: &Server, meter: &Meter, operation: &str, before: Reading, count: u64) {
    tokio::time::sleep(SETTLE).await;
    let seen = meter.read(server).await.since(before, count as f64);
    eprintln!("{}: counted {operation}", stage.engine.name());
    stage.report.costs.push(Cost {
        operation: operation.to_owned(),
        statements: seen.statements,
        calls: seen.calls,
        round_trips: seen.round_trips,
        transactions: seen.transactions,
        bytes: seen.bytes,
    });
}
