//! One receiver delays no other.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{App, Receiver, Reply};

/// A receiver that is much slower than anything else in this test.
const SLOW: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_slow_receiver_with_a_long_queue_does_not_delay_another() {
    let app = App::builder()
        .arguments(&["--dev", "--attempts-max", "6", "--attempts-per-webhook-max", "3"])
        .start()
        .await;
    let slow = Receiver::start((0..30).map(|_| Reply::status(200).after(SLOW))).await;
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
    let begun = Instant::now();
    for _ in 0..20 {
        app.publish().await;
    }
    quick.wait_for(20).await;
    assert!(
        begun.elapsed() < SLOW,
        "the others did not wait for it: {:?}",
        begun.elapsed()
    );
    assert_eq!(
        slow.arrivals().len(),
        3,
        "no more attempts than the cap are under way for one webhook"
    );
}
