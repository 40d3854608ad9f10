//! Tokens: what is checked first, what a platform token may do, when a use is recorded. `contract::walks` tests on every
//! operation who may do what.

use std::time::Duration;

use kallima_webhooks::{domain::token::Scope, store::tokens};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{App, app::eventually};

#[tokio::test]
async fn authentication_is_decided_before_anything_else_is_checked() {
    let app = App::dev().await;
    let ask = app
        .ask("PATCH", "/v1/webhooks/nonsense?rotate_secret=nonsense")
        .anonymous()
        .text("{nonsense");
    ask.send().await.expect_problem(401, "unauthorized");
}

#[tokio::test]
async fn the_case_of_the_scheme_does_not_matter() {
    let app = App::dev().await;
    let ask = app
        .ask("GET", "/v1/webhooks")
        .anonymous()
        .header("authorization", &format!("bearer {}", app.token));
    ask.send().await.expect(200);
}

#[tokio::test]
async fn a_scheme_that_is_given_twice_is_named_whatever_the_token_is() {
    let app = App::dev().await;
    for token in [app.token.as_str(), "ab_nobody"] {
        for scheme in ["Bearer Bearer ", "bearer  BEARER  "] {
            let header = format!("{scheme}{token}");
            let ask = app
                .ask("GET", "/v1/webhooks")
                .anonymous()
                .header("authorization", &header);
            let refused = ask.send().await.expect_problem(401, "unauthorized");
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.contains("Bearer twice"), "{header:?}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_platform_token_names_whom_the_event_happened_to_and_may_do_nothing_else() {
    let app = App::dev().await;
    let (platform, _) = app.new_token(None, Scope::ALL).await;
    let event = |org: Value| serde_json::json!({ "type": "webhook.test", "data": {}, "org_id": org });
    let publish = |org: Value| app.ask("POST", "/v1/events").token(&platform).json(&event(org)).send();
    let published = publish(app.organization.to_string().into()).await.expect(202);
    app.get(&format!("/v1/events/{}", published["id"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!(publish(Value::Null).await.expect_faults(), ["/org_id"]);
    assert_eq!(
        publish(Uuid::now_v7().to_string().into()).await.expect_faults(),
        ["/org_id"]
    );
    app.ask("GET", "/v1/webhooks")
        .token(&platform)
        .send()
        .await
        .expect_problem(403, "forbidden");
    let (other, _) = app.new_organization().await;
    assert_eq!(
        app.post("/v1/events", &event(other.to_string().into()))
            .await
            .expect_faults(),
        ["/org_id"]
    );
    app.post("/v1/events", &event(app.organization.to_string().into()))
        .await
        .expect(202);
}

#[tokio::test]
async fn the_last_use_of_a_token_is_noted_once_a_minute() {
    let app = App::builder().manual_clock().start().await;
    let (token, id) = app.new_token(Some(app.organization), Scope::ALL).await;
    let last_used_at = async || {
        let all = tokens::list(&app.db).await.unwrap();
        all.into_iter().find(|record| record.id == id).unwrap().last_used_at
    };
    let use_it = async || app.ask("GET", "/v1/webhooks").token(&token).send().await.expect(200);
    assert_eq!(last_used_at().await, None);
    let first = app.clock.now();
    // Many at once count as one use.
    tokio::join!(use_it(), use_it(), use_it(), use_it());
    eventually(|| async { (last_used_at().await == Some(first)).then_some(()) }).await;
    app.advance(Duration::from_secs(59)).await;
    use_it().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        last_used_at().await,
        Some(first),
        "less than a minute later it is not noted"
    );
    // Where tokens are cached for two seconds, it is looked up again by then.
    app.advance(Duration::from_secs(2)).await;
    use_it().await;
    let second = app.clock.now();
    eventually(|| async { (last_used_at().await == Some(second)).then_some(()) }).await;
}
