//! `sandbox`: the server for the tests of a client, and its own operations.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kallima_webhooks::{contract::resolve, sandbox::OPENAPI_JSON};
use serde_json::{Value, json};
use tokio::process::Command;

use super::Process;
use crate::support::{Receiver, client::Ask};

const TOKEN: &str = "ab_sandbox00000000000000000000000000000000000000000";
const SECRET: &str = "whsec_sandbox000000000000000000000000000000000";

/// A sandbox, and the line that it printed.
struct Sandbox {
    process: Process,
    facts: Value,
}

/// The command, with its own defaults alone.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kallima-webhooks"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KALLIMA_")) {
        command.env_remove(name);
    }
    command.arg("sandbox").kill_on_drop(true);
    command
}

impl Sandbox {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(arguments);
        Self::spawn(command).await
    }

    async fn spawn(command: Command) -> Self {
        let process = Process::spawn(command).await;
        let facts = serde_json::from_str(&process.first).unwrap();
        Self { process, facts }
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap()
    }

    /// A request of the API.
    fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(method, self.fact("url"), path).token(self.fact("token"))
    }

    /// A request of the sandbox's own operations, whose response is checked against its document: its status and its body.
    async fn own(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, body) = send(method, &format!("{}{path}", self.fact("url")), body).await;
        check(method, path, status, &body);
        (status, body)
    }

    async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, response) = self.own(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {response}");
        response
    }

    /// The arrivals of a type, once there are this many.
    async fn arrivals(&self, event_type: &str, count: usize) -> Vec<Value> {
        let path = format!("/sandbox/inbox?event_type={event_type}&at_least={count}&wait_ms=30000");
        let arrivals = self.done("GET", &path, None).await;
        arrivals.as_array().unwrap().clone()
    }

    /// The only delivery of an event.
    async fn delivery(&self, event: &Value) -> Value {
        let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
        self.ask("GET", &path).send().await.expect(200)["deliveries"][0].clone()
    }
}

/// Sends a request: its status, and its body if that is JSON.
async fn send(method: &str, url: &str, body: Option<Value>) -> (u16, Value) {
    send_text(method, url, body.map(|body| body.to_string()).unwrap_or_default()).await
}

async fn send_text(method: &str, url: &str, body: String) -> (u16, Value) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json");
    let response = client
        .request(request.body(Full::new(body.into())).unwrap())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn document() -> Value {
    let document: Value = serde_json::from_str(OPENAPI_JSON).unwrap();
    resolve(&document, &document, 0)
}

/// Checks a response against the sandbox's document. A 400 or a 415 may belong to any operation.
fn check(method: &str, path: &str, status: u16, body: &Value) {
    let path = path.split('?').next().unwrap();
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let matches = |template: &str| match template.split_once('{') {
        Some((before, _)) => path.starts_with(before),
        None => path == template,
    };
    let Some((_, item)) = paths.iter().find(|(template, _)| matches(template)) else {
        return;
    };
    let documented = &item[method.to_lowercase()]["responses"][status.to_string()];
    assert!(
        documented.is_object() || status == 400,
        "{method} {path}: {status} is not in the document: {body}"
    );
    for content in documented["content"]
        .as_object()
        .into_iter()
        .flat_map(|content| content.values())
    {
        let faults: Vec<String> = jsonschema::validator_for(&content["schema"])
            .unwrap()
            .iter_errors(body)
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{method} {path}: {faults:?} in {body}");
    }
}

#[tokio::test]
async fn it_says_in_one_line_what_a_suite_has_to_know() {
    let given = ["--token", TOKEN, "--secret", SECRET];
    let ids = [
        "--organization-id",
        "01a00000-0000-7000-8000-000000000001",
        "--webhook-id",
        "01a00000-0000-7000-8000-000000000002",
    ];
    let sandbox = Sandbox::start(&[&given[..], &ids[..]].concat()).await;
    for (name, expected) in [
        ("token", TOKEN),
        ("webhook_secret", SECRET),
        ("organization_id", ids[1]),
        ("webhook_id", ids[3]),
    ] {
        assert_eq!(sandbox.fact(name), expected);
    }
    let webhook = sandbox
        .ask("GET", &format!("/v1/webhooks/{}", ids[3]))
        .send()
        .await
        .expect(200);
    assert_eq!(webhook["url"], sandbox.facts["inbox_url"]);
    let document = sandbox.done("GET", "/sandbox/openapi.json", None).await;
    assert_eq!(document["openapi"], "3.1.0");
    assert!(sandbox.process.terminate().await.success());

    let bare = Sandbox::start(&["--no-examples"]).await;
    assert_eq!(bare.facts["webhook_id"], Value::Null);
    assert_eq!(bare.ask("GET", "/v1/webhooks").send().await.expect(200), json!([]));
}

