//! Every example of a problem is what the server returns: each is provoked, and compared with the document.

use std::{collections::BTreeMap, num::NonZeroU32};

use kallima_webhooks::{
    contract::Contract,
    domain::{limits::Limits, token::Scope},
};
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::support::{App, Gate, Receiver, Reply, client::ApiResponse};

const NOBODY: &str = "/v1/webhooks/0190a000-0000-7000-8000-000000000000";

/// The problems that were seen, by the name of the response and of its example.
type Seen = BTreeMap<String, Value>;

/// The examples that the document shows, by the same names.
fn documented() -> Seen {
    let document = Contract::load().unwrap().document().clone();
    let mut found = Seen::new();
    for (name_of_response, said) in document["components"]["responses"].as_object().unwrap() {
        let content = &said["content"]["application/problem+json"];
        if let Some(example) = content.get("example") {
            found.insert(name_of_response.clone(), example.clone());
        }
        for (name, example) in content["examples"].as_object().into_iter().flatten() {
            found.insert(format!("{name_of_response}/{name}"), example["value"].clone());
        }
    }
    found
}

/// What is compared: everything except the request's own ids, in `request_id` and in the path.
fn comparable(problem: &Value) -> Value {
    let mut problem = problem.clone();
    let members = problem.as_object_mut().unwrap();
    members.remove("request_id").unwrap();
    let path = members["instance"].as_str().unwrap().to_owned();
    let segments = path.split('/').map(|segment| {
        let is_id = segment.len() > 2 && segment.contains(|letter: char| letter.is_ascii_digit());
        if is_id { "{id}" } else { segment }
    });
    members.insert("instance".to_owned(), segments.collect::<Vec<_>>().join("/").into());
    problem
}

fn id(shown: &Value) -> &str {
    shown["id"].as_str().unwrap()
}

/// Requests that are wrong whatever the server knows.
async fn refused(seen: &mut Seen) {
    let app = App::builder().start().await;
    let mut saw = |name: &str, response: ApiResponse| seen.insert(name.to_owned(), response.json());
    saw("BadRequest/query", app.get("/v1/webhooks?limit=101").await);
    let unread = app.ask("DELETE", NOBODY).header("if-match", "19db9c83900").send().await;
    saw("BadRequest/header", unread);
    let malformed = "{\n  \"url\": \"https://your-service.example.com/\"\n  \"enabled\": true\n}";
    saw(
        "BadRequest/body",
        app.ask("POST", "/v1/webhooks").text(malformed).send().await,
    );
    let missing = app.ask("GET", "/v1/webhooks").anonymous().send().await;
    saw("Unauthorized/token", missing);
    let twice = app.ask("GET", "/v1/webhooks").token("Bearer ab_x").send().await;
    saw("Unauthorized/scheme_twice", twice);
    let (reader, _) = app.new_token(Some(app.organization), &[Scope::WebhooksRead]).await;
    saw("Forbidden", app.ask("DELETE", NOBODY).token(&reader).send().await);
    saw("NotFound/webhook", app.get(NOBODY).await);
    let delivery = NOBODY.replace("webhooks", "webhook_deliveries");
    saw("NotFound/delivery", app.get(&delivery).await);
    saw(
        "NotFound/event",
        app.get("/v1/events/evt_01JBAAAA000000000000000000").await,
    );
    let long = json!({ "url": "https://your-service.example.com/", "description": "x".repeat(16 * 1024) });
    saw("PayloadTooLarge", app.post("/v1/webhooks", &long).await);
    saw(
        "UnsupportedMediaType",
        app.ask("POST", "/v1/webhooks").bytes("{}").send().await,
    );
    let faults = json!({
        "url": "http://your-service.example.com/webhooks/kallima",
        "events": ["humanization.failed", "humanisation.completed"],
        "enable": true,
    });
    saw("ValidationError/body", app.post("/v1/webhooks", &faults).await);
    saw("ValidationError/path", app.get("/v1/webhooks/42").await);
    saw(
        "ValidationError/query",
        app.get("/v1/events?type=humanisation.completed").await,
    );
    let shown = json!({ "id": "aaaa0001-bbbb-0002-cccc-000300040005", "enabled": false, "created_at": "2026-04-23T10:00:00+00:00" });
    saw("ValidationError/read_only", app.patch(NOBODY, &shown).await);
    let data = json!({ "type": "humanization.completed", "data": {} });
    saw("ValidationError/data", app.post("/v1/events", &data).await);
}

