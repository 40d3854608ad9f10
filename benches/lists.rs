//! The slowest list over all combinations of filters, compared with the time that a list may take.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use kallima_webhooks::{
    domain::{
        delivery::DeliveryStatus, event::EventPosition, event_id::EventId, timestamp::Timestamp, word::Word as _,
    },
    store::{
        deliveries::{self, DeliveryQuery},
        events,
    },
};

use super::{
    PAGE,
    fixture::{
        Fixture, fixture,
        lists::{SINCE_MS, STEP_MS, count, delivery, webhook},
        settings,
    },
};

/// The time that a list may take.
const GOAL: Duration = Duration::from_millis(20);

/// How often each list is requested; the fastest run counts, since the machine may be busy with something else.
const TIMES: usize = 3;

/// Runs all lists and reports the slowest, on each engine.
pub(crate) fn report() {
    // `cargo bench -- NAME` selects something else.
    let is_selected = std::env::args()
        .skip(1)
        .all(|argument| argument.starts_with("--") || argument == "lists");
    if !is_selected || count() == 0 {
        return;
    }
    for setting in settings().into_iter().filter(|setting| setting.ends_with("empty")) {
        let engine = setting.split(',').next().unwrap();
        let (slowest, what, tried) = slowest(fixture(&format!("{engine}, lists")));
        let verdict = if slowest <= GOAL { "within" } else { "NOT within" };
        let report = format!(
            "{engine}: the slowest of {tried} lists of {} deliveries takes {slowest:.1?}, {verdict} {GOAL:?}: {what}\n",
            count()
        );
        std::io::stdout().write_all(report.as_bytes()).unwrap();
    }
}

fn slowest(fixture: &Fixture) -> (Duration, String, usize) {
    let (db, org, runtime) = (&fixture.db, fixture.organization, &fixture.runtime);
    let mut all = Vec::new();
    for query in queries() {
        let took = fastest(|| drop(runtime.block_on(deliveries::list(db, org, &query, PAGE)).unwrap()));
        all.push((took, format!("{query:?}")));
    }
    let deep = EventPosition {
        created_at: instant(count() / 2),
        id: EventId::parse("evt_01000000000000000000000000").unwrap(),
    };
    for (after, event_type) in [None, Some(deep)].into_iter().flat_map(|after| {
        [None, Some("job.failed"), Some("webhook.failing")].map(|event_type| (after.clone(), event_type))
    }) {
        let list = || runtime.block_on(events::list(db, org, event_type, after.clone(), PAGE));
        let took = fastest(|| drop(list().unwrap()));
        all.push((took, format!("events of {event_type:?} after {after:?}")));
    }
    let tried = all.len();
    let (took, what) = all.into_iter().max_by_key(|(took, _)| *took).unwrap();
    (took, what, tried)
}

fn fastest(list: impl Fn()) -> Duration {
    let times = (0..TIMES).map(|_| {
        let begun = Instant::now();
        list();
        begun.elapsed()
    });
    times.min().unwrap()
}

fn instant(number: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(SINCE_MS + number * STEP_MS).unwrap())
}

/// Every combination of filters, with values that match much, little and nothing.
fn queries() -> Vec<DeliveryQuery> {
    let mut all = vec![DeliveryQuery::default()];
    vary(&mut all, &[webhook(7), webhook(100)], |query, id| {
        query.webhook_id = Some(id);
    });
    let types = ["job.completed", "job.failed"].map(str::to_owned);
    vary(&mut all, &types, |query, event_type| {
        query.event_type = Some(event_type);
    });
    vary(
        &mut all,
        &DeliveryStatus::written().collect::<Vec<_>>(),
        |query, status| {
            query.status = Some(status);
        },
    );
    vary(&mut all, &[instant(count() / 4)], |query, instant| {
        query.created_after = Some(instant);
    });
    vary(&mut all, &[instant(count() / 3 * 2)], |query, instant| {
        query.created_before = Some(instant);
    });
    vary(&mut all, &[delivery(count() / 2)], |query, id| query.after = Some(id));
    let oldest = EventId::parse("evt_01000000000000000000000001").unwrap();
    vary(&mut all, &[oldest], |query, id| query.event_id = Some(id));
    all
}

/// Combines each of the queries with each of the values.
fn vary<T: Clone>(all: &mut Vec<DeliveryQuery>, values: &[T], set: impl Fn(&mut DeliveryQuery, T)) {
    let with = |value: &T| {
        let mut changed = all.clone();
        for query in &mut changed {
            set(query, value.clone());
        }
        changed
    };
    let changed: Vec<DeliveryQuery> = values.iter().flat_map(with).collect();
    all.extend(changed);
}
