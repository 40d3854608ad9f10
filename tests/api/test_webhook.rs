//! `POST /v1/webhooks/{webhook_id}/test`.

use kallima_webhooks::contract::Contract;
use serde_json::json;

use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn a_test_is_sent_now_even_when_disabled_or_filtered_out() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let body = json!({ "url": receiver.url, "events": ["job.failed"], "enabled": false });
    let webhook = app.post("/v1/webhooks", &body).await.expect(201);
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    for ask in [app.ask("POST", &path), app.ask("POST", &path).json(&json!({}))] {
        let delivery = ask.send().await.expect(200);
        assert_eq!(
            (&delivery["status"], &delivery["event_type"]),
            (&"delivered".into(), &"webhook.test".into())
        );
        let arrival = receiver.arrivals().pop().unwrap();
        assert_eq!(arrival.payload(), delivery["payload"]);
        assert_eq!(arrival.header("kallima-delivery"), delivery["id"]);
        assert!(arrival.is_signed_with(webhook["secret"].as_str().unwrap()));
        let attempts = app
            .get(&format!(
                "/v1/webhook_deliveries/{}/attempts",
                delivery["id"].as_str().unwrap()
            ))
            .await;
        assert_eq!(attempts.expect(200)[0]["trigger"], "test");
    }
}

#[tokio::test]
async fn every_event_type_can_be_tried_with_its_example() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let path = format!(
        "/v1/webhooks/{}/test",
        app.webhook(&receiver.url).await["id"].as_str().unwrap()
    );
    for event_type in Contract::load().unwrap().event_types() {
        app.post(&path, &json!({ "event_type": event_type.name }))
            .await
            .expect(200);
        let payload = receiver.arrivals().pop().unwrap().payload();
        assert_eq!(
            (&payload["type"], &payload["data"]),
            (&json!(event_type.name), &event_type.example["data"])
        );
        assert_ne!(payload["id"], event_type.example["id"], "an event of its own");
    }
    assert_eq!(
        app.post(&path, &json!({ "event_type": "job.fail" }))
            .await
            .expect_faults(),
        ["/event_type"]
    );
}

#[tokio::test]
async fn whatever_the_receiver_answers_the_test_is_answered_and_not_repeated() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(500).body("no")]).await;
    let path = format!(
        "/v1/webhooks/{}/test",
        app.webhook(&receiver.url).await["id"].as_str().unwrap()
    );
    let delivery = app.ask("POST", &path).send().await.expect(200);
    assert_eq!(delivery["status"], "failed");
    assert_eq!(
        (&delivery["response_status"], &delivery["response_body"]),
        (&500.into(), &"no".into())
    );
    assert_eq!(
        (&delivery["error"], &delivery["next_attempt_at"]),
        (&"response_status".into(), &json!(null))
    );
}
