//! Requests that read and change webhooks.

use crate::{
    driver::{Load, Until, keep_busy},
    limits::Constant,
    server::{Server, Tenant},
    stage::{Stage, changes, reads},
    table::{Limit, Unit, median},
};

/// The clients' connections.
pub(super) const CONNECTIONS: usize = 32;

/// The most webhooks that an organization may have; they are changed in turn.
const WEBHOOKS: usize = 100;

const GET: &str = "GET one webhook";
const PATCH_MANY: &str = "PATCH many webhooks";
const PATCH_ONE: &str = "PATCH one webhook";

pub(super) const NAMES: [&str; 3] = [GET, PATCH_MANY, PATCH_ONE];

pub(super) async fn measure(stage: &mut Stage<'_>, server: &Server) {
    if !stage.wants(&NAMES) {
        return;
    }
    let tenant = stage.tenant(server, WEBHOOKS).await;
    if stage.wants(&[GET]) {
        get(stage, server, &tenant).await;
    }
    for (name, one, goal) in [
        (PATCH_MANY, false, stage.engine.pick("≥ 12,000/s", "≥ 7,500/s")),
        (PATCH_ONE, true, stage.engine.pick("≥ 12,000/s", "≥ 5,000/s")),
    ] {
        if stage.wants(&[name]) {
            patch(stage, server, &tenant, name, one, goal).await;
        }
    }
}

/// Requests per second over the length of a run.
pub(super) async fn rate(stage: &Stage<'_>, load: &Load) -> f64 {
    keep_busy(load, CONNECTIONS, Until::Time(stage.run())).await.rate()
}

async fn get(stage: &mut Stage<'_>, server: &Server, tenant: &Tenant) {
    let path = format!("/v1/webhooks/{}", tenant.webhooks[0]);
    let constant = Constant::start(server.get(tenant, &path).await);
    let (load, bare) = (reads(server.address, tenant), reads(constant.address, tenant));
    let (mut samples, mut limits) = (Vec::new(), Vec::new());
    for run in stage.runs() {
        samples.push(rate(stage, &load).await);
        limits.push(keep_busy(&bare, CONNECTIONS, Until::Time(stage.glance())).await.rate());
        stage.progress(GET, run, &Unit::PerSecond.text(samples[run - 1]));
    }
    let goal = stage.engine.pick("≥ 30,000/s, ≥ 45 %", "≥ 14,000/s");
    let limit = Limit::new("axum, constant", limits);
    stage.report.add(GET, Unit::PerSecond, samples, Some(limit), goal);
}

async fn patch(stage: &mut Stage<'_>, server: &Server, tenant: &Tenant, name: &str, one: bool, goal: &str) {
    let (mut samples, mut alone, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    for run in stage.runs() {
        samples.push(rate(stage, &changes(server, tenant, one)).await);
        alone.push(stage.bare.updates(one, 1, stage.glance()).await);
        if !stage.engine.is_postgres() {
            shared.push(stage.bare.updates(one, CONNECTIONS, stage.glance()).await);
        }
        stage.progress(name, run, &Unit::PerSecond.text(samples[run - 1]));
    }
    let limit = if shared.is_empty() {
        Limit::new("bare UPDATE + commit, 32 connections", alone)
    } else {
        // SQLite has one writer, and concurrent requests may share its commits: one request per commit is not a limit.
        let alone = Unit::PerSecond.text(median(&alone));
        let what = format!("bare UPDATE + commit: {alone}; {CONNECTIONS} bare UPDATEs a commit");
        Limit::new(what, shared)
    };
    stage.report.add(name, Unit::PerSecond, samples, Some(limit), goal);
}
