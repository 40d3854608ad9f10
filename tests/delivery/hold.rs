//! Disabling holds pending deliveries; enabling resumes them.

use std::time::Duration;

use serde_json::json;

use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn pending_deliveries_are_held_while_the_webhook_is_disabled() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(500)]).await;
    let path = format!(
        "/v1/webhooks/{}",
        app.webhook(&receiver.url).await["id"].as_str().unwrap()
    );
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    app.patch(&path, &json!({ "enabled": false })).await.expect(200);
    app.advance(Duration::from_hours(1)).await;

    // Another webhook's delivery goes out, so the engine has looked at what is due.
    let other = Receiver::start([]).await;
    app.webhook(&other.url).await;
    let unheard = app.publish().await;
    other.wait_for(1).await;
    let held = app.delivery_of(&event).await;
    assert_eq!(
        (&held["status"], &held["attempt_count"]),
        (&json!("pending"), &json!(1))
    );
    assert_eq!(
        app.get(&format!("/v1/webhook_deliveries?event_id={unheard}"))
            .await
            .expect(200)
            .as_array()
            .unwrap()
            .len(),
        1
    );

    app.patch(&path, &json!({ "enabled": true })).await.expect(200);
    let delivered = app
        .delivery_when(&event, |delivery| delivery["status"] == "delivered")
        .await;
    assert_eq!(delivered["attempt_count"], 2);
    assert_eq!(
        receiver.arrivals().len(),
        2,
        "what was published while it was disabled is not owed to it"
    );
}
