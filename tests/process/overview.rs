//! What an operator asks of all organizations: `top`, `webhooks list`, `deliveries list`, `organization usage`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Process, command, finish, run};
use crate::support::{App, Receiver, Reply, app::eventually, database::TestDatabase, receiver::Gate};

async fn json_of(database: &TestDatabase, arguments: &[&str]) -> Value {
    let (done, printed, complaint) = run(database, &[arguments, &["--json"]].concat()).await;
    assert!(done, "{complaint}");
    serde_json::from_str(&printed).unwrap()
}

async fn table_of(database: &TestDatabase, arguments: &[&str]) -> Vec<String> {
    let (done, printed, complaint) = run(database, arguments).await;
    assert!(done, "{complaint}");
    printed.lines().map(str::to_owned).collect()
}

/// A webhook that fails with three deliveries, and one that is healthy.
async fn trouble() -> (App, String, String) {
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "3600"])
        .start()
        .await;
    let failing = Receiver::start(vec![Reply::status(500); 3]).await;
    let well = Receiver::start([]).await;
    let bad = app.webhook(&failing.url).await["id"].as_str().unwrap().to_owned();
    let good = json!({ "url": well.url, "events": ["job.failed"] });
    let good = app.post("/v1/webhooks", &good).await.expect(201)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for _ in 0..3 {
        let event = app.publish().await;
        app.after_attempt(&event, 1).await;
    }
    (app, bad, good)
}

#[tokio::test]
async fn what_fails_is_at_the_top() {
    let (app, bad, _) = trouble().await;
    let database = app.stop().await;
    let top = json_of(&database, &["top"]).await;
    let row = &top["webhooks"][0];
    assert_eq!(row["webhook_id"], *bad, "{top}");
    assert_eq!(
        (&row["consecutive_failures"], &row["last_response_status"]),
        (&json!(3), &json!(500))
    );
    assert_eq!(
        (&row["last_error"], &row["deliveries_last_minute"]),
        (&json!("response_status"), &json!(3))
    );
    assert_eq!((&row["due"], &row["in_flight"]), (&json!(0), &json!(0)));
    assert_eq!(top["organizations"][0]["failing_webhooks"], 1, "{top}");
    assert_eq!(
        top["webhooks"].as_array().unwrap().len(),
        1,
        "the other one is healthy and idle"
    );
    let lines = table_of(&database, &["top"]).await;
    assert!(lines.iter().any(|line| line.starts_with("WEBHOOK  ")), "{lines:?}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with(&bad) && line.contains("failing") && line.contains("500")),
        "{lines:?}"
    );
    assert!(
        lines.iter().all(|line| !line.contains('\u{1b}')),
        "it is no terminal: {lines:?}"
    );
}

