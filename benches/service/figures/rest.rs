//! An idle service: how soon it is ready, and what it uses.

use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::{
    process,
    stage::Stage,
    table::{Limit, Unit},
};

const START: &str = "start: from exec until /readyz is 200, existing database";
const MEMORY: &str = "memory idle";

pub(super) async fn start_and_memory(stage: &mut Stage<'_>) {
    // The first start creates the database, also for everything that follows.
    stage.start().await.stop().await;
    if !stage.wants(&[START, MEMORY]) {
        return;
    }
    let (mut started, mut memory, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for run in stage.runs() {
        let server = stage.start().await;
        started.push(server.started_in.as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        memory.push(process::memory_mb(server.pid));
        server.stop().await;
        let version = Instant::now();
        let output = Command::new(&stage.settings.binary).arg("--version").output().await;
        assert!(output.unwrap().status.success());
        limits.push(version.elapsed().as_secs_f64() * 1000.0);
        stage.progress(START, run, &Unit::Milliseconds.text(started[run - 1]));
    }
    let limit = Some(Limit::new("`--version`", limits));
    stage.report.add(START, Unit::Milliseconds, started, limit, "≤ 50 ms");
    stage.report.add(MEMORY, Unit::Megabytes, memory, None, "≤ 35 MB");
}
