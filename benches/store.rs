//! How long the store's hot paths take, on an empty database and on one with history: `cargo bench`.
//!
//! SQLite always; PostgreSQL too if `TEST_DATABASE_URL` is set. `KALLIMA_BENCH_HISTORY` sets how many finished
//! deliveries the history has (100,000 by default). At the end comes the slowest of all lists, with each combination of
//! filters run on a history of `KALLIMA_BENCH_LISTS` deliveries (1,000,000 by default; 0 skips it).
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking, and is no library")]

mod fixture;
mod lists;

use std::time::Duration;

use divan::Bencher;
use kallima_webhooks::{
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        event::Publication,
        health::HealthSignal,
        outcome::Outcome,
        timestamp::Timestamp,
    },
    store::{
        deliveries::{self, DeliveryQuery},
        events,
        page::PageLimit,
        queue::{
            claim::{self, Wanted},
            finish,
            lease::{Finished, Leased},
        },
        upkeep::retention::{self, Batch, Pruned},
    },
};
use tokio::task::JoinSet;

use self::fixture::{Fixture, fixture, settings};

/// The default page.
const PAGE: PageLimit = PageLimit {
    items: 50,
    bytes: 1024 * 1024,
};

/// Deliveries that are claimed and finished together.
const BATCH: u64 = 64;

fn main() {
    divan::main();
    lists::report();
}

/// One event and its delivery, until both are durable.
#[divan::bench(args = settings(), sample_count = 200)]
fn publish_1(bencher: Bencher, setting: &str) {
    let fixture = fixture(setting);
    bencher.bench_local(|| {
        fixture
            .runtime
            .block_on(events::record(&fixture.db, fixture.event(), None))
            .unwrap()
    });
    fixture.drain();
}

/// Sixty-four events at once.
#[divan::bench(args = settings(), sample_count = 50)]
fn publish_64(bencher: Bencher, setting: &str) {
    let fixture = fixture(setting);
    bencher.bench_local(|| fixture.runtime.block_on(publish(fixture, fixture.events(BATCH))));
    fixture.drain();
}

/// Sixty-four deliveries, claimed and finished.
#[divan::bench(args = settings(), sample_count = 50)]
fn claim_and_finish_64(bencher: Bencher, setting: &str) {
    let fixture = fixture(setting);
    bencher
        .with_inputs(|| fixture.runtime.block_on(publish(fixture, fixture.events(BATCH))))
        .bench_local_values(|()| fixture.runtime.block_on(claim_and_finish(fixture)));
}

/// A claim that finds nothing due: an idle node's repeated query.
#[divan::bench(args = settings(), sample_count = 200)]
fn claim_of_nothing(bencher: Bencher, setting: &str) {
    let fixture = fixture(setting);
    bencher.bench_local(|| fixture.runtime.block_on(claim(fixture)));
}

/// The first page of an organization's deliveries.
#[divan::bench(args = settings(), sample_count = 200)]
fn list_first_page(bencher: Bencher, setting: &str) {
    list(bencher, setting, &DeliveryQuery::default());
}

/// The pending deliveries, of which there are none.
#[divan::bench(args = settings(), sample_count = 200)]
fn list_pending(bencher: Bencher, setting: &str) {
    list(bencher, setting, &standing(DeliveryStatus::Pending));
}

/// The failed deliveries, of which there are none.
#[divan::bench(args = settings(), sample_count = 200)]
fn list_failed(bencher: Bencher, setting: &str) {
    list(bencher, setting, &standing(DeliveryStatus::Failed));
}

fn standing(status: DeliveryStatus) -> DeliveryQuery {
    DeliveryQuery {
        status: Some(status),
        ..DeliveryQuery::default()
    }
}

fn list(bencher: Bencher, setting: &str, query: &DeliveryQuery) {
    let fixture = fixture(setting);
    let list = || deliveries::list(&fixture.db, fixture.organization, query, PAGE);
    bencher.bench_local(|| fixture.runtime.block_on(list()).unwrap());
}

/// A batch of retention: events from long before the history, each with its delivery and its attempt.
#[divan::bench(args = settings(), sample_count = 30)]
fn prune_250(bencher: Bencher, setting: &str) {
    const EVENTS: u64 = 250;
    let fixture = fixture(setting);
    let long_ago = Timestamp::from_millis(1_000_000_000_000);
    let prune = || retention::batch(&fixture.db, fixture.organization, None, long_ago);
    bencher
        .with_inputs(|| {
            let old = |event| Publication {
                created_at: Timestamp::from_millis(0),
                ..event
            };
            let published = publish(fixture, fixture.events(EVENTS).map(old));
            fixture.runtime.block_on(published);
            fixture.drain();
        })
        .bench_local_values(|()| {
            let pruned = match fixture.runtime.block_on(prune()).unwrap() {
                Batch::Done(pruned, _) => pruned,
                Batch::Empty | Batch::NotOurTurn => Pruned::default(),
            };
            assert_eq!((pruned.events, pruned.deliveries), (EVENTS, EVENTS));
        });
}

async fn publish(fixture: &'static Fixture, events: impl Iterator<Item = Publication>) {
    let mut publishing = JoinSet::new();
    for event in events {
        publishing.spawn(events::record(&fixture.db, event, None));
    }
    for recorded in publishing.join_all().await {
        recorded.unwrap();
    }
}

async fn claim(fixture: &Fixture) -> Vec<Leased> {
    let now = fixture.clock.now();
    let walk = claim::ready(&fixture.db, None, now).await.unwrap();
    let room = usize::try_from(BATCH).unwrap();
    let wanted = walk.ready.into_iter().map(|ready| Wanted { ready, room });
    let claimed = claim::claim(&fixture.db, wanted.collect(), Duration::from_mins(1), now).await;
    claimed.unwrap()
}

async fn claim_and_finish(fixture: &'static Fixture) {
    let leases = claim(fixture).await;
    assert_eq!(leases.len() as u64, BATCH, "all that is due");
    finish_all(fixture, leases).await;
}

async fn finish_all(fixture: &'static Fixture, leases: Vec<Leased>) {
    let mut finishing = JoinSet::new();
    for leased in leases {
        let finished = Finished {
            lease: leased.lease,
            trigger: AttemptTrigger::Automatic,
            event_id: fixture.clock.new_event_id(),
            event_type: "job.completed".to_owned(),
            started_at: fixture.clock.now(),
            ended_at: fixture.clock.now(),
            outcome: Outcome {
                response_status: Some(200),
                ..Outcome::default()
            },
            status: DeliveryStatus::Delivered,
            next_attempt_at: None,
            signal: Some(HealthSignal::Success),
            exhausted: false,
        };
        finishing.spawn(finish::finish(&fixture.db, finished));
    }
    for finished in finishing.join_all().await {
        assert!(finished.unwrap());
    }
}

impl Fixture {
    /// Finishes everything that is due, so that the next benchmark begins with an empty queue.
    fn drain(&'static self) {
        self.runtime.block_on(async {
            loop {
                let leases = claim(self).await;
                if leases.is_empty() {
                    return;
                }
                finish_all(self, leases).await;
            }
        });
    }
}
