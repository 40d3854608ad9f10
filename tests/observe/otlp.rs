//! Traces as a collector gets them from the real binary: the parent of each span, its attributes, and that nothing waits for
//! a collector.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{ResourceSpans, Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::{
    process::{Process, command},
    support::{
        Receiver,
        app::eventually,
        client::Ask,
        database::TestDatabase,
        receiver::{Arrival, Reply, nobody},
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// What came to a collector: each body, and what it was decoded to.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<(Bytes, ResourceSpans)>>>);

async fn collect(State(collected): State<Collected>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    for resource in request.resource_spans {
        collected.0.lock().unwrap().push((body.clone(), resource));
    }
}

/// A collector at the path that OTLP names, and its base URL.
async fn collector() -> (Collected, String) {
    let collected = Collected::default();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    let router = Router::new()
        .route("/v1/traces", axum::routing::post(collect))
        .with_state(collected.clone());
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    (collected, base)
}

impl Collected {
    fn spans(&self) -> Vec<Span> {
        let parts = self.0.lock().unwrap();
        let scopes = parts.iter().flat_map(|(_, resource)| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// The one span of that name.
    #[track_caller]
    fn one(&self, name: &str) -> Span {
        let mut found = self.named(name);
        assert_eq!(found.len(), 1, "{name} in {:#?}", self.spans());
        found.remove(0)
    }
}

/// Attributes as JSON.
fn attributes(attributes: &[KeyValue]) -> HashMap<&str, Value> {
    let value = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        Any::StringValue(text) => json!(text),
        Any::IntValue(number) => json!(number),
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|attribute| (attribute.key.as_str(), value(attribute)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A server that is being asked.
struct Session {
    database: TestDatabase,
    server: Process,
    token: String,
}

impl Session {
    async fn start(arguments: &[&str]) -> Self {
        let database = TestDatabase::create().await;
        let arguments = [arguments, &["--retry-schedule-s", "0"]].concat();
        let mut server = Process::start(&database.options.url, &arguments).await;
        let token = server.printed_token().await;
        Self {
            database,
            server,
            token,
        }
    }

    fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(method, &self.server.base, path).token(&self.token)
    }

    async fn webhook(&self, url: &str) -> Value {
        let ask = self.ask("POST", "/v1/webhooks").json(&json!({ "url": url }));
        ask.send().await.expect(201)
    }

    fn publish(&self) -> Ask {
        let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4(), "note": "of-the-payload" } });
        self.ask("POST", "/v1/events").json(&body)
    }
}

/// Publishes in a trace, lets an attempt fail and one succeed, asks for what is not there, and stops.
#[tokio::test]
async fn requests_and_attempts_are_spans_of_the_trace_that_the_publisher_named() {
    let (collected, base) = collector().await;
    let session = Session::start(&["--otlp-endpoint", &base]).await;
    let receiver = Receiver::start([Reply::status(500), Reply::status(200)]).await;
    let webhook = session.webhook(&format!("{}?key=of-the-receiver", receiver.url)).await;
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let published = session.publish().header("traceparent", &traceparent).send().await;
    let request_id = published.headers["x-request-id"].to_str().unwrap().to_owned();
    let event = published.expect(202);
    let arrivals = receiver.wait_for(2).await;
    session
        .ask("GET", "/v1/no-such-route/of-the-client")
        .send()
        .await
        .expect(404);
    session
        .ask("GET", "/v1/webhooks/of-the-client")
        .send()
        .await
        .expect(422);
    let delivered = || async {
        let found = session
            .ask("GET", "/v1/webhook_deliveries?status=delivered")
            .send()
            .await;
        Some(found.expect(200)).filter(|found| *found != json!([]))
    };
    let deliveries = eventually(delivered).await;
    let Session {
        server,
        token,
        database,
    } = session;
    assert!(
        server.terminate().await.success(),
        "what is left is exported when it stops"
    );

    let publish = collected.one("publish_event");
    assert_eq!(
        (hex(&publish.trace_id).as_str(), hex(&publish.parent_span_id).as_str()),
        (TRACE, SPAN)
    );
    assert_eq!(publish.kind(), SpanKind::Server);
    let said = attributes(&publish.attributes);
    let organization = said["kallima.organization.id"].clone();
    assert!(Uuid::try_parse(organization.as_str().unwrap()).is_ok());
    let expected = [
        ("http.request.method", json!("POST")),
        ("http.route", json!("/v1/events")),
        ("http.response.status_code", json!(202)),
        ("kallima.request.id", json!(request_id)),
        ("kallima.organization.id", organization.clone()),
        ("kallima.event.id", event["id"].clone()),
    ];
    assert_eq!(said, HashMap::from(expected));

    let mut expected = HashMap::from([
        ("http.request.method", json!("POST")),
        ("kallima.organization.id", organization.clone()),
        ("kallima.webhook.id", webhook["id"].clone()),
        ("kallima.delivery.id", deliveries[0]["id"].clone()),
        ("kallima.event.id", event["id"].clone()),
        ("kallima.attempt.trigger", json!("automatic")),
    ]);
    check_attempts(&collected, &publish, &arrivals, &mut expected);
    let created = collected.one("create_webhook");
    assert!(created.parent_span_id.is_empty(), "nobody caused it");
    assert_ne!(created.trace_id, publish.trace_id);
    let secret = webhook["secret"].as_str().unwrap().replace("whsec_", "");
    check_resource(&collected, &[&secret, &token.replace("ab_", "")]);
    drop(database);
}

/// The first attempt failed, the second did not; both were caused by the request.
fn check_attempts(
    collected: &Collected,
    publish: &Span,
    arrivals: &[Arrival],
    expected: &mut HashMap<&'static str, Value>,
) {
    let mut attempts = collected.named("attempt");
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    assert_eq!(attempts.len(), 2);
    for (index, (attempt, arrival)) in attempts.iter().zip(arrivals).enumerate() {
        assert_eq!(hex(&attempt.trace_id), TRACE);
        assert_eq!(attempt.parent_span_id, publish.span_id, "the request caused it");
        assert_eq!(attempt.kind(), SpanKind::Client);
        let id = hex(&attempt.span_id);
        assert_eq!(arrival.header("traceparent"), format!("00-{TRACE}-{id}-01"));
        let (status, outcome) = [(500, "response_status"), (200, "delivered")][index];
        expected.insert("http.response.status_code", json!(status));
        expected.insert("kallima.attempt.number", json!(index + 1));
        expected.insert("kallima.attempt.outcome", json!(outcome));
        expected.remove("error.type");
        let failed = status == 500;
        if failed {
            expected.insert("error.type", json!(outcome));
        }
        assert_eq!(attributes(&attempt.attributes), *expected);
        let code = attempt.status.clone().unwrap_or_default().code();
        assert_eq!(code == StatusCode::Error, failed);
    }
}

/// A route is a template, the exporter says who it is, and no secret is exported.
fn check_resource(collected: &Collected, secrets: &[&str]) {
    assert_eq!(
        attributes(&collected.one("get_webhook").attributes)["http.route"],
        "/v1/webhooks/{webhook_id}"
    );
    assert!(!attributes(&collected.one("GET").attributes).contains_key("http.route"));
    let parts = collected.0.lock().unwrap().clone();
    let resource = parts[0].1.resource.clone().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "kallima-webhooks");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    let others = ["of-the-receiver", "of-the-payload", "of-the-client", "127.0.0.1"];
    for hidden in secrets.iter().chain(&others) {
        let found = parts
            .iter()
            .any(|(body, _)| String::from_utf8_lossy(body).contains(hidden));
        assert!(!found, "{hidden} was exported");
    }
}

