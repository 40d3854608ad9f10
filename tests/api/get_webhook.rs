//! `GET /v1/webhooks/{webhook_id}`.

use serde_json::json;

use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn a_webhook_is_shown_as_it_was_created_and_as_the_list_shows_it_without_its_secret() {
    let app = App::dev().await;
    let body = json!({
        "url": "http://127.0.0.1:9/one", "events": ["job.*"], "enabled": false, "description": "Lab", "rate_limit": 5,
    });
    let created = app.post("/v1/webhooks", &body).await;
    let mut expected = created.expect(201);
    expected.as_object_mut().unwrap().remove("secret").unwrap();
    let shown = app.get(created.header("location").unwrap()).await;
    assert_eq!(shown.expect(200), expected);
    assert_eq!(shown.header("etag"), created.header("etag"));
    assert_eq!(app.get("/v1/webhooks").await.expect(200), json!([expected]));
}

#[tokio::test]
async fn why_the_service_disabled_a_webhook_is_shown_until_it_is_enabled() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(410)]).await;
    let webhook = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    assert!(webhook.get("disabled_reason").is_none());
    let event = app.publish().await;
    app.delivery_when(&event, |delivery| delivery["status"] == "failed")
        .await;
    let gone = app.get(&path).await.expect(200);
    assert_eq!(
        (&gone["enabled"], &gone["disabled_reason"]),
        (&json!(false), &json!("gone"))
    );
    app.patch(&path, &json!({ "enabled": true })).await.expect(200);
    assert!(app.get(&path).await.expect(200).get("disabled_reason").is_none());
}
