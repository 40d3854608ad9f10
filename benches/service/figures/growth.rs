//! The same requests and events before and after the database has grown.

use super::{flow, requests};
use crate::{
    seed,
    server::{Server, Tenant},
    stage::{Stage, changes, reads},
    table::{Limit, Unit, grouped},
};

const WHAT: [&str; 3] = [
    "GET one webhook",
    "PATCH one webhook",
    "publish → delivered, 32 connections",
];

pub(super) async fn measure(stage: &mut Stage<'_>) {
    let stored = stage.settings.growth;
    let count = grouped(stored as f64);
    let names = WHAT.map(|what| format!("growth: {what}, {count} deliveries stored"));
    if !stage.wants(&names.each_ref().map(String::as_str)) {
        return;
    }
    let server = stage.start().await;
    let tenant = stage.tenant(&server, 1).await;
    let events = flow::enough(stage, &server, &tenant, requests::CONNECTIONS).await;
    let before = sample(stage, &server, &tenant, events, "growth, before").await;
    server.stop().await;
    eprintln!("{}: storing {count} deliveries", stage.engine.name());
    let numbers = stage.receiver.numbers(stored);
    seed::history(&stage.database, tenant.organization, tenant.webhooks[0], numbers).await;
    let server = stage.start().await;
    // The first ones fill the caches.
    flow::publish(stage, &server, &tenant, requests::CONNECTIONS, 500).await;
    let after = sample(stage, &server, &tenant, events, "growth, after").await;
    server.stop().await;
    for ((name, after), before) in names.iter().zip(after).zip(before) {
        let limit = Some(Limit::new("before", before));
        stage.report.add(name, Unit::PerSecond, after, limit, "≥ 83 % (1.2×)");
    }
}

async fn sample(stage: &Stage<'_>, server: &Server, tenant: &Tenant, events: u64, when: &str) -> [Vec<f64>; 3] {
    let mut samples = [const { Vec::new() }; 3];
    for run in stage.runs() {
        let rates = [
            requests::rate(stage, &reads(server.address, tenant)).await,
            requests::rate(stage, &changes(server, tenant, true)).await,
            flow::publish(stage, server, tenant, requests::CONNECTIONS, events).await,
        ];
        let seen = rates.map(|rate| Unit::PerSecond.text(rate)).join(", ");
        stage.progress(when, run, &seen);
        for (samples, rate) in samples.iter_mut().zip(rates) {
            samples.push(rate);
        }
    }
    samples
}
