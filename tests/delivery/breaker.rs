//! A receiver that keeps failing is probed, not flooded.

use std::time::Duration;

use kallima_webhooks::domain::health::BREAKER_FAILURES;
use serde_json::Value;

use crate::support::{App, Receiver, Reply, app::eventually};

/// The number of attempts, as soon as there are this many and none is in progress.
async fn attempts_at_rest(app: &App, least: u64) -> u64 {
    eventually(|| async {
        let deliveries = app.get("/v1/webhook_deliveries?limit=200").await.expect(200);
        let deliveries = deliveries.as_array().unwrap();
        let in_progress = |delivery: &Value| delivery["status"] == "pending" && delivery["next_attempt_at"].is_null();
        let attempts = deliveries
            .iter()
            .map(|delivery| delivery["attempt_count"].as_u64().unwrap());
        let attempts: u64 = attempts.sum();
        (attempts >= least && !deliveries.iter().any(in_progress)).then_some(attempts)
    })
    .await
}

/// The events that are owed and were never attempted. Which of those that are due at the same time is attempted first is
/// not promised.
async fn untouched(app: &App) -> Vec<String> {
    let pending = app
        .get("/v1/webhook_deliveries?status=pending&limit=200")
        .await
        .expect(200);
    let pending = pending.as_array().unwrap().iter();
    let untouched = pending.filter(|delivery| delivery["attempt_count"] == 0);
    untouched
        .map(|delivery| delivery["event_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn after_a_run_of_failures_one_probe_at_a_time_goes_out_until_one_succeeds() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let opened = u64::from(BREAKER_FAILURES);
    let receiver = Receiver::start((0..100).map(|_| Reply::status(500))).await;
    app.webhook(&receiver.url).await;
    let mut events = Vec::new();
    for _ in 0..30 {
        events.push(app.publish().await);
    }
    // Attempts that were in progress when the breaker opened are not called back.
    let run = attempts_at_rest(&app, opened).await;
    assert!((opened..opened + 10).contains(&run), "{run} attempts");
    assert_eq!(untouched(&app).await.len() as u64, 30 - run, "each was attempted once");

    let mut seen = run;
    while seen < run + 2 {
        app.advance(Duration::from_secs(5)).await;
        attempts_at_rest(&app, seen + 1).await;
        app.engine_has_looked().await;
        let now = attempts_at_rest(&app, 0).await;
        assert_eq!(now, seen + 1, "one probe, and then a pause");
        seen += 1;
    }
    assert_eq!(receiver.arrivals().len() as u64, seen, "each attempt arrived");
    // The next probe succeeds: everything that is due goes out, without advancing the clock.
    receiver.forget();
    let held = untouched(&app).await;
    assert!(!held.is_empty());
    app.advance(Duration::from_secs(5)).await;
    for event in &held {
        app.delivery_when(event, |delivery| delivery["status"] == "delivered")
            .await;
    }
    app.advance(Duration::from_mins(10)).await;
    for event in &events {
        app.delivery_when(event, |delivery| delivery["status"] == "delivered")
            .await;
    }
}

#[tokio::test]
async fn a_retry_by_hand_passes_an_open_breaker_and_closes_it_by_success() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start((0..10).map(|_| Reply::status(500))).await;
    app.webhook(&receiver.url).await;
    let mut events = Vec::new();
    for _ in 0..10 {
        events.push(app.publish().await);
    }
    for event in &events {
        app.after_attempt(event, 1).await;
    }
    let held = app.publish().await;
    app.engine_has_looked().await;
    let held = app.delivery_of(&held).await;
    assert_eq!(held["attempt_count"], 0, "the breaker is open");
    let retry = format!(
        "/v1/webhook_deliveries/{}/retry",
        app.delivery_of(&events[0]).await["id"].as_str().unwrap()
    );
    assert_eq!(app.ask("POST", &retry).send().await.expect(200)["status"], "delivered");
    app.delivery_when(held["event_id"].as_str().unwrap(), |delivery| {
        delivery["status"] == "delivered"
    })
    .await;
}