/// Requests that conflict with the current state.
async fn contradicted(seen: &mut Seen) {
    let app = App::builder().arguments(&["--dev"]).patient().start().await;
    let mut saw = |name: &str, response: ApiResponse| seen.insert(name.to_owned(), response.json());
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(204).held_by(&gate)]).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    receiver.wait_for(1).await;
    let delivery = app.delivery_of(&event).await;
    let retry = format!("/v1/webhook_deliveries/{}/retry", id(&delivery));
    saw("Conflict/attempt_in_progress", app.ask("POST", &retry).send().await);
    gate.open();
    app.delivery_when(&event, |delivery| delivery["status"] == "delivered")
        .await;
    let path = format!("/v1/webhooks/{}", id(&webhook));
    let stale = app.ask("PATCH", &path).header("if-match", "\"0\"").json(&json!({}));
    saw("PreconditionFailed", stale.send().await);
    app.delete(&path).await.expect(204);
    saw("Conflict/webhook_deleted", app.ask("POST", &retry).send().await);

    let event = |job: &str| json!({ "id": "evt_01JBAAAA00000000000000000C", "type": "job.completed", "data": { "job_id": job } });
    let (one, other) = (event(id(&webhook)), event(id(&delivery)));
    app.post("/v1/events", &one).await.expect(202);
    saw("Conflict/other_content", app.post("/v1/events", &other).await);

    let body = json!({ "url": receiver.url });
    let keyed = |body: &Value| {
        app.ask("POST", "/v1/webhooks")
            .header("idempotency-key", "one")
            .json(body)
            .send()
    };
    keyed(&body).await.expect(201);
    saw(
        "Conflict/idempotency_mismatch",
        keyed(&json!({ "url": receiver.url, "enabled": false })).await,
    );
    let beside = app.database.connect().await;
    let running =
        "UPDATE idempotency_keys SET response = NULL, lease_token = organization_id, leased_until = expires_at";
    beside.execute_unprepared(running).await.unwrap();
    saw("Conflict/still_running", keyed(&body).await);

    let full = loop {
        let created = app.post("/v1/webhooks", &body).await;
        if created.status != 201 {
            break created;
        }
    };
    saw("Conflict/too_many_webhooks", full);
}

/// Requests past the limits of the plan `team`, at the time of the examples.
async fn limited(seen: &mut Seen) {
    let app = App::builder().manual_clock().start().await;
    let limits = Limits {
        requests_per_minute_max: NonZeroU32::new(60),
        writes_per_month_max: NonZeroU32::new(25_000),
    };
    let (_, token) = app.new_limited_organization(limits).await;
    let publish = || {
        let event = json!({ "type": "job.completed", "data": { "job_id": "0190a000-0000-7000-8000-000000000000" } });
        app.ask("POST", "/v1/events").token(&token).json(&event).send()
    };
    publish().await.expect(202);
    let beside = app.database.connect().await;
    beside
        .execute_unprepared("UPDATE quota_usage SET writes = 25000")
        .await
        .unwrap();
    seen.insert("TooManyRequests/quota".to_owned(), publish().await.json());
    let refused = loop {
        let listed = app.ask("GET", "/v1/webhooks").token(&token).send().await;
        if listed.status != 200 {
            break listed;
        }
    };
    seen.insert("TooManyRequests/rate".to_owned(), refused.json());
}

/// Requests that fail on our side.
async fn failed(seen: &mut Seen) {
    let app = App::builder().start().await;
    let beside = app.database.connect().await;
    beside
        .execute_unprepared("ALTER TABLE tokens RENAME TO mislaid")
        .await
        .unwrap();
    seen.insert("InternalError".to_owned(), app.get("/v1/webhooks").await.json());
    beside
        .execute_unprepared("ALTER TABLE mislaid RENAME TO tokens")
        .await
        .unwrap();
    app.db.clone().close().await.unwrap();
    seen.insert("ServiceUnavailable".to_owned(), app.get("/v1/webhooks").await.json());
}

#[tokio::test]
async fn every_example_of_a_problem_is_what_the_server_says() {
    let mut seen = Seen::new();
    refused(&mut seen).await;
    contradicted(&mut seen).await;
    limited(&mut seen).await;
    failed(&mut seen).await;
    let documented = documented();
    let (names, provoked): (Vec<_>, Vec<_>) = (documented.keys().collect(), seen.keys().collect());
    assert_eq!(
        names, provoked,
        "the examples of openapi.yaml, and those that this test provokes"
    );
    let mut wrong = Vec::new();
    for (name, example) in &documented {
        let (example, said) = (comparable(example), comparable(&seen[name]));
        if example != said {
            wrong.push(format!("{name}\n  openapi.yaml: {example}\n  the server:   {said}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "examples that the server does not say:\n{}",
        wrong.join("\n")
    );
}
