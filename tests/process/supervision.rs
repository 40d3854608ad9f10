//! Tasks in the background: a server that loses one ends, so that whoever watches it can start another.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;

use super::{Process, command};
use crate::support::{App, database::TestDatabase};

/// Every task that a server with all its parts has.
const TASKS: [&str; 9] = [
    "api listener",
    "deletion",
    "dispatcher",
    "heartbeat",
    "idempotency keys",
    "leases",
    "master keys",
    "metrics listener",
    "retention",
];

#[tokio::test]
async fn every_task_of_the_server_is_supervised() {
    let app = App::builder()
        .arguments(&["--dev", "--metrics-listen", "127.0.0.1:0"])
        .start()
        .await;
    assert_eq!(app.tasks(), TASKS);
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_with_a_line_that_names_it() {
    if !cfg!(debug_assertions) {
        eprintln!("a release has no faults on purpose");
        return;
    }
    for task in TASKS {
        let database = TestDatabase::create().await;
        let mut command = command(&database.options.url, &std::env::temp_dir());
        command
            .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .env("FAULT_PANIC_TASK", task)
            .stderr(Stdio::piped());
        let mut server = Process::spawn(command).await;
        let mut log = server.child.stderr.take().unwrap();
        let status = server.ended().await;
        assert_eq!(status.code(), Some(1), "{task}");
        let mut lines = String::new();
        log.read_to_string(&mut lines).await.unwrap();
        let expected = format!("error: background task {task} panicked");
        assert_eq!(lines.lines().last(), Some(expected.as_str()), "{lines}");
        assert!(lines.contains("a fault on purpose"), "the panic's own words: {lines}");
    }
}
