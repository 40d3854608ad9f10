//! `POST /v1/dashboard_links`. What a link opens is tried in `dashboard`.

use std::time::Duration;

use kallima_webhooks::domain::{timestamp::Timestamp, token::Scope};
use serde_json::json;

use crate::support::App;

#[tokio::test]
async fn a_link_names_this_server_and_lasts_as_long_as_it_was_asked_to() {
    let app = App::builder().manual_clock().start().await;
    for (body, lasts) in [
        (json!({ "access": "read" }), 3600),
        (json!({ "access": "retry", "expires_in_seconds": null }), 3600),
        (json!({ "access": "read", "expires_in_seconds": 60 }), 60),
        (json!({ "access": "read", "expires_in_seconds": 86_400 }), 86_400),
    ] {
        let link = app.post("/v1/dashboard_links", &body).await.expect(201);
        assert_eq!(link["object"], "dashboard_link");
        assert_eq!(link["access"], body["access"]);
        let expires_at = Timestamp::parse(link["expires_at"].as_str().unwrap()).unwrap();
        assert_eq!(expires_at, app.clock.now().plus(Duration::from_secs(lasts)), "{body}");
        let url = link["url"].as_str().unwrap();
        let sealed = url.strip_prefix(&format!("{}/dashboard/link?link=", app.base)).unwrap();
        assert!(
            sealed.len() > 80 && !sealed.contains(&app.token),
            "the link holds no token: {sealed}"
        );
    }
    for seconds in [59, 86_401] {
        let body = json!({ "access": "read", "expires_in_seconds": seconds });
        let refused = app.post("/v1/dashboard_links", &body).await;
        assert_eq!(refused.expect_faults(), ["/expires_in_seconds"]);
    }
}

#[tokio::test]
async fn a_link_gives_no_more_than_its_token_has() {
    let app = App::dev().await;
    let (reader, _) = app.new_token(Some(app.organization), &[Scope::WebhooksRead]).await;
    let ask = |access: &str| {
        let ask = app.ask("POST", "/v1/dashboard_links").token(&reader);
        ask.json(&json!({ "access": access })).send()
    };
    ask("read").await.expect(201);
    let problem = ask("retry").await.expect_problem(403, "forbidden");
    assert!(
        problem["detail"].as_str().unwrap().contains("webhooks:write"),
        "{problem}"
    );
    let refused = app.post("/v1/dashboard_links", &json!({ "access": "full" })).await;
    assert_eq!(refused.expect_faults(), ["/access"], "a link never allows everything");
}

#[tokio::test]
async fn the_same_request_makes_the_same_link() {
    let app = App::dev().await;
    let ask = || {
        let ask = app.ask("POST", "/v1/dashboard_links").header("idempotency-key", "one");
        ask.json(&json!({ "access": "read" })).send()
    };
    let first = ask().await;
    let again = ask().await;
    assert_eq!(first.expect(201), again.expect(201));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}
