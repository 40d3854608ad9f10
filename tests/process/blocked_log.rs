//! A log that nobody reads: the service goes on, lines are dropped and counted, and the process still ends.

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use super::{Process, command};
use crate::support::{app::eventually, client::Ask, database::TestDatabase};

/// A server whose log is a pipe that stays open, and that nobody reads.
async fn unread(database: &TestDatabase, level: &str, fault: &str) -> Process {
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args([
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--log",
            level,
        ])
        .env("FAULT_PANIC_TASK", fault);
    Process::spawn_unread(command).await
}

async fn dropped(metrics: &str) -> f64 {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(metrics).body(Empty::new()).unwrap();
    let body = client
        .request(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("kallima_log_lines_dropped_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nothing() {
    let database = TestDatabase::create().await;
    let mut server = unread(&database, "info", "").await;
    let (metrics, _) = server.printed_metrics_and_token().await;
    assert!(dropped(&metrics).await.abs() < f64::EPSILON);
    let base = server.base.clone();
    // A request's path is in its line.
    let path = format!("/v1/{}", "x".repeat(20_000));
    eventually(|| async {
        for _ in 0..50 {
            Ask::new("GET", &base, &path).send().await.expect(404);
        }
        (dropped(&metrics).await > 10.0).then_some(())
    })
    .await;
    Ask::new("GET", &base, "/healthz").send().await.expect(200);
    Ask::new("GET", &base, "/readyz").send().await.expect(200);
    assert!(
        server.terminate().await.success(),
        "it ends by itself, although its last lines go nowhere"
    );
}

#[tokio::test]
async fn a_process_whose_log_nobody_reads_ends_when_it_must() {
    if !cfg!(debug_assertions) {
        eprintln!("a release has no faults on purpose");
        return;
    }
    let database = TestDatabase::create().await;
    let server = unread(&database, "trace", "dispatcher").await;
    assert_eq!(server.ended().await.code(), Some(1));
}
