//! What newcomers get wrong, and the exact words that help them.

use std::collections::BTreeSet;

use kallima_webhooks::contract::Contract;
use serde_json::{Value, json};

use crate::support::{App, client::ApiResponse};

/// A request on the first line, then its faults: status, pointer, code, detail. An empty line between two traps.
const TRAPS: &str = include_str!("traps.txt");

/// An id that nothing has: the rest of the request is checked first.
const NOBODY: &str = "0190a000-0000-7000-8000-000000000000";

/// A fault that is expected.
struct Fault<'a> {
    status: u16,
    pointer: &'a str,
    code: &'a str,
    detail: &'a str,
}

impl<'a> Fault<'a> {
    fn read(line: &'a str) -> Self {
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().unwrap();
        Self {
            status: part().parse().unwrap(),
            pointer: Some(part()).filter(|pointer| *pointer != "body").unwrap_or_default(),
            code: part(),
            detail: part(),
        }
    }

    fn json(&self) -> Value {
        json!({ "pointer": self.pointer, "code": self.code, "detail": self.detail })
    }
}

/// Sends a request as written: method, path below `/v1/`, and body.
async fn send(app: &App, request: &str) -> ApiResponse {
    let mut parts = request.splitn(3, ' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let ask = app.ask(method, &format!("/v1/{}", path.replace("{id}", NOBODY)));
    match parts.next() {
        Some(body) => ask.text(body).send().await,
        None => ask.send().await,
    }
}

/// Compares a response with the faults that it must report, no more and no fewer.
fn says(response: &ApiResponse, expected: &[Fault<'_>], request: &str) {
    let status = expected[0].status;
    let code = if status == 422 {
        "validation_error"
    } else {
        "bad_request"
    };
    let problem = response.expect_problem(status, code);
    let found: BTreeSet<String> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let wanted = expected.iter().map(|fault| fault.json().to_string()).collect();
    assert_eq!(found, wanted, "{request}");
    let detail = problem["detail"].as_str().unwrap();
    for Fault {
        pointer, detail: said, ..
    } in expected
    {
        let named = if pointer.is_empty() { "the body" } else { pointer };
        assert!(detail.contains(&format!("{named} {said}")), "{request}: {detail}");
    }
}

/// Requests that are too long for a line.
fn long() -> [(String, &'static str); 3] {
    let create = |name: &str, value: Value| {
        let mut body = json!({ "url": "https://example.com/hook" });
        body[name] = value;
        format!("POST webhooks {body}")
    };
    [
        (
            create("events", json!(vec!["job.failed"; 51])),
            "422 /events max_items must have at most 50 entries",
        ),
        (
            create("description", "x".repeat(257).into()),
            "422 /description max_length must be at most 256 characters long",
        ),
        (
            create("url", format!("https://bücher.example/{}", "ß".repeat(400)).into()),
            "422 /url too_long is longer than 2048 characters in its ASCII form",
        ),
    ]
}

#[tokio::test]
async fn every_trap_is_answered_by_what_to_do_and_every_fault_has_a_trap() {
    let app = App::builder().start().await;
    let mut codes = BTreeSet::new();
    let written = TRAPS.trim().split("\n\n").map(|trap| trap.split_once('\n').unwrap());
    let long = long();
    for (request, faults) in written.chain(long.iter().map(|(request, fault)| (request.as_str(), *fault))) {
        let faults: Vec<Fault<'_>> = faults.lines().map(Fault::read).collect();
        says(&send(&app, request).await, &faults, request);
        codes.extend(faults.iter().map(|fault| fault.code));
    }
    let document = Contract::load().unwrap().document().clone();
    let documented = document["components"]["schemas"]["FaultCode"]["enum"]
        .as_array()
        .unwrap();
    let documented = documented.iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(
        codes, documented,
        "the faults that were provoked, and those that openapi.yaml lists"
    );
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_with_what_to_send() {
    let app = App::builder().start().await;
    let ask = || app.ask("POST", "/v1/webhooks");
    let json = "Send the body as JSON, with the header Content-Type: application/json.";
    let form = ask()
        .header("content-type", "application/x-www-form-urlencoded")
        .bytes("url=x");
    let gzip = ask().header("content-encoding", "gzip").text("{}");
    for (ask, status, detail) in [
        (ask().bytes("{}"), 415, json),
        (form, 415, json),
        (
            gzip,
            415,
            "Send the body as it is, without the header Content-Encoding: compressed bodies are not read.",
        ),
        (ask(), 400, "The body is empty; send a JSON object."),
        (
            ask().text("{'url': 1}"),
            400,
            "The body is not valid JSON: key must be a string at line 1 column 2.",
        ),
    ] {
        assert_eq!(ask.send().await.expect(status)["detail"], detail);
    }
}

#[tokio::test]
async fn a_whole_webhook_sent_back_is_refused_with_the_members_to_leave_out() {
    let app = App::builder().start().await;
    let mut webhook = app.webhook("https://example.com/hook").await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    webhook["description"] = "changed".into();
    let response = app.patch(&path, &webhook).await;
    let read_only = ["/id", "/object", "/created_at", "/updated_at", "/secret"];
    let expected = read_only.map(|pointer| Fault {
        status: 422,
        pointer,
        code: "read_only",
        detail: "is read-only: leave it out",
    });
    says(&response, &expected, "a whole webhook");
    for pointer in read_only {
        webhook.as_object_mut().unwrap().remove(&pointer[1..]);
    }
    assert_eq!(app.patch(&path, &webhook).await.expect(200)["description"], "changed");
}

#[tokio::test]
async fn a_weak_tag_is_refused_with_why_it_never_matches() {
    let app = App::builder().start().await;
    let webhook = app.webhook("https://example.com/hook").await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let tag = app.get(&path).await.header("etag").unwrap().to_owned();
    for method in ["PATCH", "DELETE"] {
        let ask = app.ask(method, &path).header("if-match", &format!("W/{tag}"));
        let problem = ask.send().await.expect_problem(412, "precondition_failed");
        let detail = "If-Match lists weak tags only, which match no version (RFC 9110, section 13.1.1): send the ETag as it was \
                      returned, without W/ before it.";
        assert_eq!(problem["detail"], detail);
    }
    app.ask("DELETE", &path)
        .header("if-match", &tag)
        .send()
        .await
        .expect(204);
}

/// This many different parameters.
fn many(count: usize, parameter: impl Fn(usize) -> String) -> String {
    (0..count).map(parameter).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn the_worst_queries_are_answered_in_few_words() {
    let app = App::builder().start().await;
    for query in [
        "%01=&".repeat(1500),
        many(1500, |number| format!("x{number}=&")),
        many(300, |number| format!("limi{number}{}=&", "%22".repeat(5))),
        "limit=1&".repeat(1000),
        format!("webhook_id={}", "%00".repeat(2500)),
        format!("event_type={}", "job.".repeat(1500)),
        format!("limit={}", "9".repeat(7000)),
    ] {
        let response = app.get(&format!("/v1/webhook_deliveries?{query}")).await;
        assert!([400, 422].contains(&response.status.as_u16()), "{}", response.status);
        assert!(response.body.len() <= 32 * 1024, "{} bytes", response.body.len());
        let errors = response.json()["errors"].as_array().unwrap().len();
        assert!((1..=100).contains(&errors), "{errors}");
    }
}
