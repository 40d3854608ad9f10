//! Rate limits and monthly quotas: what is counted, reported and refused.

use std::{num::NonZeroU32, time::Duration};

use kallima_webhooks::{
    clock::Clock,
    domain::{limits::Limits, timestamp::Timestamp, token::Scope},
    store::organizations,
};
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use uuid::Uuid;

use crate::support::{App, client::ApiResponse};

fn limits(requests_per_minute_max: u32, writes_per_month_max: u32) -> Limits {
    Limits {
        requests_per_minute_max: NonZeroU32::new(requests_per_minute_max),
        writes_per_month_max: NonZeroU32::new(writes_per_month_max),
    }
}

/// A server whose clock shows `now` and whose organization has these limits; zero means no limit.
async fn app(now: &str, requests_per_minute_max: u32, writes_per_month_max: u32) -> App {
    let clock = Clock::manual(Timestamp::parse(now).unwrap());
    let mut app = App::builder().arguments(&["--dev"]).clock(clock).start().await;
    let limits = limits(requests_per_minute_max, writes_per_month_max);
    (app.organization, app.token) = app.new_limited_organization(limits).await;
    app
}

/// Limit, remaining and reset of `rate` or `quota`; `None` if the response has no such headers.
fn limit(response: &ApiResponse, what: &str) -> Option<(u32, u32, String)> {
    let number = |name: &str| {
        response
            .header(&format!("x-{what}-{name}"))
            .map(|text| text.parse().unwrap())
    };
    let reset = response.header(&format!("x-{what}-reset")).map(ToOwned::to_owned);
    let all = number("limit").zip(number("remaining")).zip(reset);
    all.map(|((limit, remaining), reset)| (limit, remaining, reset))
}

fn rate(response: &ApiResponse) -> Option<(u32, u32, String)> {
    limit(response, "ratelimit")
}

fn quota_left(response: &ApiResponse) -> u32 {
    limit(response, "quota").expect("the response has the quota").1
}

async fn create(app: &App) -> ApiResponse {
    app.post("/v1/webhooks", &json!({ "url": "http://127.0.0.1:9/" })).await
}

#[tokio::test]
async fn an_organization_without_limits_gets_no_headers_of_limits() {
    let app = App::dev().await;
    let response = create(&app).await;
    response.expect(201);
    assert!(rate(&response).is_none() && limit(&response, "quota").is_none());
    assert!(
        response
            .headers
            .keys()
            .all(|name| !name.as_str().contains("limit") && !name.as_str().contains("quota"))
    );
}

#[tokio::test]
async fn the_rate_is_reported_used_up_and_filled_again() {
    let app = app("2026-11-23T10:00:00Z", 3, 0).await;
    let reset = |seconds: u32| format!("Mon, 23 Nov 2026 10:{:02}:{:02} GMT", seconds / 60, seconds % 60);
    for (remaining, full_after_s) in [(2, 20), (1, 40), (0, 60)] {
        let response = app.get("/v1/webhooks").await;
        response.expect(200);
        assert_eq!(rate(&response), Some((3, remaining, reset(full_after_s))));
        assert!(limit(&response, "quota").is_none(), "it has no quota");
    }
    let refused = app.get("/v1/webhooks").await;
    let problem = refused.expect_problem(429, "rate_limit_exceeded");
    assert_eq!(problem["retry_after_seconds"], 20);
    assert_eq!(refused.header("retry-after"), Some("20"));
    assert_eq!(rate(&refused), Some((3, 0, reset(60))));
    create(&app).await.expect_problem(429, "rate_limit_exceeded");
    app.advance(Duration::from_millis(19_999)).await;
    app.get("/v1/webhooks").await.expect_problem(429, "rate_limit_exceeded");
    app.advance(Duration::from_millis(1)).await;
    app.get("/v1/webhooks").await.expect(200);
    app.get("/v1/webhooks").await.expect_problem(429, "rate_limit_exceeded");
    app.advance(Duration::from_mins(10)).await;
    let response = app.get("/v1/webhooks").await;
    assert_eq!(rate(&response).unwrap().1, 2, "no more than a minute's requests gather");
}

