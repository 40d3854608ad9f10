//! Whatever the body, validating it is bounded: the time, the number of listed faults, the size of the response.

use std::{collections::BTreeSet, time::Duration};

use kallima_webhooks::contract::{Contract, FAULTS_MAX};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::support::{App, client::ApiResponse};

/// The maximum size of a response to a bad body.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// How many times the work of a plain body of the same size the worst one may cause. It is about 6; quadratic work would
/// make it thousands.
const WORK_RATIO_MAX: u32 = 30;

/// Work below this is never too much, however little a plain body causes: each request has a fixed cost.
const WORK_FLOOR: Duration = Duration::from_millis(20);

/// How often a body is tried before its work counts as too much. The minimum counts, because a measurement can only be too
/// high.
const TRIES: usize = 5;

/// An id that nothing has: a valid body is checked, and then nothing is done.
const NOBODY: &str = "0190a000-0000-7000-8000-000000000000";

/// An operation with a body.
struct Operation {
    method: &'static str,
    path: String,
    bytes_max: usize,
    schema: &'static str,
    /// A valid body up to its end, where members can be added, and that end.
    valid: (&'static str, &'static str),
}

fn operations() -> Vec<Operation> {
    let at = |method, path: &str, schema, valid| Operation {
        method,
        path: path.replace("{id}", NOBODY),
        bytes_max: 16 * 1024,
        schema,
        valid,
    };
    let (none, url) = (("{", "}"), (r#"{"url":"https://example.com""#, "}"));
    let since = (r#"{"since":"2026-04-23T10:00:00+00:00""#, "}");
    let event = (r#"{"type":"webhook.test","data":{}"#, "}");
    vec![
        at("POST", "/v1/webhooks", "CreateWebhook", url),
        at("PATCH", "/v1/webhooks/{id}", "UpdateWebhook", none),
        at("POST", "/v1/webhooks/{id}/test", "TestWebhook", none),
        at("POST", "/v1/webhooks/{id}/replay", "ReplayWebhook", since),
        at("POST", "/v1/webhook_deliveries/{id}/retry", "RetryDelivery", none),
        Operation {
            bytes_max: 256 * 1024,
            ..at("POST", "/v1/events", "PublishEvent", event)
        },
    ]
}

impl Operation {
    /// A valid body as large as it may be.
    fn plain(&self) -> String {
        let (head, tail) = self.valid;
        format!("{head}{}{tail}", " ".repeat(self.bytes_max - head.len() - tail.len()))
    }

    async fn send(&self, app: &App, body: &str) -> ApiResponse {
        app.ask(self.method, &self.path).text(body).send().await
    }

    /// The processor time that a body takes, the client's part included: the server runs on this thread.
    async fn work(&self, app: &App, body: &str) -> (Duration, ApiResponse) {
        let before = clock_gettime(ClockId::ThreadCPUTime);
        let response = self.send(app, body).await;
        let after = clock_gettime(ClockId::ThreadCPUTime);
        (Duration::try_from(after - before).unwrap(), response)
    }

    /// The positions of values in a body: what precedes each, and what follows it.
    fn positions(&self) -> Vec<(String, String)> {
        let contract = Contract::load().unwrap();
        let names = |schema: &Value| -> Vec<String> {
            let members = schema["properties"].as_object().into_iter().flatten();
            members.map(|(name, _)| name.clone()).collect()
        };
        let schema = &contract.document()["components"]["schemas"][self.schema];
        let mut positions: Vec<_> = names(schema)
            .into_iter()
            .chain(["unknown".to_owned()])
            .map(|name| (format!("{{\"{name}\":"), "}".to_owned()))
            .collect();
        if self.schema == "PublishEvent" {
            // A type whose data has patterns, numbers and a URL, and one with a word.
            let humanization = &contract.event_type("humanization.completed").unwrap().data_schema;
            let data = names(humanization)
                .into_iter()
                .map(|name| ("humanization.completed", name))
                .chain([("job.failed", "job_type".to_owned())]);
            positions.extend(data.map(|(event_type, name)| {
                let head = format!("{{\"type\":\"{event_type}\",\"data\":{{\"{name}\":");
                (head, "}}".to_owned())
            }));
        }
        positions
    }

    /// Values that are costly for some part of the server, each in every position.
    fn values(&self) -> Vec<String> {
        let mut values = Vec::new();
        for (head, tail) in self.positions() {
            let room = self.bytes_max - head.len() - tail.len();
            let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
            let objects = format!("{}0{}", "{\"\":".repeat(100), "}".repeat(100));
            // Unknown types of many lengths, for each of which the nearest one is searched.
            let types = |index: usize| format!("\"{}._{}\"", "x".repeat(index % 40 + 1), "y".repeat(20));
            for value in [
                filled(room, ("\"", "\""), "", |_| "A".to_owned()),
                filled(room, ("\"", "\""), "", |_| "a".to_owned()),
                filled(room, ("\"", "\""), "", |_| "\\u0041".to_owned()),
                filled(room, ("\"", "\""), "", |_| "😀".to_owned()),
                filled(room, ("\"https://", "\""), "", |_| "[".to_owned()),
                filled(room, ("\"https://a/", "\""), "", |_| "%".to_owned()),
                filled(room, ("", ""), "", |_| "9".to_owned()),
                filled(room, ("0.", ""), "", |_| "9".to_owned()),
                filled(room, ("[", "]"), ",", |_| "0".to_owned()),
                filled(room, ("[", "]"), ",", |_| "\"\"".to_owned()),
                filled(room, ("[", "]"), ",", |_| "{\"\":0}".to_owned()),
                filled(room, ("[", "]"), ",", |_| "1.5e300".to_owned()),
                filled(room, ("[", "]"), ",", |_| deep.clone()),
                filled(room, ("[", "]"), ",", |_| objects.clone()),
                filled(room.min(2500), ("[", "]"), ",", types),
                filled(room, ("{", "}"), ",", |index| format!("\"{index}\":0")),
            ] {
                values.push(format!("{head}{value}{tail}"));
            }
        }
        values
    }

    /// Costly members beside those of a valid body.
    fn members(&self) -> Vec<String> {
        let frame = (format!("{},", self.valid.0).replace("{,", "{"), self.valid.1);
        let frame = (frame.0.as_str(), frame.1);
        let room = self.bytes_max;
        let name = "n".repeat(room / 4);
        let beneath = (format!("{}\"{name}\":{{", frame.0), format!("}}{}", frame.1));
        vec![
            filled(room, frame, ",", |index| format!("\"{index}\":0")),
            filled(room, frame, ",", |index| format!("\"/~\\u0001{index}\":0")),
            filled(room, frame, ",", |_| "\"a\":0".to_owned()),
            filled(room, frame, ",", |index| format!("\"{}\":0", index / 2)),
            filled(room, (&beneath.0, &beneath.1), ",", |index| {
                format!("\"{}\":0", index / 2)
            }),
            filled(room, frame, ",", |index| {
                format!("\"{index}{}\":0", "\\u0001".repeat(300))
            }),
            filled(room, frame, ",", |index| {
                let names = ["url", "type", "data", "since", "event_type", "events"];
                format!("\"{}\":{}", names[index % names.len()], "[]")
            }),
        ]
    }
}

/// A text of maximum length: `frame` around as many items as fit.
fn filled(room: usize, frame: (&str, &str), separator: &str, item: impl Fn(usize) -> String) -> String {
    let (head, tail) = frame;
    let mut text = head.to_owned();
    for index in 0.. {
        let item = item(index);
        if text.len() + item.len() + separator.len() + tail.len() > room {
            break;
        }
        if index > 0 {
            text.push_str(separator);
        }
        text.push_str(&item);
    }
    text + tail
}

/// The maximum that a response to a bad body may have.
fn is_bounded(response: &ApiResponse, body: &str) {
    let start = || body.chars().take(100).collect::<String>();
    assert!(
        response.body.len() <= ANSWER_BYTES_MAX,
        "{}: {} bytes",
        start(),
        response.body.len()
    );
    assert!(
        [202, 400, 404, 422].contains(&response.status.as_u16()),
        "{}: {}",
        start(),
        response.status
    );
    let Value::Array(errors) = &response.json()["errors"] else {
        return;
    };
    assert!(
        (1..=FAULTS_MAX).contains(&errors.len()),
        "{}: {}",
        start(),
        errors.len()
    );
    let pointer = |error: &Value| error["pointer"].as_str().unwrap().to_owned();
    assert!(errors.iter().all(|error| pointer(error).len() <= 256), "{}", start());
}

#[tokio::test]
async fn the_worst_bodies_make_little_more_work_than_a_plain_one() {
    let app = App::dev().await;
    for operation in operations() {
        let plain_body = operation.plain();
        let mut plain = Duration::MAX;
        for _ in 0..TRIES {
            let (work, response) = operation.work(&app, &plain_body).await;
            assert!(
                [201, 202, 404].contains(&response.status.as_u16()),
                "{}: {}",
                operation.path,
                response.status
            );
            plain = plain.min(work);
        }
        let most = WORK_RATIO_MAX * plain.max(WORK_FLOOR / WORK_RATIO_MAX);
        let mut worst = (Duration::ZERO, String::new());
        for body in operation.values().into_iter().chain(operation.members()) {
            let mut least = Duration::MAX;
            for _ in 0..TRIES {
                let (work, response) = operation.work(&app, &body).await;
                is_bounded(&response, &body);
                least = least.min(work);
                if least <= most {
                    break;
                }
            }
            worst = worst.max((least, body));
        }
        let (work, body) = worst;
        let start: String = body.chars().take(100).collect();
        eprintln!(
            "{} {}: plain {plain:?}, worst {work:?}: {start}",
            operation.method, operation.path
        );
        assert!(
            work <= most,
            "{}: {work:?} where a plain body takes {plain:?}: {start}",
            operation.path
        );
    }
}

#[tokio::test]
async fn a_hundred_faults_are_listed_and_the_others_counted() {
    let app = App::dev().await;
    for operation in operations() {
        let (head, tail) = operation.valid;
        let names: Vec<String> = (0..512).map(|index| format!("\"unknown_{index}\":0")).collect();
        let body = format!("{head},{}{tail}", names.join(",")).replace("{,", "{");
        let response = operation.send(&app, &body).await;
        is_bounded(&response, &body);
        assert_eq!(response.expect_faults().len(), FAULTS_MAX, "{}", operation.path);
        let problem = response.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("/unknown_0 is not a field of this body; /unknown_1 "),
            "{detail}"
        );
        assert!(detail.ends_with("; and 412 more"), "{detail}");
    }
}

#[tokio::test]
async fn faults_at_long_pointers_fit_into_the_response() {
    let app = App::dev().await;
    for name in ["n".repeat(100), "n".repeat(300), "\\u0001/~\\\"".repeat(20)] {
        let members: Vec<String> = (0..120).map(|index| format!("\"{index}{name}\":0")).collect();
        let body = format!("{{\"data\":{{{0}}},{0}}}", members.join(","));
        let response = app.ask("POST", "/v1/events").text(&body).send().await;
        is_bounded(&response, &body);
        let listed = response.expect_faults();
        let unique: BTreeSet<&String> = listed.iter().collect();
        let detail = response.json()["detail"].as_str().unwrap().to_owned();
        let more: usize = detail
            .rsplit_once("; and ")
            .unwrap()
            .1
            .strip_suffix(" more")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(listed.len() + more, 121, "120 unknown fields, and no type");
        if name.len() < 256 {
            assert_eq!(unique.len(), listed.len());
        } else {
            assert!(listed.iter().any(String::is_empty), "the value around it");
            assert!(detail.contains("(at a pointer of "), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_refused_wherever_it_is() {
    let app = App::dev().await;
    let job = r#""job_id":"7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11""#;
    for (path, body, faults) in [
        (
            "/v1/webhooks",
            r#"{"url":"https://a.example.com","url":"https://b.example.com"}"#.to_owned(),
            vec!["/url"],
        ),
        (
            "/v1/events",
            format!(r#"{{"type":"job.completed","data":{{{job},{job}}}}}"#),
            vec!["/data/job_id"],
        ),
        (
            "/v1/events",
            format!(r#"{{"type":"job.completed","data":{{{job},"x":[{{"a":1,"\u0061":2,"b":{{"/":0,"/":0}}}}]}}}}"#),
            vec!["/data/x/0/a", "/data/x/0/b/~1"],
        ),
        (
            "/v1/events",
            format!(r#"{{"type":"job.completed","data":{{{job}}},"data":{{"job_id":5}},"id":"x"}}"#),
            vec!["/data", "/data/job_id", "/id"],
        ),
    ] {
        let response = app.ask("POST", path).text(&body).send().await;
        let mut found = response.expect_faults();
        assert_eq!(response.json()["errors"][0]["code"], "duplicate_field");
        found.sort();
        assert_eq!(found, faults, "{body}");
    }
    assert_eq!(
        app.get("/v1/events").await.expect(200),
        json!([]),
        "nothing was published"
    );
    assert_eq!(app.get("/v1/webhooks").await.expect(200), json!([]));
}

#[tokio::test]
async fn what_a_request_says_is_not_repeated_at_length() {
    let app = App::dev().await;
    let name = "%01".repeat(9000);
    let response = app.get(&format!("/v1/webhooks?{name}=1")).await;
    response.expect_problem(400, "bad_request");
    assert!(response.body.len() < 4096, "{} bytes", response.body.len());
}
