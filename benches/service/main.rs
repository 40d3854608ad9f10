//! How fast the service is as a whole, each figure next to its limit: `cargo bench --bench service`.
//!
//! The binary runs as a separate process, on a new SQLite file and, if `TEST_DATABASE_URL` is set, on a new PostgreSQL
//! database; clients and receivers are in this process, and everything is on 127.0.0.1. A limit is what the same
//! machine does in the same run without the service: bare axum with a constant response, the same rows written by the
//! bare driver, the same bytes posted to the same receiver. Next to the figures is what one request costs in
//! statements, round trips, transactions and bytes of log, which does not depend on the machine's load.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `KALLIMA_BENCH_BINARY` | the binary to measure, such as that of an older version | this version's |
//! | `KALLIMA_BENCH_RUNS` | runs per figure; the median is printed | 5 |
//! | `KALLIMA_BENCH_SECONDS` | about how long a run takes | 3 |
//! | `KALLIMA_BENCH_ONLY` | measure only figures whose name contains this | all |
//! | `KALLIMA_BENCH_GROWTH` | `1`: the growth figures are taken at a million stored deliveries | 100,000 |
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark fails by panicking, and is no library"
)]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "counts become rates")]

mod bare;
mod counts;
mod database;
mod driver;
mod event;
mod figures;
mod flood;
mod http;
mod limits;
mod process;
mod receiver;
mod seed;
mod server;
mod settings;
mod stage;
mod table;
mod wire;

use tokio::signal::unix::{SignalKind, signal};

use self::{database::Engine, receiver::Receiver, settings::Settings, stage::Stage};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some((flood::BURN, _)) => flood::burn_forever(),
        Some((flood::ARGUMENT, rest)) => {
            return tokio::runtime::Runtime::new().unwrap().block_on(flood::run(rest));
        }
        _ => {}
    }
    let settings = Settings::from_environment();
    // One thread for the clients and one for the receivers: the rest of the machine is the service's.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let finished = runtime.block_on(async {
        tokio::select! {
            () = measure(&settings) => true,
            // Everything started or created is dropped with the future.
            () = interruption() => false,
        }
    });
    if !finished {
        std::process::exit(130);
    }
}

/// Waits until the benchmark is interrupted.
async fn interruption() {
    let [mut interrupt, mut terminate] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).unwrap());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn measure(settings: &Settings) {
    let receiver = Receiver::start();
    let mut engines = vec![Engine::Sqlite];
    match &settings.postgres {
        Some(server) => engines.push(Engine::Postgres(server.clone())),
        None => eprintln!("TEST_DATABASE_URL is not set: SQLite alone is measured"),
    }
    let mut reports = Vec::new();
    for engine in engines {
        let mut stage = Stage::set(settings, &receiver, engine).await;
        figures::measure(&mut stage).await;
        reports.push(stage.clear());
    }
    println!("{}", settings.headline().await);
    for report in reports {
        println!("\n{report}");
    }
}
