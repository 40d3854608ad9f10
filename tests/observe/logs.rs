//! The log of the real binary: each line names its request or its attempt, and none contains a secret.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use uuid::Uuid;

use crate::{
    process::{Process, command},
    support::{Receiver, app::eventually, client::Ask, database::TestDatabase, receiver::Reply},
};

/// The trace that the event is published in.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What a server wrote to its log, and what must not be in it.
struct Session {
    log: String,
    hidden: Vec<String>,
}

/// Serves all sorts of requests, and is stopped.
async fn session(arguments: &[&str]) -> Session {
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
    ask("POST", "/v1/events")
        .header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .json(&body)
        .send()
        .await
        .expect(202);
    let delivered = || async {
        let found = ask("GET", "/v1/webhook_deliveries?status=delivered").send().await;
        (found.expect(200) != json!([])).then_some(())
    };
    eventually(delivered).await;
    server.signal("TERM").await;
    let (status, log) = server.ended_with_log().await;
    assert!(status.success());
    let secret = |webhook: &Value| webhook["secret"].as_str().unwrap().replace("whsec_", "");
    Session {
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

/// The lines of a node's life come in their order.
fn check_life(lines: &[Value]) {
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let of_life = [
        "starting",
        "migrations were applied",
        "ready",
        "stopping; a second signal ends it at once",
        "stopped",
    ];
    let occasional: Vec<_> = messages
        .iter()
        .filter(|message| of_life.contains(message))
        .copied()
        .collect();
    let expected: Vec<_> = of_life
        .into_iter()
        .filter(|message| *message != "migrations were applied" || occasional.contains(message))
        .collect();
    assert_eq!(occasional, expected, "{lines:?}");
}

#[tokio::test]
async fn every_line_is_json_and_says_whose_it_is() {
    let Session { log, hidden } = session(&["--log-format", "json", "--log-attempts", "each"]).await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|cause| panic!("{cause}: {line}")))
        .collect();
    for (line, text) in lines.iter().zip(log.lines()) {
        for name in line.as_object().unwrap().keys() {
            assert_eq!(
                text.matches(&format!("\"{name}\":")).count(),
                1,
                "{name} is there twice: {text}"
            );
        }
        for name in ["timestamp", "level", "target", "message", "service.instance.id"] {
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
        assert!(
            line["kallima.request.id"].as_str().unwrap().starts_with("req_"),
            "{line}"
        );
        assert_eq!(line["target"], "kallima_webhooks::access", "{line}");
        assert_ne!(line["kallima.operation.id"], "other", "{line}");
        assert!(line["duration_ms"].is_u64(), "a number is one: {line}");
        let status = line["http.response.status_code"].as_u64().unwrap();
        assert_eq!(is_uuid(&line["kallima.organization.id"]), status != 401, "{line}");
        assert!(line["http.route"].as_str().unwrap().starts_with("/v1/"), "{line}");
    }
    check_life(&lines);
    let attempts = with("attempt finished");
    assert_eq!(attempts.len(), 2, "{log}");
    for line in &attempts {
        for name in ["organization", "webhook", "delivery"] {
            assert!(is_uuid(&line[format!("kallima.{name}.id")]), "no {name} in {line}");
        }
        assert_eq!(line["kallima.attempt.number"], 1, "{line}");
    }
    let by = |trigger: &str| attempts.iter().find(|line| line["kallima.attempt.trigger"] == trigger);
    let failed = by("test").unwrap();
    assert_eq!(
        (
            &failed["error.type"],
            &failed["kallima.delivery.status"],
            &failed["http.response.status_code"]
        ),
        (&json!("response_status"), &json!("failed"), &json!(500))
    );
    let is_of_publication = |line: &&&Value| line["kallima.operation.id"] == "publish_event";
    let published = answered.iter().find(is_of_publication).unwrap();
    let delivered = by("automatic").unwrap();
    assert_eq!(published["kallima.event.id"], delivered["kallima.event.id"]);
    assert!(delivered["kallima.event.id"].as_str().unwrap().starts_with("evt_"));
    for line in [published, delivered] {
        assert_eq!(line["trace_id"], TRACE, "{line}");
    }
    for secret in hidden {
        assert!(!log.contains(&secret), "{secret} is in the log\n{log}");
    }
}

#[tokio::test]
async fn by_default_what_succeeds_is_counted_and_what_fails_has_its_line() {
    let Session { log, .. } = session(&["--log-format", "json"]).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |message: &'static str| lines.iter().filter(move |line| line["message"] == message);
    let attempts: Vec<_> = with("attempt finished").collect();
    assert_eq!(attempts.len(), 1, "{log}");
    assert_eq!(attempts[0]["error.type"], "response_status");
    let publishes = |line: &&Value| line["kallima.operation.id"] == "publish_event";
    assert_eq!(with("answered").filter(publishes).count(), 0, "{log}");
    assert!(with("answered").count() >= 4, "{log}");
    // A minute may have passed in between.
    let sum = |name: &str| {
        let summaries = with("events and attempts since the last summary");
        summaries
            .map(|line| line[format!("kallima.{name}")].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        [
            "events.published",
            "attempts.delivered",
            "attempts.failed",
            "deliveries.exhausted"
        ]
        .map(sum),
        [1, 1, 1, 0],
        "{log}"
    );
}

#[tokio::test]
async fn the_changes_of_a_webhooks_health_are_logged() {
    let database = TestDatabase::create().await;
    let receiver = Receiver::start(
        std::iter::repeat_with(|| Reply::status(500))
            .take(10)
            .chain([Reply::status(200), Reply::status(410)]),
    )
    .await;
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .args(["--log-format", "json"])
        .env_remove("KALLIMA_LOG");
    let mut server = Process::spawn(command).await;
    let token = server.printed_token().await;
    let base = server.base.clone();
    let ask = |method: &str, path: &str| Ask::new(method, &base, path).token(&token);
    let created = ask("POST", "/v1/webhooks")
        .json(&json!({ "url": receiver.url }))
        .send()
        .await;
    let webhook = created.expect(201)["id"].clone();
    for _ in 0..10 {
        let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
        ask("POST", "/v1/events").json(&body).send().await.expect(202);
    }
    server.log.wait_for("breaker opened").await;
    let test = format!("/v1/webhooks/{}/test", webhook.as_str().unwrap());
    for turn in ["breaker closed", "webhook disabled by the service"] {
        ask("POST", &test).send().await.expect(200);
        server.log.wait_for(turn).await;
    }
    server.signal("TERM").await;
    let (_, log) = server.ended_with_log().await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let turns: Vec<_> = lines
        .iter()
        .filter(|line| line["kallima.webhook.id"] == webhook && line["kallima.delivery.id"].is_null())
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    let opened = "breaker opened: only probes are sent to this webhook";
    assert_eq!(
        turns,
        [opened, "breaker closed", "webhook disabled by the service"],
        "{log}"
    );
    let disabled = lines.iter().find(|line| line["message"] == turns[2]).unwrap();
    assert_eq!(disabled["kallima.webhook.disabled_reason"], "gone");
}

#[tokio::test]
async fn probes_are_logged_at_debug_only() {
    let database = TestDatabase::create().await;
    for (level, expected) in [("info", 0), ("debug", 2)] {
        let server = Process::start(&database.options.url, &["--log", level, "--log-format", "json"]).await;
        for path in ["/healthz", "/readyz"] {
            Ask::new("GET", &server.base, path).send().await.expect(200);
        }
        server.signal("TERM").await;
        let (_, log) = server.ended_with_log().await;
        let answered = log
            .lines()
            .filter(|line| line.contains("kallima_webhooks::access"))
            .count();
        assert_eq!(answered, expected, "{log}");
    }
}

#[tokio::test]
async fn the_most_talkative_log_holds_no_secret() {
    for format in ["human", "json"] {
        let Session { log, hidden } = session(&["--log-format", format, "--log", "trace"]).await;
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
