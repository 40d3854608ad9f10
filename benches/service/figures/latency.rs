//! How long an event takes to reach its receiver when few are published.

use std::{slice::from_ref, sync::Arc, time::Duration};

use crate::{
    driver::{Pool, pace},
    limits, process,
    server::{Server, Tenant},
    stage::{Stage, publications},
    table::{Limit, Unit, quantile},
};

/// Events per second, and the names of their figures.
const RATES: [(u32, [&str; 3]); 2] = [
    (
        100,
        [
            "p50 publish → arrival, 100 events/s",
            "p99 publish → arrival, 100 events/s",
            "own CPU per 1,000 events, 100 events/s",
        ],
    ),
    (
        200,
        [
            "p50 publish → arrival, 200 events/s",
            "p99 publish → arrival, 200 events/s",
            "own CPU per 1,000 events, 200 events/s",
        ],
    ),
];

pub(super) const NAMES: [&str; 6] = [
    RATES[0].1[0],
    RATES[0].1[1],
    RATES[0].1[2],
    RATES[1].1[0],
    RATES[1].1[1],
    RATES[1].1[2],
];

pub(super) async fn measure(stage: &mut Stage<'_>, server: &Server) {
    let goals = [
        stage.engine.pick("≤ 1.2 ms", "≤ 1.5 ms"),
        stage.engine.pick("≤ 3 ms", "≤ 5 ms"),
    ];
    for (rate, names) in RATES {
        if stage.wants(&names) {
            latency(stage, server, rate, names, goals).await;
        }
    }
}

async fn latency(stage: &mut Stage<'_>, server: &Server, rate: u32, names: [&str; 3], goals: [&str; 2]) {
    let tenant = stage.tenant(server, 1).await;
    // The first events of an idle service open its connections.
    flow(stage, server, from_ref(&tenant), rate, u64::from(rate)).await;
    let (mut samples, mut limits) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for run in stage.runs() {
        let events = events(stage, rate);
        let before = process::cpu(server.pid);
        let found = flow(stage, server, from_ref(&tenant), rate, events).await;
        let cpu = process::cpu(server.pid).saturating_sub(before);
        let before = process::own_cpu();
        let bare = floor(stage, rate, events).await;
        let bare_cpu = process::own_cpu().saturating_sub(before);
        for (samples, found, cpu) in [(&mut samples, found, cpu), (&mut limits, bare, bare_cpu)] {
            samples[0].push(quantile(&found, 50));
            samples[1].push(quantile(&found, 99));
            samples[2].push(cpu.as_secs_f64() * 1000.0 / events as f64);
        }
        stage.progress(names[0], run, &Unit::Milliseconds.text(samples[0][run - 1]));
    }
    let units = [Unit::Milliseconds, Unit::Milliseconds, Unit::CpuSeconds];
    let goals = [goals[0], goals[1], ""];
    for (index, (samples, limits)) in samples.into_iter().zip(limits).enumerate() {
        let limit = Some(Limit::new("rows, then POST", limits));
        stage
            .report
            .add(names[index], units[index], samples, limit, goals[index]);
    }
}

/// Enough events for a percentile, whatever the length of other runs.
pub(super) fn events(stage: &Stage<'_>, rate: u32) -> u64 {
    u64::from(rate) * stage.run().max(Duration::from_secs(4)).as_secs()
}

/// Publishes at this rate for tenants in turn, each with the same number of webhooks; the latencies in milliseconds,
/// sorted.
pub(super) async fn flow(stage: &Stage<'_>, server: &Server, tenants: &[Tenant], rate: u32, events: u64) -> Vec<f64> {
    let round = stage.receiver.expect(events, tenants[0].webhooks.len());
    let pool = Arc::new(Pool::open(publications(server, tenants, round.first)).await);
    pace(rate, events, |number| {
        let (pool, round) = (Arc::clone(&pool), Arc::clone(&round));
        async move {
            round.sending(number);
            pool.send(number).await;
        }
    })
    .await;
    // Anything later than that would be later than any median; it counts with the time it was waited for.
    round.completed(Duration::from_secs(15)).await;
    round.latencies_ms()
}

/// The same without the service: an event's rows are committed, then its bytes are posted.
async fn floor(stage: &Stage<'_>, rate: u32, events: u64) -> Vec<f64> {
    let round = stage.receiver.expect(events, 1);
    let pool = Arc::new(Pool::open(limits::deliveries(stage.receiver, round.first)).await);
    let publisher = Arc::new(stage.bare.publisher());
    pace(rate, events, |number| {
        let (pool, round, publisher) = (Arc::clone(&pool), Arc::clone(&round), Arc::clone(&publisher));
        async move {
            round.sending(number);
            publisher().await;
            pool.send(number).await;
        }
    })
    .await;
    round.completed(Duration::from_secs(15)).await;
    round.latencies_ms()
}
