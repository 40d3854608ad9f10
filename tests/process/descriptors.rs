//! File descriptors: connections take none that the engine needs, and a server with too few says so.

use std::{path::Path, process::Stdio, time::Duration};

use rlimit::Resource;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};
use uuid::Uuid;

use super::{Process, command};
use crate::support::{Receiver, app::eventually, client::Ask, database::TestDatabase};

/// A server's command that first sets the limit of open files, by `ulimit` with these arguments.
fn limited(database: &TestDatabase, folder: &Path, ulimit: &str) -> Command {
    let plain = command(&database.options.url, folder);
    let plain = plain.as_std();
    let mut command = Command::new("sh");
    command
        .current_dir(folder)
        .args(["-c", &format!("ulimit {ulimit}; exec \"$0\" \"$@\"")])
        .arg(plain.get_program())
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .kill_on_drop(true);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// How many files a process has open.
fn open_files(process: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let database = TestDatabase::create().await;
    let server = Process::spawn(limited(&database, &std::env::temp_dir(), "-Sn 256")).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], "256");
}

#[tokio::test]
async fn a_hard_limit_that_leaves_no_connections_is_refused_in_one_line() {
    let database = TestDatabase::create().await;
    let mut command = limited(&database, &std::env::temp_dir(), "-n 256");
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let line = complaint.lines().last().unwrap();
    assert!(line.starts_with("error: the limit of open files is 256"), "{complaint}");
    assert!(
        line.contains("--attempts-max") && line.contains("LimitNOFILE"),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_thousand_idle_clients_leave_enough_for_deliveries() {
    let database = TestDatabase::create().await;
    let mut command = limited(&database, &std::env::temp_dir(), "-n 1024");
    command.args(["--connections-per-peer-max", "0", "--no-examples"]);
    let mut server = Process::spawn(command).await;
    server.log.expect("leaves fewer connections than --connections-max");
    let token = server.printed_token().await;
    let receiver = Receiver::start([]).await;
    let ask = |method: &str, path: &str| Ask::new(method, &server.base, path).token(&token);
    let webhook = json!({ "url": receiver.url });
    ask("POST", "/v1/webhooks").json(&webhook).send().await.expect(201);
    let address = server.base.trim_start_matches("http://");
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    for number in 1..=20 {
        let event = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
        let response = ask("POST", "/v1/events").json(&event).send().await;
        response.expect(202);
        receiver.wait_for(number).await;
    }
    let deliveries = eventually(|| async {
        let deliveries: Value = ask("GET", "/v1/webhook_deliveries").send().await.expect(200);
        let pending = |delivery: &Value| delivery["status"] == "pending";
        (!deliveries.as_array().unwrap().iter().any(pending)).then_some(deliveries)
    })
    .await;
    for delivery in deliveries.as_array().unwrap() {
        assert_eq!(
            (&delivery["status"], &delivery["attempt_count"]),
            (&json!("delivered"), &json!(1)),
            "{delivery}"
        );
    }
    drop(idle);
}

#[tokio::test]
async fn where_none_are_left_accepting_pauses_and_says_so_once() {
    let database = TestDatabase::create().await;
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command.args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    let mut server = Process::spawn(command).await;
    server.log.expect("accepting connections failed");
    let process = server.id();
    let limit = |files: u64| {
        let process = i32::try_from(process).unwrap();
        let (_, hard) = Resource::NOFILE.get().unwrap();
        rlimit::prlimit(process, Resource::NOFILE, Some((files, hard)), None).unwrap();
    };
    let address = server.base.trim_start_matches("http://").to_owned();
    limit(open_files(process));
    let mut waiting = TcpStream::connect(&address).await.unwrap();
    waiting
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    server.log.wait_for("accepting connections failed").await;
    // Time for a dozen more.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    limit(4096);
    let mut response = [0; 12];
    let answered = tokio::time::timeout(Duration::from_mins(1), waiting.read_exact(&mut response));
    answered.await.expect("it is answered once there are some").unwrap();
    assert_eq!(&response, b"HTTP/1.1 200");
    server.signal("TERM").await;
    let (status, log) = server.ended_with_log().await;
    assert!(status.success());
    assert_eq!(log.matches("accepting connections failed").count(), 1, "{log}");
}