#[tokio::test]
async fn an_attempt_is_in_a_trace_although_the_publisher_named_none_unless_it_keeps_none() {
    let (collected, base) = collector().await;
    let session = Session::start(&["--otlp-endpoint", &format!("{base}/v1/traces")]).await;
    let receiver = Receiver::start([]).await;
    session.webhook(&receiver.url).await;
    session.publish().send().await.expect(202);
    receiver.wait_for(1).await;
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    session
        .publish()
        .header("traceparent", &unsampled)
        .send()
        .await
        .expect(202);
    let arrivals = receiver.wait_for(2).await;
    assert!(session.server.terminate().await.success());
    let (publish, attempt) = (collected.one("publish_event"), collected.one("attempt"));
    assert_eq!(attempt.parent_span_id, publish.span_id);
    assert_eq!(attempt.trace_id, publish.trace_id);
    let (trace, span) = (hex(&attempt.trace_id), hex(&attempt.span_id));
    assert_eq!(arrivals[0].header("traceparent"), format!("00-{trace}-{span}-01"));
    let passed_on = arrivals[1].header("traceparent");
    assert!(
        passed_on.starts_with(&format!("00-{TRACE}-")) && passed_on.ends_with("-00"),
        "{passed_on}"
    );
    assert!(!passed_on.contains(SPAN));
}

