//! The figures, each in the file of what it measures.

mod backlog;
mod fairness;
mod flow;
mod growth;
mod latency;
mod requests;
mod rest;
mod snapshot;

use super::{counts, process, stage::Stage, table::Unit};

/// Measures the requested figures, the cheap and quick ones before those that fill the database.
pub(crate) async fn measure(stage: &mut Stage<'_>) {
    rest::start_and_memory(stage).await;
    loads(stage).await;
    counts::measure(stage).await;
    backlog::measure(stage).await;
    snapshot::measure(stage).await;
    growth::measure(stage).await;
    fairness::measure(stage).await;
}

/// Consecutive loads on one server, and the memory that it then holds.
async fn loads(stage: &mut Stage<'_>) {
    const AFTER: &str = "memory after all requests and events above";
    let names = [&requests::NAMES[..], &flow::NAMES[..], &latency::NAMES[..]].concat();
    if !stage.wants(&names) {
        return;
    }
    let server = stage.start().await;
    requests::measure(stage, &server).await;
    stage.database.tidy().await;
    flow::measure(stage, &server).await;
    stage.database.tidy().await;
    latency::measure(stage, &server).await;
    let memory = process::memory_mb(server.pid);
    server.stop().await;
    stage.report.add(AFTER, Unit::Megabytes, vec![memory], None, "≤ 90 MB");
}
