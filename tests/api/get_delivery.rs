//! `GET /v1/webhook_deliveries/{delivery_id}`.

use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn a_delivery_is_shown_with_its_payload_and_the_last_response() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(503).body(&"x".repeat(5000))]).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    // A list that is read while an attempt is recorded may show half of it.
    app.after_attempt(&event, 1).await;
    let listed = app.delivery_of(&event).await;
    let path = format!("/v1/webhook_deliveries/{}", listed["id"].as_str().unwrap());
    let shown = app.get(&path).await.expect(200);
    assert_eq!(shown, listed, "as the list shows it");
    assert_eq!(shown["payload"], receiver.arrivals()[0].payload());
    assert_eq!(
        (&shown["webhook_id"], &shown["event_id"]),
        (&webhook["id"], &json!(event))
    );
    assert_eq!(
        (&shown["status"], &shown["error"], &shown["response_status"]),
        (&json!("pending"), &json!("response_status"), &json!(503))
    );
    assert_eq!(
        shown["response_body"],
        "x".repeat(4096),
        "no more than its beginning is kept"
    );
    assert_eq!(shown["delivered_at"], Value::Null);
    assert!(shown["next_attempt_at"].as_str() > shown["created_at"].as_str());
}

#[tokio::test]
async fn another_organization_finds_no_delivery() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.delivery_of(&event).await;
    let (_, token) = app.new_organization().await;
    let path = format!("/v1/webhook_deliveries/{}", delivery["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/attempts")] {
        app.ask("GET", &path)
            .token(&token)
            .send()
            .await
            .expect_problem(404, "not_found");
    }
    assert_eq!(
        app.get("/v1/webhook_deliveries/42").await.expect_faults(),
        ["path/delivery_id"]
    );
}
