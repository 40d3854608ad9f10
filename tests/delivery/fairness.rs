//! One receiver delays no other.

use serde_json::json;

use crate::support::{App, Gate, Receiver, Reply};

#[tokio::test]
async fn a_slow_receiver_with_a_long_queue_does_not_delay_another() {
    let app = App::builder()
        .arguments(&["--dev", "--attempts-max", "6", "--attempts-per-webhook-max", "3"])
        .patient()
        .start()
        .await;
    // So slow that it answers nothing as long as this test goes on: whoever waits for it waits for ever.
    let gate = Gate::new();
    let slow = Receiver::start((0..30).map(|_| Reply::status(200).held_by(&gate))).await;
    app.post("/v1/webhooks", &json!({ "url": slow.url, "events": ["job.*"] }))
        .await
        .expect(201);
    for _ in 0..20 {
        let job = json!({ "type": "job.failed", "data": { "job_id": "7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11" } });
        app.post("/v1/events", &job).await.expect(202);
    }
    slow.wait_for(3).await;
    let quick = Receiver::start([]).await;
    app.post(
        "/v1/webhooks",
        &json!({ "url": quick.url, "events": ["humanization.*"] }),
    )
    .await
    .expect(201);
    for _ in 0..20 {
        app.publish().await;
    }
    quick.wait_for(20).await;
    assert_eq!(
        slow.arrivals().len(),
        3,
        "no more attempts than the cap are under way for one webhook"
    );
}