#[tokio::test]
async fn errors_tell_of_the_limits_once_the_caller_is_known() {
    let app = app("2026-11-23T10:00:00Z", 100, 100).await;
    let anonymous = app.ask("GET", "/v1/webhooks").anonymous().send().await;
    assert!(rate(&anonymous).is_none() && limit(&anonymous, "quota").is_none());
    let (reader, _) = app.new_token(Some(app.organization), &[Scope::WebhooksRead]).await;
    let responses = [
        app.get(&format!("/v1/webhooks/{}", Uuid::nil())).await,
        app.get("/v1/webhooks/nonsense").await,
        app.get("/v1/webhooks?limit=0").await,
        app.post("/v1/webhooks", &json!({})).await,
        app.ask("POST", "/v1/webhooks")
            .token(&reader)
            .json(&json!({}))
            .send()
            .await,
    ];
    for (used, response) in responses.iter().enumerate() {
        let left = 99 - u32::try_from(used).unwrap();
        assert_eq!(rate(response).unwrap().1, left, "{}", response.status);
        assert_eq!(quota_left(response), 100, "{}", response.status);
    }
    let used_up = self::app("2026-11-23T10:00:00Z", 1, 0).await;
    used_up.get("/v1/webhooks").await.expect(200);
    let (reader, _) = used_up
        .new_token(Some(used_up.organization), &[Scope::WebhooksRead])
        .await;
    let forbidden = used_up.ask("POST", "/v1/webhooks").token(&reader).json(&json!({}));
    forbidden.send().await.expect_problem(403, "forbidden");
    let nobody = used_up
        .ask("GET", "/v1/webhooks")
        .token(&format!("ab_{}", "x".repeat(48)));
    nobody.send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn only_writes_that_are_done_use_the_quota() {
    let app = app("2026-11-23T10:00:00Z", 0, 5).await;
    let created = create(&app).await;
    let path = format!("/v1/webhooks/{}", created.expect(201)["id"].as_str().unwrap());
    let reset = "Tue, 01 Dec 2026 00:00:00 GMT".to_owned();
    assert_eq!(limit(&created, "quota"), Some((5, 4, reset)));
    assert!(rate(&created).is_none(), "it has no rate limit");
    assert_eq!(quota_left(&app.get(&path).await), 4, "a reading is none");
    let stale = app
        .ask("PATCH", &path)
        .header("if-match", "\"0\"")
        .json(&json!({}))
        .send()
        .await;
    stale.expect_problem(412, "precondition_failed");
    assert_eq!(quota_left(&stale), 4, "a refused one is given back");
    let gone = format!("/v1/webhooks/{}", Uuid::nil());
    for refused in [
        app.patch(&path, &json!({ "url": "" })).await,
        app.patch(&gone, &json!({})).await,
        app.delete(&gone).await,
        app.post(&format!("{gone}/test"), &json!({})).await,
        app.post("/v1/events", &json!({ "type": "nope.nope", "data": {} }))
            .await,
    ] {
        assert!(refused.status.is_client_error());
        assert_eq!(quota_left(&refused), 4, "{}", refused.status);
    }
    assert_eq!(quota_left(&app.patch(&path, &json!({ "description": "Lab" })).await), 3);
    app.publish().await;
    assert_eq!(quota_left(&app.post(&format!("{path}/test"), &json!({})).await), 1);
    let deleted = app.delete(&path).await;
    deleted.expect(204);
    assert_eq!(quota_left(&deleted), 0);
    let refused = create(&app).await;
    let problem = refused.expect_problem(429, "quota_exceeded");
    let seconds = (7 * 24 + 14) * 3600;
    assert_eq!(problem["retry_after_seconds"], seconds);
    assert_eq!(refused.header("retry-after").unwrap(), seconds.to_string());
    assert_eq!(quota_left(&refused), 0);
    app.get("/v1/webhooks").await.expect(200);
}

#[tokio::test]
async fn a_write_that_fails_by_our_fault_uses_no_quota() {
    let app = app("2026-11-23T10:00:00Z", 0, 1).await;
    let beside = app.database.connect().await;
    let rename = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to}");
    beside.execute_unprepared(&rename("webhooks", "mislaid")).await.unwrap();
    let failed = create(&app).await;
    failed.expect_problem(500, "internal_error");
    assert_eq!(quota_left(&failed), 1);
    beside.execute_unprepared(&rename("mislaid", "webhooks")).await.unwrap();
    create(&app).await.expect(201);
}

