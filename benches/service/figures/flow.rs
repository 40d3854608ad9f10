//! Events from their publication to their receivers, as many as the service can handle.

use std::{slice::from_ref, time::Duration};

use super::requests::CONNECTIONS;
use crate::{
    bare::Written,
    driver::{Until, keep_busy},
    limits, process,
    server::{Server, Tenant},
    stage::{Stage, publications},
    table::{Limit, Unit, median},
};

/// Connections of the goals that require many.
const MANY_CONNECTIONS: usize = 256;

/// How many webhooks each event of the fan-out is owed to.
const FAN: usize = 20;

const FEW: &str = "publish → delivered, 1 webhook, 32 connections";
const MANY: &str = "publish → delivered, 1 webhook, 256 connections";
const FAN_OUT: &str = "fan-out ×20, deliveries, 32 connections";
const OWN_CPU: &str = "own CPU per 1,000 publish-and-deliver, saturated";
const THEIR_CPU: &str = "PostgreSQL's CPU per 1,000 publish-and-deliver, saturated";

pub(super) const NAMES: [&str; 5] = [FEW, MANY, FAN_OUT, OWN_CPU, THEIR_CPU];

pub(super) async fn measure(stage: &mut Stage<'_>, server: &Server) {
    let goals = [
        stage.engine.pick("≥ 11,000/s", "≥ 5,000/s"),
        stage.engine.pick("≥ 13,000/s", "≥ 7,500/s"),
        stage.engine.pick("≥ 22,000/s", "≥ 16,000/s"),
    ];
    if stage.wants(&[FEW, OWN_CPU, THEIR_CPU]) {
        flow(stage, server, FEW, 1, CONNECTIONS, goals[0]).await;
    }
    if stage.wants(&[MANY]) {
        flow(stage, server, MANY, 1, MANY_CONNECTIONS, goals[1]).await;
    }
    if stage.wants(&[FAN_OUT]) {
        flow(stage, server, FAN_OUT, FAN, CONNECTIONS, goals[2]).await;
    }
}

/// CPU time of a run, per 1,000 events.
struct Spent {
    own: f64,
    theirs: Option<f64>,
}

async fn flow(stage: &mut Stage<'_>, server: &Server, name: &str, webhooks: usize, connections: usize, goal: &str) {
    let tenant = stage.tenant(server, webhooks).await;
    let events = enough(stage, server, &tenant, connections).await;
    let (mut samples, mut spent) = (Vec::new(), Vec::new());
    let (mut posts, mut rows, mut limit_spent) = (Vec::new(), Vec::new(), Vec::new());
    for run in stage.runs() {
        let before = clocks(stage, server.pid);
        samples.push(publish(stage, server, &tenant, connections, events).await);
        // What is recorded after the last arrival belongs to the run.
        tokio::time::sleep(Duration::from_millis(300)).await;
        spent.push(per_thousand(stage, server.pid, before, events));
        let (rate, written, cpu) = limit(stage, webhooks, connections).await;
        posts.push(rate);
        rows.push(written.deliveries as f64 / written.elapsed.as_secs_f64());
        limit_spent.push(cpu);
        stage.progress(name, run, &Unit::PerSecond.text(samples[run - 1]));
    }
    let limit = tighter(posts, rows);
    stage.report.add(name, Unit::PerSecond, samples, Some(limit), goal);
    if name == FEW {
        report_cpu(stage, &spent, &limit_spent);
    }
}

/// Deliveries per second, from the first request to the last arrival.
pub(super) async fn publish(
    stage: &Stage<'_>,
    server: &Server,
    tenant: &Tenant,
    connections: usize,
    events: u64,
) -> f64 {
    let round = stage.receiver.expect(events, tenant.webhooks.len());
    let load = publications(server, from_ref(tenant), round.first);
    let work = keep_busy(&load, connections, Until::Count(events)).await;
    let elapsed = round.elapsed_since(work.started).await;
    (events * tenant.webhooks.len() as u64) as f64 / elapsed.as_secs_f64()
}

/// How many events make a run of the requested length.
pub(super) async fn enough(stage: &Stage<'_>, server: &Server, tenant: &Tenant, connections: usize) -> u64 {
    let webhooks = tenant.webhooks.len() as u64;
    let mut events = (connections as u64 * 8).max(2_000 / webhooks);
    // The first attempt warms up: connections are opened, statements prepared, caches filled.
    for _ in 0..2 {
        let rate = publish(stage, server, tenant, connections, events).await;
        let wanted = rate * stage.run().as_secs_f64() / webhooks as f64;
        // Bounded, whatever disturbed the first attempt.
        events = (100..=200_000 / webhooks)
            .rev()
            .find(|events| *events as f64 <= wanted)
            .unwrap_or(100);
    }
    events
}

fn clocks(stage: &Stage<'_>, pid: u32) -> [Option<Duration>; 2] {
    [Some(process::cpu(pid)), stage.postmaster.and_then(process::family_cpu)]
}

fn per_thousand(stage: &Stage<'_>, pid: u32, before: [Option<Duration>; 2], events: u64) -> Spent {
    let after = clocks(stage, pid);
    let [own, theirs] = [0, 1].map(|clock| {
        let time = after[clock]?.saturating_sub(before[clock]?);
        Some(time.as_secs_f64() * 1000.0 / events as f64)
    });
    Spent {
        own: own.unwrap_or_default(),
        theirs,
    }
}

/// The same bytes posted without a database, and the same rows written without the service: both rates, and the CPU
/// time of both together.
async fn limit(stage: &Stage<'_>, webhooks: usize, connections: usize) -> (f64, Written, Spent) {
    let (time, us) = (stage.glance(), std::process::id());
    let before = clocks(stage, us);
    let written = stage.bare.rows(webhooks, connections, time).await;
    let mut spent = per_thousand(stage, us, before, written.events);
    let before = process::own_cpu();
    let posts = limits::posts(stage.receiver, connections, time).await;
    let cpu = process::own_cpu().saturating_sub(before).as_secs_f64();
    spent.own += cpu * 1000.0 / (posts * time.as_secs_f64());
    (posts, written, spent)
}

/// The lower of two limits, which also names the other one.
pub(super) fn tighter(posts: Vec<f64>, rows: Vec<f64>) -> Limit {
    let [post, row] = [median(&posts), median(&rows)];
    let text = |rate| Unit::PerSecond.text(rate);
    if row <= post {
        Limit::new(format!("POSTs alone: {}; rows alone", text(post)), rows)
    } else {
        Limit::new(format!("rows alone: {}; POSTs alone", text(row)), posts)
    }
}

fn report_cpu(stage: &mut Stage<'_>, spent: &[Spent], limit: &[Spent]) {
    let own = |spent: &[Spent]| spent.iter().map(|spent| spent.own).collect();
    let theirs = |spent: &[Spent]| spent.iter().filter_map(|spent| spent.theirs).collect::<Vec<_>>();
    let what = "rows, client and receiver";
    stage.report.add(
        OWN_CPU,
        Unit::CpuSeconds,
        own(spent),
        Some(Limit::new(what, own(limit))),
        "≤ 0.11 s",
    );
    let (theirs, limits) = (theirs(spent), theirs(limit));
    if !theirs.is_empty() {
        let limit = Some(Limit::new("rows alone", limits));
        stage.report.add(THEIR_CPU, Unit::CpuSeconds, theirs, limit, "");
    }
}