#[tokio::test]
async fn nothing_is_exported_unless_a_collector_is_named() {
    let database = TestDatabase::create().await;
    let mut command = command(&database.options.url, Path::new("."));
    // Empty counts as not given, as OpenTelemetry has it.
    command
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let mut server = Process::spawn(command).await;
    let token = server.printed_token().await;
    let receiver = Receiver::start([]).await;
    let session = Session {
        database,
        server,
        token,
    };
    session.webhook(&receiver.url).await;
    session.publish().send().await.expect(202);
    assert!(receiver.wait_for(1).await[0].headers.get("traceparent").is_none());
    assert!(session.server.terminate().await.success());
}

#[tokio::test]
async fn opentelemetrys_own_variables_name_a_collector_and_a_sampler() {
    for (sampler, is_exported) in [("always_on", true), ("always_off", false)] {
        let (collected, base) = collector().await;
        let database = TestDatabase::create().await;
        let mut command = command(&database.options.url, Path::new("."));
        command
            .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &base)
            .env("OTEL_TRACES_SAMPLER", sampler);
        let mut server = Process::spawn(command).await;
        let token = server.printed_token().await;
        Ask::new("GET", &server.base, "/v1/webhooks")
            .token(&token)
            .send()
            .await
            .expect(200);
        assert!(server.terminate().await.success());
        assert_eq!(!collected.spans().is_empty(), is_exported, "{sampler}");
    }
}

/// Whoever waited for a collector that hangs would wait ten seconds for each batch; this is less, and more than anything
/// else takes.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// How often the end of a server is measured: a machine that has other work makes it late now and then. One that is late
/// every time is late by our own doing.
const SAMPLES: u32 = 3;

/// One collector refuses connections, the other accepts them and never responds.
#[tokio::test]
async fn a_collector_that_is_away_or_hangs_delays_neither_service_nor_stop() {
    let (_held, refuses) = nobody();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = listener.local_addr().unwrap();
    for (collector, reports) in [(refuses, 1..=1), (hangs, 0..=1)] {
        let mut fastest = Duration::MAX;
        for _ in 0..SAMPLES {
            let stopped = session_without_collector(collector, &reports).await;
            fastest = fastest.min(stopped);
            if fastest < WAIT_MAX {
                break;
            }
        }
        assert!(fastest < WAIT_MAX, "it stopped after {fastest:?} at least");
    }
}

/// Serves and delivers 50 events without a working collector, and stops. Returns how long the stop took. `reports` is how
/// often the log must report the loss of the collector.
async fn session_without_collector(collector: SocketAddr, reports: &RangeInclusive<usize>) -> Duration {
    let database = TestDatabase::create().await;
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .args(["--otlp-endpoint", &format!("http://{collector}")])
        // A queue that is full at once, and a batch every moment.
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        .env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
        .env("OTEL_BSP_SCHEDULE_DELAY", "20");
    let mut server = Process::spawn(command).await;
    server.log.allow("cannot export traces");
    server.log.allow("the last spans were not exported");
    server.log.allow("dropping spans");
    let token = server.printed_token().await;
    let session = Session {
        database,
        server,
        token,
    };
    let receiver = Receiver::start([]).await;
    session.webhook(&receiver.url).await;
    for _ in 0..50 {
        let began = Instant::now();
        session.publish().send().await.expect(202);
        assert!(began.elapsed() < WAIT_MAX, "published after {:?}", began.elapsed());
    }
    receiver.wait_for(50).await;
    let began = Instant::now();
    session.server.signal("TERM").await;
    let (status, text) = session.server.ended_with_log().await;
    let stopped = began.elapsed();
    assert!(status.success());
    let found = text.lines().filter(|line| line.contains("cannot export traces"));
    // The one that hangs is lost at the deadline of a batch, which a slow machine may reach before the end.
    assert!(reports.contains(&found.count()), "once is enough:\n{text}");
    stopped
}

#[tokio::test]
async fn a_url_that_is_none_of_a_collector_is_one_line() {
    for url in [
        "localhost:4318",
        "collector",
        "ftp://localhost",
        "http://",
        "http://user:s3cret@localhost:4318",
        "http://localhost:4318/?token=s3cret",
        "",
    ] {
        let mut command = command("sqlite://unused.db", &std::env::temp_dir());
        let output = command.args(["--otlp-endpoint", url]).output().await.unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{url}");
        assert!(
            complaint.starts_with("error: ") && complaint.contains("--otlp-endpoint"),
            "{url}: {complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}
