//! `Idempotency-Key`: a request is done once, however often it is sent.

use std::{num::NonZeroU32, time::Duration};

use kallima_webhooks::{domain::limits::Limits, store::idempotency};
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    App, Receiver,
    client::{ApiResponse, Ask},
};

fn keyed(app: &App, method: &str, path: &str, key: &str, body: &Value) -> Ask {
    app.ask(method, path).header("idempotency-key", key).json(body)
}

fn event() -> Value {
    json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } })
}

fn is_replay(response: &ApiResponse) -> bool {
    response.header("idempotency-replayed") == Some("true")
}

/// Makes every key's request look as if its node had died before it could keep the response.
async fn forget_responses(app: &App, leased_until: &str) {
    let beside = app.database.connect().await;
    let sql = format!(
        "UPDATE idempotency_keys SET response = NULL, lease_token = organization_id, leased_until = {leased_until}"
    );
    beside.execute_unprepared(&sql).await.unwrap();
}

#[tokio::test]
async fn the_same_request_is_answered_as_before() {
    let app = App::dev().await;
    let body = json!({ "url": "http://127.0.0.1:9/" });
    let first = keyed(&app, "POST", "/v1/webhooks", "one", &body).send().await;
    let webhook = first.expect(201);
    let again = keyed(&app, "POST", "/v1/webhooks", "one", &body).send().await;
    assert!(!is_replay(&first) && is_replay(&again));
    assert_eq!(again.expect(201), webhook, "the secret too");
    for name in ["location", "etag", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(app.get("/v1/webhooks").await.expect(200).as_array().unwrap().len(), 1);

    let path = format!("/v1/webhooks/{}?rotate_secret=true", webhook["id"].as_str().unwrap());
    let rotated = keyed(&app, "PATCH", &path, "two", &json!({})).send().await;
    let again = keyed(&app, "PATCH", &path, "two", &json!({})).send().await;
    assert!(is_replay(&again));
    assert_eq!(
        again.expect(200)["secret"],
        rotated.expect(200)["secret"],
        "it was rotated once"
    );
}

#[tokio::test]
async fn a_test_and_a_retry_with_a_key_are_attempted_once() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let tested = keyed(&app, "POST", &path, "test", &json!({})).send().await.expect(200);
    assert_eq!(
        keyed(&app, "POST", &path, "test", &json!({})).send().await.expect(200),
        tested
    );
    assert_eq!(receiver.arrivals().len(), 1);
    let path = format!("/v1/webhook_deliveries/{}/retry", tested["id"].as_str().unwrap());
    let retried = keyed(&app, "POST", &path, "retry", &json!({})).send().await.expect(200);
    assert_eq!(
        keyed(&app, "POST", &path, "retry", &json!({})).send().await.expect(200),
        retried
    );
    assert_eq!(receiver.arrivals().len(), 2);
}

#[tokio::test]
async fn a_key_is_for_one_request_of_one_organization() {
    let app = App::dev().await;
    let body = json!({ "url": "http://127.0.0.1:9/" });
    let webhook = keyed(&app, "POST", "/v1/webhooks", "one", &body)
        .send()
        .await
        .expect(201);
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    for ask in [
        keyed(
            &app,
            "POST",
            "/v1/webhooks",
            "one",
            &json!({ "url": "http://127.0.0.1:9/other" }),
        ),
        keyed(&app, "POST", "/v1/events", "one", &event()),
        keyed(&app, "PATCH", &path, "one", &body),
        keyed(&app, "PATCH", &format!("{path}?rotate_secret=true"), "one", &body),
    ] {
        ask.send().await.expect_problem(409, "idempotency_mismatch");
    }
    assert!(app.get(&path).await.expect(200) == app.get("/v1/webhooks").await.expect(200)[0]);
    let (_, token) = app.new_organization().await;
    let elsewhere = keyed(&app, "POST", "/v1/webhooks", "one", &body)
        .token(&token)
        .send()
        .await;
    assert!(!is_replay(&elsewhere));
    assert_ne!(elsewhere.expect(201)["id"], webhook["id"]);
}

