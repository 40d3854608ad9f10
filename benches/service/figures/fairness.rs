//! What one organization costs the others: how long their deliveries take while it floods the service.

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
    let mut samples = [const { Vec::new() }; 2];
    for run in stage.runs() {
        samples[0].push(flow(stage, &server, &tenants).await);
        let seen = Unit::Milliseconds.text(samples[0][run - 1]);
        stage.progress("p99 publish → arrival, undisturbed", run, &seen);
    }
    let flooding = Flooding::start(flood, server.address, &source).await;
    for run in stage.runs() {
        samples[1].push(flow(stage, &server, &tenants).await);
        stage.progress(name(flood), run, &Unit::Milliseconds.text(samples[1][run - 1]));
    }
    drop(flooding);
    // What it has left would be waited for.
    server.kill().await;
    let [undisturbed, disturbed] = samples;
    let limit = Some(Limit::new("undisturbed", undisturbed));
    stage
        .report
        .add(name(flood), Unit::Milliseconds, disturbed, limit, "≤ 2×");
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
