//! `POST /v1/webhook_deliveries/{delivery_id}/retry`.

use std::{pin::pin, time::Duration};

use serde_json::{Value, json};

use crate::support::{App, Gate, Receiver, Reply};

async fn retry(app: &App, delivery: &Value) -> Value {
    let path = format!("/v1/webhook_deliveries/{}/retry", delivery["id"].as_str().unwrap());
    app.ask("POST", &path).send().await.expect(200)
}

#[tokio::test]
async fn a_retry_replaces_the_pending_one_and_may_follow_a_success() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([
        Reply::status(500),
        Reply::status(502),
        Reply::status(204),
        Reply::status(500),
    ])
    .await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let pending = app.after_attempt(&event, 1).await;
    let again = retry(&app, &pending).await;
    assert_eq!(
        (&again["status"], &again["attempt_count"]),
        (&"pending".into(), &2.into())
    );
    assert!(
        again["next_attempt_at"].as_str() > pending["next_attempt_at"].as_str(),
        "the schedule goes on from it"
    );
    app.advance(Duration::from_secs(6)).await;
    let delivered = retry(&app, &again).await;
    assert_eq!(
        (&delivered["status"], &delivered["attempt_count"]),
        (&"delivered".into(), &3.into())
    );
    let after = retry(&app, &delivered).await;
    assert_eq!(
        (&after["status"], &after["response_status"]),
        (&"delivered".into(), &500.into()),
        "once is enough"
    );
    assert_eq!(after["delivered_at"], delivered["delivered_at"]);
    assert_eq!(after["next_attempt_at"], Value::Null);

    let attempts = app
        .get(&format!(
            "/v1/webhook_deliveries/{}/attempts",
            after["id"].as_str().unwrap()
        ))
        .await
        .expect(200);
    let seen: Vec<Value> = attempts
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| json!([attempt["number"], attempt["trigger"], attempt["response_status"]]))
        .collect();
    assert_eq!(
        seen,
        [
            json!([1, "automatic", 500]),
            json!([2, "manual", 502]),
            json!([3, "manual", 204]),
            json!([4, "manual", 500])
        ]
    );
}

#[tokio::test]
async fn two_attempts_of_one_delivery_are_never_in_progress_together() {
    let app = App::builder().arguments(&["--dev"]).patient().start().await;
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200), Reply::status(200).held_by(&gate)]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app
        .delivery_when(&event, |delivery| delivery["status"] == "delivered")
        .await;
    let path = format!("/v1/webhook_deliveries/{}/retry", delivery["id"].as_str().unwrap());
    let (mut one, mut other) = (pin!(app.ask("POST", &path).send()), pin!(app.ask("POST", &path).send()));
    // The receiver responds to the one that is attempted only after the other is refused.
    let (first, left) = tokio::select! {
        response = &mut one => (response, other),
        response = &mut other => (response, one),
    };
    first.expect_problem(409, "conflict");
    receiver.wait_for(2).await;
    gate.open();
    left.await.expect(200);
    assert_eq!(receiver.arrivals().len(), 2);
    assert_eq!(app.post(&path, &json!({ "x": 1 })).await.expect_faults(), ["/x"]);
}
