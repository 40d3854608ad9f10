//! What one organization costs the others: how long their deliveries take while it floods the service.
//!
//! Floods that keep the service waiting are held against the same without them. Those that keep every core busy are held
//! against the same beside two loops that do nothing but that: a wait for a core is the machine's to give, not the
//! service's. What the loops cost is a figure of its own.

use std::{sync::Arc, time::Duration};

use crate::{
    database::Database,
    driver::{Load, Pool, pace},
    flood::{Flood, Flooding},
    http,
    server::{Server, Tenant},
    stage::{EVENT_TYPE, Stage, data_around_number},
    table::{Limit, Unit, quantile},
};

/// Those who are to notice nothing: organizations, and webhooks of each.
const ORGANIZATIONS: usize = 10;
const WEBHOOKS: usize = 7;

/// Events of all of them together, per second.
const RATE: u32 = 40;

/// How long a run takes at least: a percentile needs enough deliveries.
const RUN_MIN: Duration = Duration::from_secs(4);

fn name(flood: Flood) -> &'static str {
    match flood {
        Flood::Tests => "p99 publish → arrival beside 64 slow tests at a time of another organization",
        Flood::Publications => "p99 publish → arrival beside 600 publications at a time of another organization",
        Flood::Requests => "p99 publish → arrival beside 512 requests at a time of another organization",
        Flood::SlowWebhooks => "p99 publish → arrival beside 60 slow webhooks of another organization",
        Flood::Backlog => "p99 publish → arrival beside a webhook that hangs and one that is 50,000 behind",
    }
}

const BUSY: &str = "p99 publish → arrival beside two loops that keep the cores busy";

/// Whether a flood takes all the CPU time there is.
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
    // A database of its own: what a flood has left is in nobody's way.
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
    // What it has left would be waited for.
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

/// Publishes for all of them in turn: the 99th percentile of their latencies in milliseconds.
async fn flow(stage: &Stage<'_>, server: &Server, tenants: &[Tenant]) -> f64 {
    let events = u64::from(RATE) * stage.run().max(RUN_MIN).as_secs();
    let round = stage.receiver.expect(events, WEBHOOKS);
    let headers: Vec<String> = tenants.iter().map(Tenant::headers).collect();
    let first = round.first;
    let load = Load {
        address: server.address,
        status: 202,
        write: Arc::new(move |number, to| {
            let (before, after) = data_around_number();
            let body = format!(
                "{{\"type\":\"{EVENT_TYPE}\",\"data\":{before}{:012x}{after}}}",
                first + number
            );
            let headers = &headers[usize::try_from(number).unwrap() % headers.len()];
            http::write(to, "POST", "/v1/events", headers, &body);
        }),
    };
    let pool = Arc::new(Pool::open(load).await);
    pace(RATE, events, |number| {
        let (pool, round) = (Arc::clone(&pool), Arc::clone(&round));
        async move {
            round.sending(number);
            pool.send(number).await;
        }
    })
    .await;
    round.completed(Duration::from_secs(15)).await;
    quantile(&round.latencies_ms(), 99)
}
