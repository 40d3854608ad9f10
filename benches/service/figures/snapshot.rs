//! A snapshot that somebody else holds on PostgreSQL: dead versions stay where the queue is searched.

use std::slice::from_ref;

use sea_orm::sqlx::{self, Connection as _};

use super::latency;
use crate::{
    seed,
    stage::Stage,
    table::{Limit, Unit, quantile},
};

const NAME: &str = "p50 at 150 events/s, snapshot held, 240,000 dead versions in the queue";

const RATE: u32 = 150;
const DEAD: u64 = 240_000;

pub(super) async fn measure(stage: &mut Stage<'_>) {
    let Some(pool) = stage.database.pool().cloned() else {
        return;
    };
    if !stage.wants(&[NAME]) {
        return;
    }
    let server = stage.start().await;
    let tenant = stage.tenant(&server, 1).await;
    let events = u64::from(RATE) * stage.run().as_secs().max(4);
    latency::flow(stage, &server, from_ref(&tenant), RATE, u64::from(RATE)).await;
    let mut samples = [const { Vec::new() }; 2];
    for run in stage.runs() {
        let latencies = latency::flow(stage, &server, from_ref(&tenant), RATE, events).await;
        samples[0].push(quantile(&latencies, 50));
        stage.progress(
            "p50 at 150 events/s, undisturbed",
            run,
            &Unit::Milliseconds.text(samples[0][run - 1]),
        );
    }
    let mut holder = pool.acquire().await.unwrap();
    let mut snapshot = holder
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    sqlx::raw_sql("SELECT 1").execute(&mut *snapshot).await.unwrap();
    eprintln!("{}: making {DEAD} dead versions", stage.engine.name());
    let numbers = stage.receiver.numbers(DEAD);
    seed::dead_versions(&stage.database, tenant.organization, tenant.webhooks[0], numbers).await;
    for run in stage.runs() {
        let latencies = latency::flow(stage, &server, from_ref(&tenant), RATE, events).await;
        samples[1].push(quantile(&latencies, 50));
        stage.progress(NAME, run, &Unit::Milliseconds.text(samples[1][run - 1]));
    }
    snapshot.rollback().await.unwrap();
    drop(holder);
    server.stop().await;
    stage.database.tidy().await;
    let [undisturbed, disturbed] = samples;
    let limit = Some(Limit::new("undisturbed", undisturbed));
    stage.report.add(NAME, Unit::Milliseconds, disturbed, limit, "≤ 2×");
}
