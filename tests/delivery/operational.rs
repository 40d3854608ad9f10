//! The events by which the service notifies an organization about its webhooks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply, app::eventually};

const DAY: Duration = Duration::from_hours(24);

/// A webhook that gets jobs, and a receiver that gets only the service's own events.
struct Scene {
    app: App,
    failing: Receiver,
    webhook: String,
    news: Receiver,
}

/// Registers a webhook whose filter has these entries, and returns its id.
async fn naming(app: &App, receiver: &Receiver, events: &[&str]) -> String {
    let body = json!({ "url": receiver.url, "events": events });
    let webhook = app.post("/v1/webhooks", &body).await.expect(201);
    webhook["id"].as_str().unwrap().to_owned()
}

impl Scene {
    async fn of(failing: impl IntoIterator<Item = Reply>) -> Self {
        let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
        let failing = Receiver::start(failing).await;
        // Its filter names operational events, so it would get those about itself if any webhook did.
        let webhook = naming(&app, &failing, &["humanization.*", "webhook.*", "webhook_delivery.*"]).await;
        let news = Receiver::start([]).await;
        naming(&app, &news, &["webhook.*", "webhook_delivery.*"]).await;
        Self {
            app,
            failing,
            webhook,
            news,
        }
    }

    /// Publishes an event whose first attempt fails, and waits for that.
    async fn fail_once(&self) {
        let before = self.failing.arrivals().len();
        let event = self.app.publish().await;
        self.failing.wait_for(before + 1).await;
        self.app.after_attempt(&event, 1).await;
    }

    /// The operational events so far, each as its type and its data.
    async fn news(&self, count: usize) -> Vec<(String, Value)> {
        let arrivals = self.news.wait_for(count).await;
        assert_eq!(arrivals.len(), count, "no more than expected: {arrivals:?}");
        let said = |payload: Value| (payload["type"].as_str().unwrap().to_owned(), payload["data"].clone());
        arrivals.iter().map(|arrival| said(arrival.payload())).collect()
    }

    async fn patch(&self, body: &Value) -> Value {
        self.app
            .patch(&format!("/v1/webhooks/{}", self.webhook), body)
            .await
            .expect(200)
    }
}

#[tokio::test]
async fn days_of_failure_are_announced_end_in_disabling_and_so_is_recovery() {
    let scene = Scene::of((0..6).map(|_| Reply::status(500))).await;
    let began = scene.app.clock.now();
    // A retry would fail beside each new delivery; this test is not about the schedule.
    scene.fail_once().await;
    scene.app.advance(Duration::from_hours(23)).await;
    let received = |count: usize, kind: &'static str| {
        let scene = &scene;
        async move {
            let (last, data) = scene.news(count).await.pop().unwrap();
            assert_eq!(last, kind);
            assert_eq!(data["webhook_id"], scene.webhook.as_str());
            data
        }
    };
    // Everything fails by now, the retries of the first too.
    for _ in 0..60 {
        scene.failing.then(Reply::status(500));
    }
    scene.app.advance(Duration::from_hours(1)).await;
    scene.fail_once().await;
    let failing = received(1, "webhook.failing").await;
    assert_eq!(failing["failing_since"], began.to_string());
    assert_eq!(failing["disabled_after"], began.plus(5 * DAY).to_string());
    scene.app.advance(2 * DAY).await;
    let event = scene.app.publish().await;
    received(2, "webhook.failing").await;
    scene.app.after_attempt(&event, 1).await;
    scene.app.advance(2 * DAY).await;
    scene.app.publish().await;
    let disabled = received(3, "webhook.disabled").await;
    assert_eq!(disabled["disabled_reason"], "failing");
    assert_eq!(disabled["failing_since"], began.to_string());
    let webhook = scene
        .app
        .get(&format!("/v1/webhooks/{}", scene.webhook))
        .await
        .expect(200);
    assert_eq!(
        (&webhook["enabled"], &webhook["disabled_reason"]),
        (&json!(false), &json!("failing"))
    );

    // What was in progress when the webhook was disabled fails, too, before it is enabled.
    scene.app.at_rest().await;
    scene.failing.forget();
    let webhook = scene.patch(&json!({ "enabled": true })).await;
    assert_eq!(webhook.get("disabled_reason"), None);
    scene.app.publish().await;
    received(4, "webhook.recovered").await;
    let own = scene.failing.arrivals();
    let types: Vec<Value> = own.iter().map(|arrival| arrival.payload()["type"].clone()).collect();
    assert!(
        types.iter().all(|kind| kind == "humanization.completed"),
        "not notified about itself: {types:?}"
    );
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_announced_at_once() {
    let scene = Scene::of([Reply::status(410)]).await;
    scene.app.publish().await;
    let (kind, data) = scene.news(1).await.pop().unwrap();
    assert_eq!(kind, "webhook.disabled");
    assert_eq!(
        data,
        json!({ "webhook_id": scene.webhook, "disabled_reason": "gone", "failing_since": null })
    );
}