#[tokio::test]
async fn it_logs_trouble_alone_unless_more_is_asked_for() {
    let sandbox = Sandbox::start(&[]).await;
    sandbox.done("POST", "/sandbox/trigger/job.completed", None).await;
    sandbox.arrivals("job.completed", 1).await;
    sandbox.done("POST", "/sandbox/reset", None).await;
    assert_eq!(sandbox.process.kill_with_log().await, "");

    let by_option = Sandbox::start(&["--log", "info"]).await;
    let mut command = command();
    command.env("KALLIMA_LOG", "info");
    let by_variable = Sandbox::spawn(command).await;
    for sandbox in [by_option, by_variable] {
        let log = sandbox.process.kill_with_log().await;
        assert!(log.contains("INFO"), "{log:?}");
    }
}

#[tokio::test]
async fn what_is_triggered_arrives_and_is_verified() {
    let sandbox = Sandbox::start(&[]).await;
    let event = sandbox
        .done("POST", "/sandbox/trigger/humanization.completed", None)
        .await;
    let arrivals = sandbox.arrivals("humanization.completed", 1).await;
    assert_eq!(arrivals.len(), 1);
    assert_eq!(arrivals[0]["payload"], event);
    assert_eq!(
        (&arrivals[0]["verified"], &arrivals[0]["fault"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(arrivals[0]["webhook_id"], sandbox.facts["webhook_id"]);
    // Whoever writes to the inbox without a delivery is not taken for the service.
    assert_eq!(send("POST", sandbox.fact("inbox_url"), Some(json!({}))).await.0, 200);
    let all = sandbox.done("GET", "/sandbox/inbox", None).await;
    assert_eq!(all[1]["verified"], false);
    sandbox.done("DELETE", "/sandbox/inbox", None).await;
    assert_eq!(sandbox.done("GET", "/sandbox/inbox", None).await, json!([]));
    let (status, problem) = sandbox
        .own("POST", "/sandbox/trigger/humanization.complete", None)
        .await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn days_pass_at_once_and_a_schedule_with_them() {
    let sandbox = Sandbox::start(&[]).await;
    sandbox
        .done(
            "PUT",
            "/sandbox/inbox/answers",
            Some(json!([{ "status": 503, "times": 1000 }])),
        )
        .await;
    let event = sandbox.done("POST", "/sandbox/trigger/humanization.failed", None).await;
    sandbox.arrivals("humanization.failed", 1).await;
    sandbox
        .done("POST", "/sandbox/clock/advance", Some(json!({ "seconds": 6 })))
        .await;
    assert_eq!(sandbox.delivery(&event).await["attempt_count"], 2);
    sandbox
        .done("POST", "/sandbox/clock/advance", Some(json!({ "seconds": 90 * 3600 })))
        .await;
    let delivery = sandbox.delivery(&event).await;
    assert_eq!(
        (&delivery["status"], &delivery["attempt_count"]),
        (&json!("failed"), &json!(10))
    );
    let arrivals = sandbox.arrivals("humanization.failed", 10).await;
    assert!(
        arrivals.iter().all(|arrival| arrival["verified"] == true),
        "signatures keep to real time"
    );

    sandbox.done("POST", "/sandbox/trigger/job.failed", None).await;
    sandbox
        .done("POST", "/sandbox/clock/advance", Some(json!({ "seconds": 80 * 3600 })))
        .await;
    let path = format!("/v1/webhooks/{}", sandbox.fact("webhook_id"));
    let webhook = sandbox.ask("GET", &path).send().await.expect(200);
    assert_eq!(
        (&webhook["enabled"], &webhook["disabled_reason"]),
        (&json!(false), &json!("failing")),
        "{webhook}"
    );
}

#[tokio::test]
async fn the_inbox_answers_as_scripted_and_then_as_usual() {
    let sandbox = Sandbox::start(&[]).await;
    let script = json!([{ "close": true }, { "status": 429, "retry_after_s": 3600 }, { "delay_ms": 20, "status": 204, "body": "" }]);
    sandbox.done("PUT", "/sandbox/inbox/answers", Some(script)).await;
    let event = sandbox.done("POST", "/sandbox/trigger/job.completed", None).await;
    sandbox.arrivals("job.completed", 1).await;
    sandbox
        .done("POST", "/sandbox/clock/advance", Some(json!({ "seconds": 0 })))
        .await;
    assert_eq!(sandbox.delivery(&event).await["error"], "connection_closed");
    sandbox
        .done("POST", "/sandbox/clock/advance", Some(json!({ "seconds": 3000 })))
        .await;
    assert_eq!(
        sandbox.delivery(&event).await["attempt_count"],
        2,
        "Retry-After is respected"
    );
    sandbox
        .done("POST", "/sandbox/clock/advance", Some(json!({ "seconds": 3000 })))
        .await;
    assert_eq!(sandbox.delivery(&event).await["response_status"], 204);
    assert_eq!(sandbox.done("GET", "/sandbox/inbox/answers", None).await, json!([]));
    for (wrong, named) in [
        (json!([{ "status": 100 }]), "status"),
        (json!([{ "delay_ms": 30_001 }]), "delay_ms"),
        (json!([{ "times": 0 }]), "times"),
        (json!([{ "body": "x".repeat(4097) }]), "body"),
        (json!([{ "stauts": 200 }]), "stauts"),
        (json!(vec![json!({}); 101]), "100"),
    ] {
        let (status, problem) = sandbox.own("PUT", "/sandbox/inbox/answers", Some(wrong)).await;
        assert!(
            status == 422 && problem["detail"].as_str().unwrap().contains(named),
            "{problem}"
        );
    }
}

/// Requests below `/sandbox/`, each with a body; the status and the code of the answer, and where it finds fault.
const WRONG: [(&str, &str, u16, &str, &[&str]); 12] = [
    ("DELETE reset", "", 405, "method_not_allowed", &[]),
    ("POST clock/advance", "{", 400, "bad_request", &[]),
    ("POST clock/advance", "[]", 422, "validation_error", &[""]),
    (
        "POST clock/advance",
        r#"{"second": 1}"#,
        422,
        "validation_error",
        &["/second", "/seconds"],
    ),
    (
        "POST clock/advance",
        r#"{"seconds": 1, "seconds": 2}"#,
        422,
        "validation_error",
        &["/seconds"],
    ),
    (
        "POST clock/advance",
        r#"{"seconds": 31622401}"#,
        422,
        "validation_error",
        &["/seconds"],
    ),
    (
        "PUT inbox/answers",
        r#"[{}, {"status": "x", "times": 0}]"#,
        422,
        "validation_error",
        &["/1/status", "/1/times"],
    ),
    ("POST fail", r#"{"status": 404}"#, 422, "validation_error", &["/status"]),
    ("GET inbox?at_leas=1", "", 400, "bad_request", &["query/at_leas"]),
    (
        "GET inbox?at_least=1&at_least=2",
        "",
        400,
        "bad_request",
        &["query/at_least"],
    ),
    (
        "GET inbox?wait_ms=30001&event_type=5",
        "",
        400,
        "bad_request",
        &["query/wait_ms"],
    ),
    ("POST trigger/job.finished", "", 404, "not_found", &[]),
];

#[tokio::test]
async fn its_own_operations_say_what_is_wrong_as_those_of_the_api_do() {
    let sandbox = Sandbox::start(&[]).await;
    for (request, body, status, code, pointers) in WRONG {
        let (method, path) = request.split_once(' ').unwrap();
        let url = format!("{}/{path}", sandbox.fact("sandbox_url"));
        let (answered, problem) = send_text(method, &url, body.to_owned()).await;
        assert_eq!(
            (answered, &problem["code"]),
            (status, &json!(code)),
            "{request}: {problem}"
        );
        assert_eq!(problem["type"], format!("https://docs.kallima.bio/errors/{code}"));
        let path = path.split('?').next().unwrap();
        assert_eq!(problem["instance"], format!("/sandbox/{path}"), "{problem}");
        let errors = problem["errors"].as_array().into_iter().flatten();
        let found: BTreeSet<_> = errors.map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers.iter().copied().collect(), "{request}: {problem}");
    }
}

#[tokio::test]
async fn the_next_requests_fail_as_asked_and_do_nothing() {
    let sandbox = Sandbox::start(&[]).await;
    let fail = |failure: Value| sandbox.done("POST", "/sandbox/fail", Some(failure));
    let body = json!({ "url": sandbox.fact("inbox_url") });
    for (status, code) in [
        (429, "rate_limit_exceeded"),
        (503, "service_unavailable"),
        (500, "internal_error"),
    ] {
        fail(json!({ "status": status, "times": 2, "retry_after_s": 7 })).await;
        for _ in 0..2 {
            let response = sandbox.ask("POST", "/v1/webhooks").json(&body).send().await;
            response.expect_problem(status, code);
            assert_eq!(response.header("retry-after"), (status != 500).then_some("7"));
        }
        assert_eq!(
            sandbox
                .ask("GET", "/v1/webhooks")
                .send()
                .await
                .expect(200)
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
    fail(json!({ "status": 500, "times": 5 })).await;
    fail(json!({ "status": 500, "times": 0 })).await;
    sandbox.ask("GET", "/v1/webhooks").send().await.expect(200);
    let (status, _) = sandbox
        .own("POST", "/sandbox/fail", Some(json!({ "status": 418 })))
        .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_reset_puts_everything_back_and_takes_no_time() {
    let limits = ["--requests-per-minute-max", "60", "--writes-per-month-max", "3"];
    let sandbox = Sandbox::start(&limits).await;
    let listed = async |path: &str| {
        let list = sandbox.ask("GET", path).send().await.expect(200);
        let ids = list.as_array().unwrap().iter().map(|item| item["id"].to_string());
        ids.collect::<BTreeSet<_>>()
    };
    let paths = ["/v1/webhooks", "/v1/events", "/v1/webhook_deliveries"];
    let before = [listed(paths[0]).await, listed(paths[1]).await, listed(paths[2]).await];
    let receiver = Receiver::start([]).await;
    for _ in 0..3 {
        let body = json!({ "url": receiver.url });
        let ask = sandbox.ask("POST", "/v1/webhooks").header("idempotency-key", "one");
        ask.json(&body).send().await.expect(201);
        sandbox.done("POST", "/sandbox/trigger/job.completed", None).await;
        sandbox.arrivals("job.completed", 1).await;
        sandbox
            .done("POST", "/sandbox/fail", Some(json!({ "status": 500, "times": 9 })))
            .await;
        sandbox
            .done(
                "PUT",
                "/sandbox/inbox/answers",
                Some(json!([{ "status": 500, "times": 9 }])),
            )
            .await;
        sandbox.done("POST", "/sandbox/reset", None).await;
        assert_eq!(sandbox.done("GET", "/sandbox/inbox", None).await, json!([]));
        for (path, before) in paths.iter().zip(&before) {
            assert_eq!(listed(path).await, *before, "{path}");
        }
    }
    let began = Instant::now();
    for _ in 0..100 {
        sandbox.done("POST", "/sandbox/reset", None).await;
    }
    // A thousand take five seconds at most where nothing else runs; that is for whoever measures.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn no_service_has_what_a_sandbox_has() {
    let database = crate::support::database::TestDatabase::empty().await;
    let mut server = Process::start(&database.options.url, &[]).await;
    let token = server.printed_token().await;
    for path in document()["paths"].as_object().unwrap().keys() {
        let path = path.replace("{event_type}", "job.completed");
        let response = Ask::new("GET", &server.base, &path).token(&token).send().await;
        response.expect_problem(404, "not_found");
    }
}
