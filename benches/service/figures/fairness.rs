//! What one organization costs the others: how long their deliveries take while it floods the service.
//!
//! Floods that keep the service waiting are compared with the same flow without them. Floods that keep every core busy
//! are compared with the same flow next to two busy loops: waiting for a core is due to the machine, not the service.
//! What the loops cost is a figure of its own.

use super::latency;
use crate::{
    database::Database,
    flood::{Flood, Flooding},
    server::{Server, Tenant},
    stage::Stage,
    table::{Limit, Unit, quantile},
};

/// The organizations that should notice nothing, and how many webhooks each has.
const ORGANIZATIONS: usize = 10;
const WEBHOOKS: usize = 7;

/// Events per second of all of them together.
const RATE: u32 = 40;

fn name(flood: Flood) -> &'static str {
    match flood {
        Flood::Tests => "p99 publish → arrival beside 64 slow tests at a time of another organization",
        Flood::Publications => "p99 publish → arrival beside 600 publications at a time of another organization",
        Flood::Requests => "p99 publish → arrival beside 512 requests at a time of another organization",
        Flood::SlowWebhooks => "p99 publish → arrival beside 60 slow webhooks of another organization",
        Flood::Backlog => "p99 publish → arrival next to a webhook that hangs and one that is 50,000 behind",
    }
}

const BUSY: &str = "p99 publish → arrival beside two loops that keep the cores busy";

/// Whether a flood takes all available CPU time.
fn is_busy(flood: Flood) -> bool {
    match flood {
        Flood::Publications | Flood::Requests => true,
        Flood::Tests | Flood::SlowWebhooks | Flood::Backlog => false,
    }
}

pub(super) async fn measure(stage: &mut Stage<'_>) {
    for flood in Flood::ALL {
        if stage.wants(&[name(flood)]) {
            beside(stage, flood).await;
        }
    }
}

async fn beside(stage: &mut Stage<'_>, flood: Flood) {
    // A separate database: what a flood leaves behind is in nobody's way.
    let database = Database::create(stage.engine.clone()).await;
    let server = Server::start_open(&stage.settings.binary, &database).await;
    let urls: Vec<String> = (0..WEBHOOKS).map(|webhook| stage.receiver.url(webhook)).collect();
    let mut tenants = Vec::new();
    for _ in 0..ORGANIZATIONS {
        tenants.push(server.tenant(&stage.settings.binary, &database, &urls).await);
    }
    let source = server.tenant(&stage.settings.binary, &database, &[]).await;
    flow(stage, &server, &tenants).await;
    let undisturbed = flows(stage, &server, &tenants, "p99 publish → arrival, undisturbed").await;
    let mut limit = Limit::new("undisturbed", undisturbed);
    if is_busy(flood) {
        let burning = Flooding::burn();
        let busy = flows(stage, &server, &tenants, BUSY).await;
        drop(burning);
        stage
            .report
            .add(BUSY, Unit::Milliseconds, busy.clone(), Some(limit), "");
        limit = Limit::new("beside two busy loops", busy);
    }
    let flooding = Flooding::start(flood, server.address, &source).await;
    let disturbed = flows(stage, &server, &tenants, name(flood)).await;
    drop(flooding);
    // A graceful stop would wait for what the flood left behind.
    server.kill().await;
    stage
        .report
        .add(name(flood), Unit::Milliseconds, disturbed, Some(limit), "≤ 2×");
}

async fn flows(stage: &Stage<'_>, server: &Server, tenants: &[Tenant], figure: &str) -> Vec<f64> {
    let mut samples = Vec::new();
    for run in stage.runs() {
        samples.push(flow(stage, server, tenants).await);
        stage.progress(figure, run, &Unit::Milliseconds.text(samples[run - 1]));
    }
    samples
}

/// The 99th percentile of their latencies in milliseconds.
async fn flow(stage: &Stage<'_>, server: &Server, tenants: &[Tenant]) -> f64 {
    let latencies = latency::flow(stage, server, tenants, RATE, latency::events(stage, RATE)).await;
    quantile(&latencies, 99)
}
