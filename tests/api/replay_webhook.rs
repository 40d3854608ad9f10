//! POST `/v1/webhooks/{webhook_id}/replay`

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply};

struct Scene {
    app: App,
    receiver: Receiver,
    path: String,
    began: String,
}

impl Scene {
    /// Three deliveries that failed for good an hour apart, and one that was delivered.
    async fn start() -> (Self, Vec<String>) {
        let app = App::builder()
            .arguments(&["--dev", "--retry-schedule-s", "1"])
            .manual_clock()
            .start()
            .await;
        let receiver = Receiver::start([]).await;
        let webhook = app.webhook(&receiver.url).await;
        let path = format!("/v1/webhooks/{}/replay", webhook["id"].as_str().unwrap());
        let began = app.clock.now().to_string();
        let mut events = Vec::new();
        for _ in 0..3 {
            for _ in 0..2 {
                receiver.then(Reply::status(500));
            }
            let event = app.publish().await;
            app.after_attempt(&event, 1).await;
            app.advance(Duration::from_secs(2)).await;
            app.delivery_when(&event, |delivery| delivery["status"] == "failed")
                .await;
            events.push(event);
            app.advance(Duration::from_hours(1)).await;
        }
        let event = app.publish().await;
        app.delivery_when(&event, |delivery| delivery["status"] == "delivered")
            .await;
        events.push(event);
        app.advance(Duration::from_secs(1)).await;
        let scene = Self {
            app,
            receiver,
            path,
            began,
        };
        (scene, events)
    }

    async fn replay(&self, body: Value) -> Value {
        self.app.post(&self.path, &body).await.expect(202)
    }
}

#[tokio::test]
async fn what_failed_since_an_instant_is_delivered_with_a_new_schedule() {
    let (scene, events) = Scene::start().await;
    let dry = scene.replay(json!({ "since": scene.began, "dry_run": true })).await;
    assert_eq!(
        (&dry["count"], &dry["dry_run"], &dry["status"]),
        (&json!(3), &json!(true), &json!("failed"))
    );
    assert_eq!(
        scene.app.delivery_of(&events[0]).await["status"],
        "failed",
        "nothing changed"
    );

    // The first attempt of the new schedule fails, and is followed by another: the old one had none left.
    scene.receiver.then(Reply::status(500));
    let before = scene.receiver.arrivals().len();
    let replay = scene.replay(json!({ "since": scene.began })).await;
    assert_eq!(
        (&replay["count"], &replay["until"]),
        (&json!(3), &json!(scene.app.clock.now()))
    );
    scene.receiver.wait_for(before + 3).await;
    for event in &events[..3] {
        let delivered = |delivery: &Value| delivery["status"] == "delivered";
        let delivery = scene.app.delivery_in_time(event, delivered).await;
        assert!(delivery["attempt_count"].as_u64().unwrap() >= 3, "{delivery}");
        let path = format!("/v1/webhook_deliveries/{}/attempts", delivery["id"].as_str().unwrap());
        let attempts = scene.app.get(&path).await.expect(200);
        let numbers: Vec<u64> = attempts
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| attempt["number"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (1..=delivery["attempt_count"].as_u64().unwrap()).collect();
        assert_eq!(numbers, expected, "the numbers go on");
    }
    assert_eq!(
        scene.replay(json!({ "since": scene.began })).await["count"],
        0,
        "nothing is left to replay"
    );
}

#[tokio::test]
async fn the_span_and_the_status_narrow_it() {
    let (scene, events) = Scene::start().await;
    let second = scene.app.delivery_of(&events[1]).await["created_at"].clone();
    let third = scene.app.delivery_of(&events[2]).await["created_at"].clone();
    let count = |body: Value| {
        let scene = &scene;
        async move { scene.replay(body).await["count"].as_u64().unwrap() }
    };
    assert_eq!(count(json!({ "since": second, "dry_run": true })).await, 2);
    assert_eq!(
        count(json!({ "since": second, "until": third, "dry_run": true })).await,
        1
    );
    assert_eq!(
        count(json!({ "since": scene.began, "status": "delivered", "dry_run": true })).await,
        1
    );
    let before = scene.receiver.arrivals().len();
    assert_eq!(count(json!({ "since": scene.began, "status": "delivered" })).await, 1);
    let arrivals = scene.receiver.wait_for(before + 1).await;
    assert_eq!(
        arrivals[before].payload()["id"],
        events[3].as_str(),
        "the receiver gets it again"
    );
    let again = scene
        .app
        .delivery_when(&events[3], |delivery| {
            delivery["attempt_count"] == 2 && delivery["status"] == "delivered"
        })
        .await;
    assert!(again["delivered_at"].is_string());
}

#[tokio::test]
async fn a_disabled_webhook_holds_what_is_replayed() {
    let (scene, events) = Scene::start().await;
    let webhook = scene.path.trim_end_matches("/replay");
    scene.app.patch(webhook, &json!({ "enabled": false })).await.expect(200);
    let before = scene.receiver.arrivals().len();
    assert_eq!(scene.replay(json!({ "since": scene.began })).await["count"], 3);
    scene.app.engine_has_looked().await;
    assert_eq!(scene.app.delivery_of(&events[0]).await["status"], "pending");
    assert_eq!(scene.receiver.arrivals().len(), before);
    scene.app.patch(webhook, &json!({ "enabled": true })).await.expect(200);
    scene.receiver.wait_for(before + 3).await;
}

#[tokio::test]
async fn a_span_that_ends_before_it_begins_is_refused() {
    let app = App::dev().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{}/replay", webhook["id"].as_str().unwrap());
    for body in [
        json!({ "since": "2099-01-01T00:00:00+00:00" }),
        json!({ "since": "2026-01-02T00:00:00+00:00", "until": "2026-01-01T00:00:00+00:00" }),
    ] {
        let problem = app.post(&path, &body).await.expect_problem(422, "validation_error");
        assert_eq!(problem["errors"][0]["pointer"], "/since", "{body}");
    }
    let problem = app
        .post(&path, &json!({}))
        .await
        .expect_problem(422, "validation_error");
    assert_eq!(problem["errors"][0]["pointer"], "/since");
}
