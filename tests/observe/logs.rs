//! The log of the real binary: each line says which request or which attempt it is of, and none holds a secret.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use uuid::Uuid;

use crate::{
    process::{Process, command},
    support::{Receiver, app::eventually, client::Ask, database::TestDatabase, receiver::Reply},
};

/// What a server wrote to its log, and what must not be in it.
struct Told {
    log: String,
    hidden: Vec<String>,
}

/// Serves, is asked all sorts of things, and is told to stop.
async fn session(arguments: &[&str]) -> Told {
    let database = TestDatabase::create().await;
    let receiver = Receiver::start([Reply::status(500), Reply::status(200)]).await;
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .args(arguments)
        .env_remove("KALLIMA_LOG");
    let mut server = Process::spawn(command).await;
    let token = server.printed_token().await;
    let base = server.base.clone();
    let ask = |method: &str, path: &str| Ask::new(method, &base, path).token(&token);
    let url = format!("{}?key=of-the-receiver", receiver.url);
    let webhook = ask("POST", "/v1/webhooks")
        .json(&json!({ "url": url }))
        .send()
        .await
        .expect(201);
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    ask("POST", &format!("{path}/test")).send().await.expect(200);
    let rotated = ask("PATCH", &format!("{path}?rotate_secret=true"))
        .send()
        .await
        .expect(200);
    let stranger = token.replace("ab_", "ab_x")[..51].to_owned();
    ask("GET", "/v1/webhooks").token(&stranger).send().await.expect(401);
    let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
    ask("POST", "/v1/events").json(&body).send().await.expect(202);
    let delivered = || async {
        let found = ask("GET", "/v1/webhook_deliveries?status=delivered").send().await;
        (found.expect(200) != json!([])).then_some(())
    };
    eventually(delivered).await;
    server.signal("TERM").await;
    let (status, log) = server.ended_with_log().await;
    assert!(status.success());
    let secret = |webhook: &Value| webhook["secret"].as_str().unwrap().replace("whsec_", "");
    Told {
        log,
        hidden: vec![
            secret(&webhook),
            secret(&rotated),
            token.replace("ab_", ""),
            stranger.replace("ab_", ""),
            "of-the-receiver".to_owned(),
        ],
    }
}

fn is_uuid(value: &Value) -> bool {
    value.as_str().is_some_and(|text| Uuid::try_parse(text).is_ok())
}

#[tokio::test]
async fn every_line_is_json_and_says_whose_it_is() {
    let Told { log, hidden } = session(&["--log-format", "json"]).await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|cause| panic!("{cause}: {line}")))
        .collect();
    for line in &lines {
        for name in ["timestamp", "level", "target", "message"] {
            assert!(line[name].is_string(), "no {name} in {line}");
        }
    }
    let with = |message: &str| {
        lines
            .iter()
            .filter(|line| line["message"] == message)
            .collect::<Vec<_>>()
    };
    let answered = with("answered");
    assert!(answered.len() >= 6, "{log}");
    for line in &answered {
        assert!(line["request_id"].as_str().unwrap().starts_with("req_"), "{line}");
        assert_ne!(line["operation"], "other", "{line}");
        assert_eq!(is_uuid(&line["organization"]), line["status"] != 401, "{line}");
    }
    let attempts = with("attempt finished");
    assert_eq!(attempts.len(), 2, "{log}");
    for line in &attempts {
        for name in ["organization", "webhook", "delivery"] {
            assert!(is_uuid(&line[name]), "no {name} in {line}");
        }
        assert_eq!(line["attempt"], 1, "{line}");
    }
    let failed = attempts.iter().find(|line| line["trigger"] == "test").unwrap();
    assert_eq!(
        (&failed["error"], &failed["status"]),
        (&json!("response_status"), &json!("failed"))
    );
    for secret in hidden {
        assert!(!log.contains(&secret), "{secret} is in the log\n{log}");
    }
}

#[tokio::test]
async fn the_most_talkative_log_holds_no_secret() {
    for format in ["human", "json"] {
        let Told { log, hidden } = session(&["--log-format", format, "--log", "trace"]).await;
        assert!(log.contains("TRACE"), "{log}");
        for secret in hidden {
            let found = log.lines().find(|line| line.contains(&secret));
            assert!(found.is_none(), "{secret} is in the log: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_so_in_the_format_that_is_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = TestDatabase::create().await;
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args(["--listen", &address, "--log-format", "json"])
        .stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    let line: Value = serde_json::from_str(&last).unwrap();
    assert!(
        line["message"].as_str().unwrap().starts_with("cannot listen on"),
        "{line}"
    );
    assert!(!server.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_refused() {
    let mut command = command("sqlite://unused.db", &std::env::temp_dir());
    let output = command.env("KALLIMA_LOG", "kallima=loud").output().await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.starts_with("error: ") && complaint.contains("--log"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}