#[tokio::test]
async fn a_delivery_whose_schedule_is_used_up_is_announced_and_the_news_of_it_ends_in_silence() {
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "1"])
        .manual_clock()
        .start()
        .await;
    // Two webhooks that fail whatever they get: each would be notified about the other's failures forever.
    let (first, second) = (Receiver::start([]).await, Receiver::start([]).await);
    for receiver in [&first, &second] {
        for _ in 0..20 {
            receiver.then(Reply::status(500));
        }
        naming(&app, receiver, &["humanization.*", "webhook_delivery.exhausted"]).await;
    }
    // It wants all events, but does not name operational ones.
    let all = Receiver::start([]).await;
    app.webhook(&all.url).await;
    let job = app.publish().await;
    let done = |delivery: &Value| delivery["status"] != "pending";
    let exhausted = eventually(|| async {
        // Never while an attempt is in progress: its lease would end by the same clock.
        if let Some(due) = app.next_due().await {
            app.clock.advance(due.since(app.clock.now()));
        }
        let deliveries = app.get("/v1/webhook_deliveries").await.expect(200);
        // The job and the operational event about the other, to each of the two; and the job to the third.
        let all = deliveries.as_array().unwrap();
        if all.len() < 5 || !all.iter().all(done) {
            return None;
        }
        let events = app.get("/v1/events").await.expect(200);
        let news = events
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["id"] != job.as_str());
        Some(news.cloned().collect::<Vec<Value>>())
    })
    .await;
    assert_eq!(all.arrivals().len(), 1, "the job alone");
    assert_eq!(
        exhausted.len(),
        2,
        "nobody is notified about operational events that did not arrive: {exhausted:?}"
    );
    for news in &exhausted {
        assert_eq!(news["type"], "webhook_delivery.exhausted");
        let data = &news["data"];
        assert_eq!(
            (&data["event_id"], &data["event_type"]),
            (&json!(job), &json!("humanization.completed"))
        );
        assert_eq!(
            (&data["attempt_count"], &data["error"], &data["response_status"]),
            (&json!(2), &json!("response_status"), &json!(500))
        );
        assert_eq!(data["exhausted_count"], 1);
        let delivered = app.delivery_of(news["id"].as_str().unwrap()).await;
        assert_ne!(delivered["webhook_id"], data["webhook_id"]);
        assert_eq!(
            (&delivered["status"], &delivered["attempt_count"]),
            (&json!("failed"), &json!(2))
        );
    }
}

#[tokio::test]
async fn deliveries_that_fail_for_good_are_announced_once_an_hour_with_their_number() {
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "1"])
        .manual_clock()
        .start()
        .await;
    let failing = Receiver::start((0..8).map(|_| Reply::status(500))).await;
    naming(&app, &failing, &["humanization.*"]).await;
    let news = Receiver::start([]).await;
    naming(&app, &news, &["webhook_delivery.*"]).await;
    let fail = async || {
        let job = app.publish().await;
        app.delivery_in_time(&job, |delivery| delivery["status"] == "failed")
            .await;
        job
    };
    let first = fail().await;
    let (second, third) = (fail().await, fail().await);
    app.advance(Duration::from_hours(1)).await;
    let fourth = fail().await;
    let arrivals = news.wait_for(2).await;
    app.at_rest().await;
    assert_eq!(
        news.arrivals().len(),
        2,
        "nothing is said of {second} and {third} alone"
    );
    let said = |number: usize| {
        let data = arrivals[number].payload()["data"].clone();
        (data["exhausted_count"].clone(), data["event_id"].clone())
    };
    assert_eq!(said(0), (json!(1), json!(first)));
    assert_eq!(
        said(1),
        (json!(3), json!(fourth)),
        "those without an event of their own are counted"
    );
}

#[tokio::test]
async fn nobody_but_the_service_publishes_them() {
    let app = App::dev().await;
    let body = json!({ "type": "webhook.recovered", "data": { "webhook_id": uuid::Uuid::nil() } });
    let problem = app
        .post("/v1/events", &body)
        .await
        .expect_problem(422, "validation_error");
    assert_eq!(
        (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
        (&json!("/type"), &json!("reserved_event_type"))
    );
}
