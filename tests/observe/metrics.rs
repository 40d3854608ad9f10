//! `/metrics` counts what happened.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kallima_webhooks::{
    domain::event::{Envelope, Publication},
    metrics::PendingCounts,
    store::{Database, events, upkeep::backlog},
};
use sea_orm::{ConnectionTrait as _, IsolationLevel, TransactionTrait as _};
use serde_json::json;

use crate::{
    process::{Process, command, run},
    support::{App, Gate, Receiver, Reply, app::eventually, database::TestDatabase},
};

/// Asks the listener for metrics.
async fn ask(base: &str, path: &str) -> (StatusCode, String, String) {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("{base}{path}")).body(Empty::new()).unwrap();
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    let media = parts
        .headers
        .get("content-type")
        .map(|value| value.to_str().unwrap().to_owned());
    let body = body.collect().await.unwrap().to_bytes();
    (
        parts.status,
        media.unwrap_or_default(),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

/// All the metrics of the server. What the database counts is left out where that takes it more than two seconds, as it
/// may on a machine that has other work; then they are asked for again.
pub(super) async fn scrape(app: &App) -> String {
    eventually(|| async { Some(scrape_once(app).await).filter(|text| value(text, "kallima_database_up") == Some(1.0)) })
        .await
}

/// All the metrics of the server, whatever the database does.
async fn scrape_once(app: &App) -> String {
    let (status, media, text) = ask(app.metrics.as_ref().unwrap(), "/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(media, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

/// The value of a series, by its whole name; `None` if there is no such series.
#[track_caller]
fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    lines.next().map(|value| value.parse().unwrap())
}

pub(super) async fn measured() -> App {
    let arguments = ["--dev", "--metrics-listen", "127.0.0.1:0"];
    App::builder().arguments(&arguments).start().await
}

#[tokio::test]
async fn requests_attempts_and_batches_are_counted() {
    let app = measured().await;
    let receiver = Receiver::start([Reply::status(500), Reply::status(200)]).await;
    let webhook = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    app.ask("POST", &path).send().await.expect(200);
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    app.get("/v1/no-such-route").await.expect(404);
    app.get("/v1/webhooks/nonsense").await.expect(422);
    let text = scrape(&app).await;
    for (series, expected) in [
        (
            r#"kallima_requests_total{operation="create_webhook",status="201"}"#,
            1.0,
        ),
        (r#"kallima_requests_total{operation="publish_event",status="202"}"#, 1.0),
        (r#"kallima_requests_total{operation="get_webhook",status="422"}"#, 1.0),
        (r#"kallima_requests_total{operation="other",status="404"}"#, 1.0),
        (
            r#"kallima_request_duration_seconds_count{operation="publish_event"}"#,
            1.0,
        ),
        (
            r#"kallima_attempts_total{trigger="test",outcome="response_status"}"#,
            1.0,
        ),
        (
            r#"kallima_attempts_total{trigger="automatic",outcome="delivered"}"#,
            1.0,
        ),
        (r#"kallima_attempts_total{trigger="manual",outcome="timeout"}"#, 0.0),
        ("kallima_attempt_duration_seconds_count", 2.0),
        ("kallima_database_up", 1.0),
        (r#"kallima_deliveries_pending{state="due"}"#, 0.0),
        ("kallima_oldest_due_age_seconds", 0.0),
        (r#"kallima_unavailable_total{reason="database"}"#, 0.0),
        (r#"kallima_webhooks_disabled_total{reason="gone"}"#, 0.0),
        (
            r#"kallima_requests_total{operation="delete_webhook",status="204"}"#,
            0.0,
        ),
        ("kallima_events_published_total", 1.0),
        ("kallima_first_attempt_delay_seconds_count", 1.0),
        ("kallima_delivery_delay_seconds_count", 1.0),
        ("kallima_deliveries_exhausted_total", 0.0),
        ("kallima_nodes_alive", 1.0),
        ("kallima_requests_running", 0.0),
        ("kallima_requests_max", 1024.0),
        ("kallima_attempts_max", 512.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    check_batches(&app, &text);
    check_pools(&app, &text);
    for of_process in [
        "resident_memory_bytes",
        "open_fds",
        "max_fds",
        "threads",
        "start_time_seconds",
    ] {
        let series = format!("process_{of_process}");
        assert!(value(&text, &series) > Some(0.0), "{series} in\n{text}");
    }
}

fn check_batches(app: &App, text: &str) {
    if app.database.is_postgres() {
        for (write, batches) in [("publish", 1.0), ("finish", 2.0)] {
            let series = format!(r#"kallima_group_commit_batch_size_count{{write="{write}"}}"#);
            assert_eq!(value(text, &series), Some(batches), "{series} in\n{text}");
        }
    } else {
        let written = value(text, r#"kallima_group_commit_batch_size_count{write="write"}"#);
        let (statements, commits) = ("kallima_sqlite_statements_total", "kallima_sqlite_commits_total");
        assert!(
            written >= Some(4.0),
            "the webhook, the event, the test, two records: {text}"
        );
        assert!(
            value(text, commits) >= written && value(text, statements) > written,
            "{text}"
        );
    }
}

fn check_pools(app: &App, text: &str) {
    let pool = if app.database.is_postgres() { "api" } else { "write" };
    for measured in ["wait_seconds", "statement_duration_seconds"] {
        let series = format!(r#"kallima_database_{measured}_count{{pool="{pool}"}}"#);
        assert!(value(text, &series) >= Some(1.0), "{series} in\n{text}");
    }
    let pool = if app.database.is_postgres() { "api" } else { "read" };
    let of = |state| {
        value(
            text,
            &format!(r#"kallima_database_connections{{pool="{pool}",state="{state}"}}"#),
        )
        .unwrap()
    };
    let most = value(text, &format!(r#"kallima_database_connections_max{{pool="{pool}"}}"#)).unwrap();
    assert!(
        of("busy") + of("idle") >= 1.0 && of("busy") + of("idle") <= most,
        "{text}"
    );
}

#[tokio::test]
async fn no_id_secret_or_token_is_in_the_metrics() {
    let app = measured().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    app.get("/v1/webhooks/00000000-0000-7000-8000-000000000000")
        .await
        .expect(404);
    let text = scrape(&app).await;
    let organization = app.organization.to_string();
    let id = webhook["id"].as_str().unwrap();
    for hidden in [
        &event,
        &organization,
        id,
        webhook["secret"].as_str().unwrap(),
        &app.token,
        "00000000-",
    ] {
        assert!(!text.contains(hidden), "{hidden} in\n{text}");
    }
}

#[tokio::test]
async fn what_waits_for_an_attempt_is_counted() {
    let arguments = ["--dev", "--metrics-listen", "127.0.0.1:0", "--attempts-max", "1"];
    let app = App::builder().arguments(&arguments).patient().start().await;
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200).held_by(&gate)]).await;
    app.webhook(&receiver.url).await;
    app.publish().await;
    receiver.wait_for(1).await;
    app.publish().await;
    app.publish().await;
    let text = scrape(&app).await;
    assert_eq!(value(&text, "kallima_attempts_running"), Some(1.0), "{text}");
    assert_eq!(value(&text, "kallima_deliveries_waiting"), Some(2.0), "{text}");
    let pending = |state: &str| value(&text, &format!(r#"kallima_deliveries_pending{{state="{state}"}}"#));
    assert_eq!(
        (pending("due"), pending("leased")),
        (Some(0.0), Some(3.0)),
        "what is leased is somebody's: {text}"
    );
    gate.open();
}

/// Two deliveries that wait for one thing.
fn only(count: fn(&mut PendingCounts) -> &mut u64) -> PendingCounts {
    let mut counts = PendingCounts::default();
    *count(&mut counts) = 2;
    counts
}

#[tokio::test]
async fn due_deliveries_are_counted_and_the_oldest_has_an_age() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    let (organization, clock) = (app.organization, app.clock.clone());
    // Published without a server, what is owed is due and nobody claims it.
    let database = app.stop().await;
    let db = Database::open(&database.options, &clock).await.unwrap();
    for _ in 0..2 {
        let event = Envelope::new(clock.new_event_id(), "job.completed", clock.now(), &json!({}));
        let publication = Publication::new(organization, event.unwrap()).unwrap();
        events::record(&db, publication, None).await.unwrap();
    }
    clock.advance(Duration::from_secs(7));
    let counted = async || backlog::backlog(&db, clock.now()).await.unwrap();
    let due = counted().await;
    assert_eq!(
        (due.pending, due.oldest_due_age, due.oldest_owed_age, due.breakers_open),
        (
            only(|counts| &mut counts.due),
            Duration::from_secs(7),
            Duration::from_secs(7),
            0
        )
    );
    let beside = database.connect().await;
    let execute = async |sql: &str| beside.execute_unprepared(sql).await.unwrap();
    execute("UPDATE webhooks SET consecutive_failures = 10").await;
    let behind = counted().await;
    assert_eq!(
        (behind.pending, behind.breakers_open, behind.oldest_owed_age),
        (only(|counts| &mut counts.breaker), 1, Duration::ZERO),
        "only probes go out"
    );
    execute(&format!(
        "UPDATE webhooks SET consecutive_failures = 0, resume_at = {}",
        clock.now().plus(Duration::from_secs(1)).as_millis()
    ))
    .await;
    assert_eq!(counted().await.pending, only(|counts| &mut counts.rate));
    execute("UPDATE webhooks SET resume_at = 0, enabled = FALSE").await;
    assert_eq!(
        counted().await.pending,
        only(|counts| &mut counts.disabled),
        "what is held is not due: {webhook}"
    );
    execute("UPDATE webhooks SET enabled = TRUE").await;
    let later = clock.now().plus(Duration::from_mins(5)).as_millis();
    execute(&format!("UPDATE queue SET due_at = {later}")).await;
    assert_eq!(counted().await.pending, only(|counts| &mut counts.scheduled));
    let token = if database.is_postgres() {
        "gen_random_uuid()"
    } else {
        "randomblob(16)"
    };
    execute(&format!(
        "UPDATE queue SET lease_token = {token}, lease_node = {token}, attempt_count = 1"
    ))
    .await;
    let leased = counted().await;
    assert_eq!(
        (leased.pending, leased.oldest_due_age, leased.oldest_owed_age),
        (
            only(|counts| &mut counts.leased),
            Duration::ZERO,
            Duration::from_secs(7)
        ),
        "a node that has leased what it does not attempt owes it all the same"
    );
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_is_held_shows_with_the_dead_rows_that_it_keeps() {
    const AGE: &str = "kallima_oldest_snapshot_age_seconds";
    const DEAD: &str = "kallima_queue_dead_rows";
    let receiver = Receiver::start([]).await;
    let app = measured().await;
    if !app.database.is_postgres() {
        let text = scrape(&app).await;
        assert_eq!((value(&text, AGE), value(&text, DEAD)), (Some(0.0), Some(0.0)));
        return;
    }
    let connection = app.database.connect().await;
    let snapshot = connection
        .begin_with_config(Some(IsolationLevel::RepeatableRead), None)
        .await
        .unwrap();
    snapshot.execute_unprepared("SELECT 1 FROM queue").await.unwrap();
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    eventually(|| async {
        let text = scrape(&app).await;
        let is_seen =
            value(&text, AGE).is_some_and(|age| age > 0.0) && value(&text, DEAD).is_some_and(|dead| dead >= 1.0);
        is_seen.then_some(())
    })
    .await;
    snapshot.rollback().await.unwrap();
}

#[tokio::test]
async fn without_its_database_the_server_still_says_what_it_knows() {
    let app = measured().await;
    app.db.clone().close().await.unwrap();
    app.get("/v1/webhooks").await.expect(503);
    let text = scrape_once(&app).await;
    assert_eq!(value(&text, "kallima_database_up"), Some(0.0), "{text}");
    let due = value(&text, r#"kallima_deliveries_pending{state="due"}"#);
    assert!(due.unwrap().is_nan(), "{text}");
    let unavailable = value(&text, r#"kallima_unavailable_total{reason="database"}"#);
    assert_eq!(unavailable, Some(1.0), "{text}");
    let refused = r#"kallima_requests_total{operation="list_webhooks",status="503"}"#;
    assert_eq!(value(&text, refused), Some(1.0), "{text}");
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    let app = measured().await;
    app.get("/metrics").await.expect_problem(404, "not_found");
    let (status, _, _) = ask(app.metrics.as_ref().unwrap(), "/v1/webhooks").await;
    assert_eq!(status, 404);
    assert!(App::dev().await.metrics.is_none(), "off is off");
}

#[tokio::test]
async fn a_second_server_starts_although_the_default_address_is_taken() {
    let database = TestDatabase::create().await;
    loop {
        // Whether this test gets it or something else has it already: it is taken.
        let taken = std::net::TcpListener::bind("127.0.0.1:9464");
        let mut server = command(&database.options.url, &std::env::temp_dir());
        server
            .args(["--dev", "--listen", "127.0.0.1:0"])
            .env_remove("KALLIMA_METRICS_LISTEN");
        let mut server = Process::spawn(server).await;
        server.log.allow("not serving metrics");
        let complaints = server.kill_with_log().await;
        if complaints.contains("not serving metrics") {
            return;
        }
        // What had it, such as the same test of a suite beside this one, may have let it go just then.
        assert!(taken.is_err(), "nothing was said of it: {complaints}");
    }
}

#[tokio::test]
async fn an_address_that_was_asked_for_must_be_had() {
    let database = TestDatabase::create().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (done, _, complaint) = run(&database, &["--listen", "127.0.0.1:0", "--metrics-listen", &address]).await;
    assert!(
        !done && complaint.contains(&format!("cannot listen on {address}")),
        "{complaint}"
    );
    let both = ["--listen", &address, "--metrics-listen", &address];
    let (done, _, complaint) = run(&database, &both).await;
    assert!(
        !done
            && complaint.starts_with("error: --metrics-listen (KALLIMA_METRICS_LISTEN) must differ from")
            && complaint.lines().count() == 1,
        "{complaint}"
    );
}