#[tokio::test]
async fn the_quota_is_whole_again_when_the_month_turns() {
    let app = app("2026-12-31T23:59:59Z", 0, 1).await;
    create(&app).await.expect(201);
    let problem = create(&app).await.expect_problem(429, "quota_exceeded");
    assert_eq!(problem["retry_after_seconds"], 1);
    app.advance(Duration::from_millis(999)).await;
    create(&app).await.expect_problem(429, "quota_exceeded");
    app.advance(Duration::from_millis(1)).await;
    assert_eq!(quota_left(&app.get("/v1/webhooks").await), 1);
    let created = create(&app).await;
    created.expect(201);
    assert_eq!(
        limit(&created, "quota"),
        Some((1, 0, "Mon, 01 Feb 2027 00:00:00 GMT".to_owned()))
    );
    create(&app).await.expect_problem(429, "quota_exceeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_at_once_never_overshoot_the_quota() {
    let app = app("2026-11-23T10:00:00Z", 0, 7).await;
    // Every third is invalid, and gives back what it had reserved.
    let asks = (0..30).map(|number| {
        let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
        let missing = format!("/v1/webhooks/{}", Uuid::nil());
        let ask = if number % 3 == 0 {
            app.ask("DELETE", &missing)
        } else {
            app.ask("POST", "/v1/events").json(&body)
        };
        tokio::spawn(ask.send())
    });
    let asks: Vec<_> = asks.collect();
    let mut accepted = 0;
    for ask in asks {
        match ask.await.unwrap().status.as_u16() {
            202 => accepted += 1,
            404 | 429 => {}
            other => panic!("{other}"),
        }
    }
    assert!(accepted <= 7, "{accepted} of 7");
    while app
        .post(
            "/v1/events",
            &json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } }),
        )
        .await
        .status
        == 202
    {
        accepted += 1;
    }
    assert_eq!(accepted, 7, "what was given back can be used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_never_overshoot_the_rate() {
    let app = app("2026-11-23T10:00:00Z", 5, 0).await;
    let asks: Vec<_> = (0..20)
        .map(|_| tokio::spawn(app.ask("GET", "/v1/webhooks").send()))
        .collect();
    let mut admitted = 0;
    for ask in asks {
        admitted += u32::from(ask.await.unwrap().status == 200);
    }
    assert_eq!(admitted, 5);
}

#[tokio::test]
async fn a_platform_token_uses_the_limits_of_the_organization_it_publishes_for() {
    let app = app("2026-11-23T10:00:00Z", 2, 1).await;
    let (platform, _) = app.new_token(None, &[Scope::EventsPublish]).await;
    let publish = || {
        let data = json!({ "job_id": Uuid::new_v4() });
        let body = json!({ "type": "job.completed", "data": data, "org_id": app.organization });
        app.ask("POST", "/v1/events").token(&platform).json(&body).send()
    };
    let first = publish().await;
    first.expect(202);
    assert_eq!((rate(&first).unwrap().1, quota_left(&first)), (1, 0));
    publish().await.expect_problem(429, "quota_exceeded");
    publish().await.expect_problem(429, "rate_limit_exceeded");
    app.get("/v1/webhooks").await.expect_problem(429, "rate_limit_exceeded");
    let (other, _) = app.new_organization().await;
    let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() }, "org_id": other });
    let elsewhere = app.ask("POST", "/v1/events").token(&platform).json(&body).send().await;
    elsewhere.expect(202);
    assert!(rate(&elsewhere).is_none(), "another organization has its own limits");
}

#[tokio::test]
async fn limits_that_change_take_effect_within_five_seconds() {
    let app = app("2026-11-23T10:00:00Z", 1, 0).await;
    app.get("/v1/webhooks").await.expect(200);
    app.get("/v1/webhooks").await.expect_problem(429, "rate_limit_exceeded");
    let change = |rate, quota| organizations::change_limits(&app.db, app.organization, rate, quota);
    change(Some(None), Some(NonZeroU32::new(1))).await.unwrap();
    app.advance(Duration::from_secs(5)).await;
    let created = create(&app).await;
    created.expect(201);
    assert!(rate(&created).is_none());
    create(&app).await.expect_problem(429, "quota_exceeded");
    change(None, Some(NonZeroU32::new(2))).await.unwrap();
    app.advance(Duration::from_secs(5)).await;
    create(&app).await.expect(201);
    change(None, Some(None)).await.unwrap();
    app.advance(Duration::from_secs(5)).await;
    create(&app).await.expect(201);
    assert_eq!(
        change(None, None).await.unwrap(),
        Some(Limits::default()),
        "nothing said changes nothing"
    );
}
