//! A deterministic simulation of the delivery engine.
//!
//! The real queue, attempts and records run on a real database, one step at a time: which step comes next, what the
//! receivers do, when nodes crash and how far the clock jumps is drawn from a seed. A model that knows nothing of the
//! database predicts the state after every step. `KALLIMA_SIMULATION_SEED=7` runs one seed and prints its steps;
//! `KALLIMA_SIMULATION_SEEDS=100000` runs as many.

mod customer;
mod model;
mod nodes;
mod steps;
mod world;

use std::{
    collections::BTreeSet,
    io::Write as _,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use kallima_webhooks::{clock::Clock, domain::timestamp::Timestamp, store::Database};
use world::{Collector, World};

use crate::support::database::TestDatabase;

/// Seeds that the suite runs on SQLite; on PostgreSQL, where a step is a round trip, it runs fewer.
const SEEDS_SQLITE: u64 = 1_000;
const SEEDS_POSTGRES: u64 = 60;

/// Steps of one seed, before everything is healed.
const STEPS: usize = 40;

/// What these seeds must have covered: a simulation that never sees a case proves nothing about it.
const SIGHTS: [&str; 20] = [
    "a probe goes out",
    "a lease that ended is taken over",
    "recorded: false",
    "is not made",
    "notified of webhook.failing",
    "notified of webhook.disabled",
    "notified of webhook.recovered",
    "notified of webhook_delivery.exhausted",
    "is deleted",
    "are leased at once",
    "dies before it hands them over",
    "has no room",
    "gives a lease back",
    "renews",
    "crashes",
    "replays",
    "follows the database's clock",
    "wall clock jumps",
    "starts with a clock that is",
    "were brought back",
];

/// Seeds that share a database, each with an organization of its own.
const SEEDS_A_DATABASE: u64 = 50;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

#[test]
fn the_engine_keeps_its_promises_whatever_happens() {
    let only = number("KALLIMA_SIMULATION_SEED");
    let on_postgres = std::env::var("TEST_DATABASE_URL").is_ok();
    let usual = if on_postgres { SEEDS_POSTGRES } else { SEEDS_SQLITE };
    let seeds = only.map_or(0..number("KALLIMA_SIMULATION_SEEDS").unwrap_or(usual), |seed| {
        seed..seed + 1
    });
    let (begun, next, end) = (Instant::now(), Arc::new(AtomicU64::new(seeds.start)), seeds.end);
    let tally = Arc::new(Mutex::new(Tally::default()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (next, tally) = (Arc::clone(&next), Arc::clone(&tally));
            std::thread::spawn(move || {
                // One thread: what runs beside a step runs in the same order every time.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    loop {
                        let first = next.fetch_add(SEEDS_A_DATABASE, Ordering::SeqCst);
                        if first >= end {
                            return;
                        }
                        run(first..end.min(first + SEEDS_A_DATABASE), only.is_some(), &tally).await;
                    }
                });
            })
        })
        .collect();
    let failed = workers
        .into_iter()
        .filter(|_| true)
        .any(|worker| worker.join().is_err());
    assert!(!failed, "a promise was broken; the seed is above");
    let tally = tally.lock().unwrap();
    let unseen: Vec<_> = SIGHTS.iter().filter(|sight| !tally.sights.contains(*sight)).collect();
    assert!(
        only.is_some() || unseen.is_empty(),
        "the simulation never came across {unseen:?}"
    );
    // Not `println!`, which the harness keeps to itself when a test passes: this number is to be seen.
    let report = format!(
        "simulation: {} seeds, {} steps, every invariant held after each ({:.1} s)\n",
        end - seeds.start,
        tally.steps,
        begun.elapsed().as_secs_f64()
    );
    std::io::stdout().write_all(report.as_bytes()).unwrap();
}

/// The totals of all seeds.
#[derive(Default)]
struct Tally {
    steps: usize,
    sights: BTreeSet<&'static str>,
}

/// Runs some seeds on one database.
async fn run(seeds: Range<u64>, tell: bool, tally: &Mutex<Tally>) {
    let database = TestDatabase::fleeting().await;
    let clock = Clock::manual(Timestamp::from_millis(1_776_938_400_000));
    let db = Database::open(&database.options, &clock).await.unwrap();
    let collector = Arc::new(Collector::default());
    db.hand_over_to(collector.clone());
    for seed in seeds {
        let mut world = World::new(
            seed,
            db.clone(),
            clock.clone(),
            Arc::clone(&collector),
            !database.is_postgres(),
        )
        .await;
        for _ in 0..STEPS {
            world.step().await;
            world.check().await;
        }
        world.heal().await;
        world.check().await;
        world.check_history().await;
        let story = world.story();
        if tell {
            eprintln!("{story}");
        }
        let mut tally = tally.lock().unwrap();
        tally.steps += STEPS;
        tally
            .sights
            .extend(SIGHTS.iter().filter(|sight| story.contains(*sight)));
    }
    db.close().await.unwrap();
}
