//! The rate limit of a webhook.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{App, Receiver};

#[tokio::test]
async fn no_more_start_each_second_than_the_webhook_takes() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([]).await;
    let body = json!({ "url": receiver.url, "rate_limit": 4 });
    let webhook = app.post("/v1/webhooks", &body).await.expect(201);
    assert_eq!(webhook["rate_limit"], 4);
    for _ in 0..40 {
        app.publish().await;
    }
    let mut expected = 4;
    for _ in 0..3 {
        receiver.wait_for(expected).await;
        app.engine_has_looked().await;
        assert_eq!(
            receiver.arrivals().len(),
            expected,
            "a second's worth at once, and no more"
        );
        // The limiter counts nanoseconds and the engine's clock milliseconds.
        app.advance(Duration::from_millis(501)).await;
        expected += 2;
    }
    // Without a limit the rest goes out at once.
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let webhook = app.patch(&path, &json!({ "rate_limit": 0 })).await.expect(200);
    assert_eq!(webhook.get("rate_limit"), None);
    app.advance(Duration::from_secs(1)).await;
    receiver.wait_for(40).await;
}

#[tokio::test]
async fn a_rate_out_of_bounds_is_refused() {
    let app = App::dev().await;
    for rate in [0, 1001, -1] {
        let body = json!({ "url": "http://127.0.0.1:9/", "rate_limit": rate });
        let problem = app
            .post("/v1/webhooks", &body)
            .await
            .expect_problem(422, "validation_error");
        assert_eq!(problem["errors"][0]["pointer"], "/rate_limit", "{rate}");
    }
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let problem = app
        .patch(&path, &json!({ "rate_limit": 1001 }))
        .await
        .expect_problem(422, "validation_error");
    assert_eq!(problem["errors"][0]["pointer"], "/rate_limit");
    let changed = app.patch(&path, &json!({ "rate_limit": 1000 })).await.expect(200);
    assert_eq!(changed["rate_limit"], 1000);
}

#[tokio::test]
async fn a_whole_number_is_one_in_any_spelling() {
    let app = App::dev().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let spelled = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (text, rate) in [("50.0", json!(50)), ("1e3", json!(1000)), ("-0.0", Value::Null)] {
        let changed = app
            .patch(&path, &json!({ "rate_limit": spelled(text) }))
            .await
            .expect(200);
        assert_eq!(
            changed.get("rate_limit"),
            Some(&rate).filter(|rate| !rate.is_null()),
            "{text}"
        );
    }
    let body = json!({ "rate_limit": 1.5 });
    let problem = app.patch(&path, &body).await.expect_problem(422, "validation_error");
    assert_eq!(problem["errors"][0]["pointer"], "/rate_limit");
}
