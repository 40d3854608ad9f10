//! Background tasks: a server that loses one exits, so that its supervisor can restart it.

use super::{Process, command};
use crate::support::{
    App,
    database::{TestDatabase, is_on_postgres},
};

/// Every task that a server with all its parts has on either engine.
const TASKS: [&str; 10] = [
    "api listener",
    "deletion",
    "dispatcher",
    "heartbeat",
    "idempotency keys",
    "leases",
    "master keys",
    "metrics listener",
    "retention",
    "summary",
];

/// Every task that a server with all its parts has.
fn tasks(is_postgres: bool) -> Vec<&'static str> {
    let of_store: &[&str] = if is_postgres {
        &[
            "change batches",
            "finish batches",
            "postgres primary",
            "publish batches",
        ]
    } else {
        &["sqlite writer"]
    };
    let mut tasks = [&TASKS[..], of_store].concat();
    tasks.sort_unstable();
    tasks
}

#[tokio::test]
async fn every_task_of_the_server_is_supervised() {
    let app = App::builder()
        .arguments(&["--dev", "--metrics-listen", "127.0.0.1:0"])
        .start()
        .await;
    assert_eq!(app.tasks(), tasks(app.database.is_postgres()));
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_with_a_line_that_names_it() {
    if !cfg!(debug_assertions) {
        eprintln!("a release has no faults on purpose");
        return;
    }
    for task in tasks(is_on_postgres()) {
        let database = TestDatabase::create().await;
        let mut command = command(&database.options.url, &std::env::temp_dir());
        command
            .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .env("FAULT_PANIC_TASK", task);
        let mut server = Process::spawn(command).await;
        let expected = format!("error: background task {task} panicked");
        server.log.expect(&expected);
        server.log.expect("a fault on purpose");
        // Other tasks may notice its end before the process has ended.
        server.log.allow("the writer has stopped");
        let (status, lines) = server.ended_with_log().await;
        assert_eq!(status.code(), Some(1), "{task}");
        // What other tasks log about its end may still follow.
        let last = lines.lines().rfind(|line| !line.contains("the writer has stopped"));
        assert_eq!(last, Some(expected.as_str()), "{lines}");
    }
}
