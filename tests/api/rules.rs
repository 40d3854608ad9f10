//! The rules of `validator`: for each, a request that only it refuses, so that none can be dead code or be deleted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{support::App, tidy::sources};

/// An id that nothing has: the rest of the request is checked first.
const NOBODY: &str = "0190a000-0000-7000-8000-000000000000";

/// A rule: its type, its field if it has one, and its name or its function's.
type Rule = (&'static str, &'static str, &'static str);

/// What is said of an event type that is almost `job.failed`.
const ALMOST: &str = "matches no event type (did you mean job.failed?)";

/// A rule of a query, a query that breaks it and no other, and the fault: pointer, code, detail.
const QUERIES: [(Rule, &str, [&str; 3]); 3] = [
    (
        ("ListDeliveriesQuery", "event_type", "known_event_type"),
        "webhook_deliveries?event_type=job.faild",
        ["query/event_type", "unknown_event_type", ALMOST],
    ),
    (
        ("ListDeliveriesQuery", "", "after_before"),
        "webhook_deliveries?created_after=2026-01-01T00:00:00Z&created_before=2026-01-01T01:00:00%2B01:00",
        [
            "query/created_after",
            "range",
            "must be earlier than 2026-01-01T00:00:00+00:00, the end of the period",
        ],
    ),
    (
        ("ListEventsQuery", "r#type", "known_event_type"),
        "events?type=job.faild",
        ["query/type", "unknown_event_type", ALMOST],
    ),
];

/// A rule of a body, the operation, a body that breaks it and no other, and the faults: pointer, code, detail.
fn bodies() -> Vec<(Rule, &'static str, Value, Vec<[&'static str; 3]>)> {
    let type_unknown = |pointer| vec![[pointer, "unknown_event_type", ALMOST]];
    let job = json!({ "job_id": NOBODY });
    let url = vec![["/url", "fragment", "must not have a fragment"]];
    let entries = json!(["job.*", "job.fail", "job.completed", "job.faile"]);
    let in_entries = [type_unknown("/events/1"), type_unknown("/events/3")].concat();
    vec![
        (
            ("UpdateWebhook", "url", "destination_allowed"),
            "POST webhooks",
            json!({ "url": "https://example.com/#a" }),
            url.clone(),
        ),
        (
            ("UpdateWebhook", "url", "destination_allowed"),
            "PATCH webhooks/{id}",
            json!({ "url": "https://example.com/#a" }),
            url.clone(),
        ),
        (
            ("UpdateWebhook", "events", "entries_match_something"),
            "PATCH webhooks/{id}",
            json!({ "events": entries }),
            in_entries.clone(),
        ),
        // Both at once, in either order.
        (
            ("UpdateWebhook", "events", "entries_match_something"),
            "POST webhooks",
            json!({ "events": entries, "url": "https://example.com/#a" }),
            [url, in_entries].concat(),
        ),
        (
            ("PublishEvent", "r#type", "known_event_type"),
            "POST events",
            json!({ "type": "job.fail", "data": job }),
            type_unknown("/type"),
        ),
        (
            ("PublishEvent", "r#type", "not_reserved"),
            "POST events",
            json!({ "type": "webhook.recovered", "data": { "webhook_id": NOBODY } }),
            vec![[
                "/type",
                "reserved_event_type",
                "is published only by the service itself",
            ]],
        ),
        (
            ("TestWebhook", "event_type", "known_event_type"),
            "POST webhooks/{id}/test",
            json!({ "event_type": "job.fail" }),
            type_unknown("/event_type"),
        ),
        (
            ("ReplayWebhook", "", "since_before_until"),
            "POST webhooks/{id}/replay",
            json!({ "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T01:00:00+01:00" }),
            vec![[
                "/since",
                "range",
                "must be earlier than 2026-01-01T00:00:00+00:00, the end of the period",
            ]],
        ),
    ]
}

#[tokio::test]
async fn each_rule_of_a_query_refuses_what_no_other_does() {
    let app = App::dev().await;
    for (_, query, [pointer, code, detail]) in QUERIES {
        let problem = app
            .get(&format!("/v1/{query}"))
            .await
            .expect_problem(422, "validation_error");
        let error = json!({ "pointer": pointer, "code": code, "detail": detail });
        assert_eq!(problem["errors"], json!([error]), "{query}");
    }
}

#[tokio::test]
async fn each_rule_of_a_body_refuses_what_no_other_does() {
    let app = App::dev().await;
    for (_, operation, body, faults) in bodies() {
        let (method, path) = operation.split_once(' ').unwrap();
        let path = format!("/v1/{}", path.replace("{id}", NOBODY));
        let response = app.ask(method, &path).json(&body).send().await;
        let problem = response.expect_problem(422, "validation_error");
        let expected: Vec<Value> = faults
            .iter()
            .map(|[pointer, code, detail]| json!({ "pointer": pointer, "code": code, "detail": detail }))
            .collect();
        assert_eq!(problem["errors"], json!(expected), "{operation} {body}");
    }
}

#[test]
fn every_rule_is_tried() {
    let mut written = BTreeSet::new();
    for (_, source) in sources("src/api") {
        written.extend(rules(&source));
    }
    let queries = QUERIES.iter().map(|(rule, ..)| *rule);
    let tried: BTreeSet<_> = queries
        .chain(bodies().into_iter().map(|(rule, ..)| rule))
        .map(|(owner, field, name)| (owner.to_owned(), field.to_owned(), name.to_owned()))
        .collect();
    assert_eq!(tried, written, "the rules that are tried, and those of src/api");
}

/// The rules in the `#[validate(…)]` attributes of a source.
fn rules(source: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (at, attribute) in source.match_indices("#[validate(") {
        let (inside, after) = closed(&source[at + attribute.len()..]);
        let item = after
            .lines()
            .map(str::trim)
            .skip(1)
            .find(|line| !line.starts_with("#[") && !line.starts_with("//"))
            .unwrap();
        let name_of = |line: &str| {
            let name = line.split("struct ").nth(1).unwrap();
            name.split(|letter: char| !letter.is_alphanumeric())
                .next()
                .unwrap()
                .to_owned()
        };
        let (owner, field) = if item.contains("struct ") {
            (name_of(item), String::new())
        } else {
            let before = source[..at]
                .lines()
                .rev()
                .find(|line| line.contains("struct "))
                .unwrap();
            (name_of(before), item.split(':').next().unwrap().to_owned())
        };
        let functions = inside.split("function = ").skip(1);
        let functions = functions.map(|rest| rest.split([',', ')']).next().unwrap());
        let built_in = ["range", "length"]
            .into_iter()
            .filter(|name| inside.contains(&format!("{name}(")));
        found.extend(
            functions
                .chain(built_in)
                .map(|name| (owner.clone(), field.clone(), name.to_owned())),
        );
    }
    found
}

/// What is before the closing parenthesis, and what follows it.
fn closed(text: &str) -> (&str, &str) {
    let mut open = 1;
    let end = text.find(|letter| {
        open += i32::from(letter == '(') - i32::from(letter == ')');
        open == 0
    });
    text.split_at(end.unwrap())
}