#[tokio::test]
async fn a_malformed_key_is_refused_by_the_headers_name() {
    let app = App::dev().await;
    for key in ["", " ", "a\tb", &"x".repeat(256)] {
        let problem = keyed(&app, "POST", "/v1/events", key, &event())
            .send()
            .await
            .expect_problem(400, "bad_request");
        assert!(
            problem["detail"].as_str().unwrap().contains("Idempotency-Key"),
            "{problem}"
        );
    }
    let twice = keyed(&app, "POST", "/v1/events", "one", &event()).header("idempotency-key", "two");
    twice.send().await.expect_problem(400, "bad_request");
    keyed(&app, "POST", "/v1/events", &"x".repeat(255), &event())
        .send()
        .await
        .expect(202);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_to_a_mended_one() {
    let app = App::dev().await;
    let refused = keyed(&app, "POST", "/v1/webhooks", "one", &json!({ "url": "" }))
        .send()
        .await;
    refused.expect_faults();
    let nobody = format!("/v1/webhooks/{}", Uuid::nil());
    let missing = keyed(&app, "PATCH", &nobody, "one", &json!({})).send().await;
    missing.expect_problem(404, "not_found");
    let body = json!({ "url": "http://127.0.0.1:9/" });
    let mended = keyed(&app, "POST", "/v1/webhooks", "one", &body).send().await;
    mended.expect(201);
    assert!(!is_replay(&mended));
}

#[tokio::test]
async fn a_write_that_failed_has_left_nothing_under_its_key() {
    let app = App::dev().await;
    let beside = app.database.connect().await;
    let body = event();
    beside
        .execute_unprepared("ALTER TABLE events RENAME TO mislaid")
        .await
        .unwrap();
    let failed = keyed(&app, "POST", "/v1/events", "one", &body).send().await;
    failed.expect_problem(500, "internal_error");
    beside
        .execute_unprepared("ALTER TABLE mislaid RENAME TO events")
        .await
        .unwrap();
    let again = keyed(&app, "POST", "/v1/events", "one", &body).send().await;
    again.expect(202);
    assert!(!is_replay(&again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_requests_at_once_with_one_key_exactly_one_runs() {
    let app = App::dev().await;
    let body = event();
    let asks: Vec<_> = (0..50)
        .map(|_| tokio::spawn(keyed(&app, "POST", "/v1/events", "one", &body).send()))
        .collect();
    let (mut ran, mut ids) = (0, std::collections::HashSet::new());
    for ask in asks {
        let response = ask.await.unwrap();
        if response.status == 202 {
            ran += u32::from(!is_replay(&response));
            ids.insert(response.json()["id"].as_str().unwrap().to_owned());
        } else {
            response.expect_problem(409, "conflict");
            assert_eq!(response.header("retry-after"), Some("1"));
        }
    }
    assert_eq!((ran, ids.len()), (1, 1));
    let again = keyed(&app, "POST", "/v1/events", "one", &body).send().await;
    assert!(is_replay(&again) && ids.contains(again.expect(202)["id"].as_str().unwrap()));
    assert_eq!(app.get("/v1/events").await.expect(200).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_crash_between_a_test_and_its_response_doubles_nothing() {
    let receiver = Receiver::start([]).await;
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let webhook = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let tested = keyed(&app, "POST", &path, "one", &json!({})).send().await.expect(200);
    // Until the dead run's lease ends the request is refused; then it is performed again.
    let lease_ms = app.clock.now().as_millis() + 10_000;
    forget_responses(&app, &lease_ms.to_string()).await;
    let early = keyed(&app, "POST", &path, "one", &json!({})).send().await;
    early.expect_problem(409, "conflict");
    app.advance(Duration::from_secs(10)).await;
    for replayed in [false, true] {
        let again = keyed(&app, "POST", &path, "one", &json!({})).send().await;
        assert_eq!(is_replay(&again), replayed);
        assert_eq!(again.expect(200), tested, "the same test");
    }
    assert_eq!(app.get("/v1/events").await.expect(200).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day_and_then_removed() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let body = event();
    let first = keyed(&app, "POST", "/v1/events", "one", &body).send().await.expect(202);
    app.advance(Duration::from_hours(24) - Duration::from_millis(1)).await;
    assert!(is_replay(&keyed(&app, "POST", "/v1/events", "one", &body).send().await));
    app.advance(Duration::from_millis(1)).await;
    let new = keyed(&app, "POST", "/v1/events", "one", &body).send().await;
    assert!(!is_replay(&new));
    assert_ne!(new.expect(202)["id"], first["id"]);
    assert_eq!(
        idempotency::prune(&app.db, app.clock.now()).await.unwrap(),
        0,
        "it is new again"
    );
    app.advance(Duration::from_hours(24)).await;
    assert_eq!(idempotency::prune(&app.db, app.clock.now()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_replay_uses_no_quota_and_works_when_that_is_used_up() {
    // With a clock that stands still, no new month begins between two requests.
    let mut app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let limits = Limits {
        requests_per_minute_max: None,
        writes_per_month_max: NonZeroU32::new(1),
    };
    (app.organization, app.token) = app.new_limited_organization(limits).await;
    let body = event();
    keyed(&app, "POST", "/v1/events", "one", &body).send().await.expect(202);
    let again = keyed(&app, "POST", "/v1/events", "one", &body).send().await;
    assert!(is_replay(&again));
    assert_eq!(again.header("x-quota-remaining"), Some("0"));
    let refused = keyed(&app, "POST", "/v1/events", "two", &body).send().await;
    refused.expect_problem(429, "quota_exceeded");
}