#[tokio::test]
async fn lists_show_what_is_asked_for_page_by_page() {
    let (app, bad, good) = trouble().await;
    let organization = app.organization.to_string();
    let database = app.stop().await;
    let failing = json_of(&database, &["webhooks", "list", "--failing"]).await;
    assert_eq!(failing["webhooks"].as_array().unwrap().len(), 1, "{failing}");
    assert_eq!(
        (&failing["webhooks"][0]["id"], &failing["webhooks"][0]["state"]),
        (&json!(bad), &json!("failing"))
    );
    let all = table_of(&database, &["webhooks", "list", "--organization", &organization]).await;
    assert!(all[0].starts_with("ORGANIZATION ") && all.len() == 3, "{all:?}");
    assert!(
        all.iter().any(|line| line.contains(&good) && line.contains(" ok ")),
        "{all:?}"
    );
    let first = json_of(&database, &["webhooks", "list", "--limit", "1"]).await;
    let after = first["after"].as_str().unwrap();
    let rest = json_of(&database, &["webhooks", "list", "--after", after]).await;
    assert_eq!(rest["webhooks"].as_array().unwrap().len(), 1, "{rest}");
    assert_ne!(first["webhooks"][0], rest["webhooks"][0]);

    let list = ["deliveries", "list", "--organization", &organization];
    let pending = json_of(
        &database,
        &[&list[..], &["--status", "pending", "--limit", "2"]].concat(),
    )
    .await;
    assert_eq!(pending["deliveries"].as_array().unwrap().len(), 2);
    let after = pending["after"].as_str().unwrap();
    let rest = json_of(&database, &[&list[..], &["--after", after]].concat()).await;
    assert_eq!(rest["deliveries"].as_array().unwrap().len(), 1, "{rest}");
    let lines = table_of(&database, &list).await;
    assert!(
        lines[0].starts_with("CREATED ") && lines.len() == 4 && lines[1].contains("500"),
        "{lines:?}"
    );
    let none = table_of(&database, &[&list[..], &["--webhook", &good]].concat()).await;
    assert_eq!(none.len(), 1, "the header alone: {none:?}");

    let usage = json_of(&database, &["organization", "usage", &organization]).await;
    let expected = json!({ "webhooks": 2, "events_last_day": 3, "deliveries_pending": 3, "writes_this_month": 0 });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(usage[0][name], *value, "{usage}");
    }
    let lines = table_of(&database, &["organization", "usage"]).await;
    assert!(
        lines[0].starts_with("ORGANIZATION ") && lines[1].starts_with(&organization),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_is_due_and_in_flight_is_counted() {
    let app = App::builder().patient().arguments(&["--dev"]).start().await;
    let gate = Gate::new();
    let receiver = Receiver::start(vec![Reply::status(200).held_by(&gate); 12]).await;
    app.webhook(&receiver.url).await;
    for _ in 0..12 {
        app.publish().await;
    }
    receiver.wait_for(10).await;
    let top = json_of(&app.database, &["top"]).await;
    let row = &top["webhooks"][0];
    let (due, in_flight) = (row["due"].as_i64().unwrap(), row["in_flight"].as_i64().unwrap());
    assert!(in_flight >= 10 && due + in_flight == 12, "{row}");
    assert_eq!(row["oldest_due_at"].is_string(), due > 0, "{row}");
    assert_eq!(top["organizations"][0]["in_flight"], in_flight);
    gate.open();
}

#[tokio::test]
async fn they_make_no_database_and_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = "00000000-0000-7000-8000-000000000000";
    for arguments in [
        &["top", "--once"][..],
        &["webhooks", "list"],
        &["deliveries", "list", "--organization", nobody],
        &["organization", "usage"],
    ] {
        let command = command("sqlite://none.db", folder.path());
        let (done, printed, complaint) = finish(command, arguments).await;
        assert!(
            !done && printed.is_empty() && complaint.starts_with("error: "),
            "{arguments:?}: {complaint}"
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{arguments:?}");
    }
    let database = TestDatabase::create().await;
    for arguments in [
        &["deliveries", "list", "--organization", nobody][..],
        &["organization", "usage", nobody],
    ] {
        let (done, _, complaint) = run(&database, arguments).await;
        assert!(
            !done && complaint.starts_with("error: there is no organization"),
            "{complaint}"
        );
    }
    for arguments in [
        &["webhooks", "list", "--after", "x/y"][..],
        &["deliveries", "list", "--organization", nobody, "--status", "late"],
        &["deliveries", "list", "--organization", nobody, "--event", "evt_1"],
    ] {
        let (done, _, complaint) = run(&database, arguments).await;
        assert!(!done && complaint.contains("must be"), "{complaint}");
    }
}

#[tokio::test]
async fn a_server_that_is_there_is_healthy_and_none_is_not() {
    let database = TestDatabase::create().await;
    let server = Process::start(&database.options.url, &[]).await;
    let listen = server.base.strip_prefix("http://").unwrap();
    let (done, printed, _) = run(&database, &["healthcheck", "--listen", listen]).await;
    assert!(done && printed == "/healthz answers 200\n", "{printed}");
    // Also one that listens on every address.
    let everywhere = format!("0.0.0.0:{}", listen.rsplit_once(':').unwrap().1);
    let ready = || async {
        run(&database, &["healthcheck", "--ready", "--listen", &everywhere])
            .await
            .0
            .then_some(())
    };
    eventually(ready).await;
    let (done, _, complaint) = run(&database, &["healthcheck", "--listen", "127.0.0.1:1"]).await;
    assert!(!done && complaint.contains("/healthz at 127.0.0.1:1"), "{complaint}");
}

#[tokio::test]
async fn an_open_breaker_hides_no_error() {
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "3600"])
        .manual_clock()
        .start()
        .await;
    let failing = Receiver::start(vec![Reply::status(503); 10]).await;
    app.webhook(&failing.url).await;
    for _ in 0..10 {
        let event = app.publish().await;
        app.after_attempt(&event, 1).await;
    }
    // More deliveries, none of which is attempted, than are looked at.
    app.clock.advance(Duration::from_secs(2));
    for _ in 0..25 {
        app.publish().await;
    }
    let database = app.stop().await;
    let top = json_of(&database, &["top"]).await;
    assert_eq!(top["webhooks"][0]["last_response_status"], 503, "{top}");
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_fault() {
    let database = App::dev().await.stop().await;
    for arguments in [&["organization", "list"][..], &["top", "--json"], &["doctor"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(&database.options.url, &std::env::temp_dir());
        let output = command.args(arguments).stdout(writer).output().await.unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!complaint.contains("panicked"), "{arguments:?}: {complaint}");
        assert!(
            output.status.success() || arguments[0] == "doctor",
            "{arguments:?}: {complaint}"
        );
    }
}
