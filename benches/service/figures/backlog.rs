//! A long queue of due deliveries, processed after a start.

use std::time::Instant;

use super::flow::tighter;
use crate::{limits, seed, stage::Stage, table::Unit};

const NAME: &str = "backlog of 100,000 due deliveries, 100 webhooks, from start to last arrival";

const WEBHOOKS: usize = 100;
const EVENTS: u64 = 1_000;

/// Deliveries that the limit records per commit: the most that a claim takes.
const BATCH: usize = 128;

/// Connections that the limit posts over: as many as a claim has deliveries.
const CONNECTIONS: usize = 128;

pub(super) async fn measure(stage: &mut Stage<'_>) {
    if !stage.wants(&[NAME]) {
        return;
    }
    let server = stage.start().await;
    let tenant = stage.tenant(&server, WEBHOOKS).await;
    server.stop().await;
    let (mut samples, mut posts, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for run in stage.runs() {
        let round = stage.receiver.expect(EVENTS, WEBHOOKS);
        let numbers = round.first..round.first + EVENTS;
        seed::backlog(&stage.database, tenant.organization, &tenant.webhooks, numbers).await;
        let started = Instant::now();
        let server = stage.start().await;
        let elapsed = round.elapsed_since(started).await;
        samples.push((EVENTS * WEBHOOKS as u64) as f64 / elapsed.as_secs_f64());
        server.stop().await;
        posts.push(limits::posts(stage.receiver, CONNECTIONS, stage.glance()).await);
        let written = stage.bare.rows(1, BATCH, stage.glance()).await;
        // They were published earlier, by others.
        rows.push(written.deliveries as f64 / written.recording.as_secs_f64());
        stage.progress(NAME, run, &Unit::PerSecond.text(samples[run - 1]));
    }
    let goal = stage.engine.pick("≥ 10,000/s", "≥ 6,000/s");
    let limit = Some(tighter(posts, rows));
    stage.report.add(NAME, Unit::PerSecond, samples, limit, goal);
}
