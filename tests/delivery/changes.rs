//! Changes to a webhook in the middle of a retry sequence: the table of cases.
//!
//! | change | between two attempts | during an attempt |
//! |---|---|---|
//! | secret rotated | the next is signed with the new secret | it keeps the old secret, the next one uses the new |
//! | re-pointed | the next goes to the new address | it ends where it began, the next goes to the new address |
//! | filter narrowed | what is owed stays owed | the same |
//! | disabled | held, and continues when enabled | it ends and counts; what is still owed is held |
//! | deleted | canceled, never attempted again | canceled whatever the response is, never attempted again; its record is kept |

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{App, Gate, Receiver, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Between,
    InProgress,
}

/// A delivery whose first attempt has failed, or is about to.
struct Scene {
    app: App,
    receiver: Receiver,
    /// Holds the first attempt while it must be in progress.
    gate: Gate,
    path: String,
    secret: String,
    event: String,
}

impl Scene {
    async fn start(when: When, first: Reply) -> Self {
        let app = App::builder()
            .arguments(&["--dev"])
            .patient()
            .manual_clock()
            .start()
            .await;
        let gate = Gate::new();
        let receiver = Receiver::start([first.held_by(&gate)]).await;
        if when == When::Between {
            gate.open();
        }
        let webhook = app.webhook(&receiver.url).await;
        let text = |name: &str| webhook[name].as_str().unwrap().to_owned();
        let (path, secret) = (format!("/v1/webhooks/{}", text("id")), text("secret"));
        let event = app.publish().await;
        match when {
            When::Between => drop(app.after_attempt(&event, 1).await),
            When::InProgress => drop(receiver.wait_for(1).await),
        }
        Self {
            app,
            receiver,
            gate,
            path,
            secret,
            event,
        }
    }

    async fn patch(&self, query: &str, body: &Value) -> Value {
        self.app.patch(&format!("{}{query}", self.path), body).await.expect(200)
    }

    /// Lets the first attempt end and the second become due.
    async fn until_second(&self) {
        self.gate.open();
        self.app.after_attempt(&self.event, 1).await;
        self.app.advance(Duration::from_mins(1)).await;
    }

    async fn attempts(&self, delivery: &Value) -> Vec<Value> {
        let path = format!("/v1/webhook_deliveries/{}/attempts", delivery["id"].as_str().unwrap());
        let attempts = self.app.get(&path).await.expect(200);
        attempts.as_array().unwrap().clone()
    }

    async fn delivered(&self) -> Value {
        self.app
            .delivery_when(&self.event, |delivery| delivery["status"] == "delivered")
            .await
    }
}

#[tokio::test]
async fn a_rotated_secret_signs_the_next_attempt() {
    for when in [When::Between, When::InProgress] {
        let scene = Scene::start(when, Reply::status(500)).await;
        let rotated = scene.patch("?rotate_secret=true", &json!({})).await;
        scene.until_second().await;
        scene.delivered().await;
        let arrivals = scene.receiver.arrivals();
        assert_eq!(arrivals.len(), 2, "{when:?}");
        assert!(
            arrivals[0].is_signed_with(&scene.secret),
            "{when:?}: it began with the old one"
        );
        assert!(
            arrivals[1].is_signed_with(rotated["secret"].as_str().unwrap()),
            "{when:?}"
        );
        assert_eq!(arrivals[0].body, arrivals[1].body);
    }
}

#[tokio::test]
async fn a_new_address_gets_the_next_attempt() {
    for when in [When::Between, When::InProgress] {
        let scene = Scene::start(when, Reply::status(500)).await;
        let elsewhere = Receiver::start([]).await;
        scene.patch("", &json!({ "url": elsewhere.url })).await;
        scene.until_second().await;
        scene.delivered().await;
        assert_eq!(
            (scene.receiver.arrivals().len(), elsewhere.arrivals().len()),
            (1, 1),
            "{when:?}"
        );
        assert!(elsewhere.arrivals()[0].is_signed_with(&scene.secret), "{when:?}");
        assert_eq!(elsewhere.arrivals()[0].header("kallima-attempt"), "2", "{when:?}");
    }
}

#[tokio::test]
async fn what_is_owed_stays_owed_when_the_filter_no_longer_wants_it() {
    for when in [When::Between, When::InProgress] {
        let scene = Scene::start(when, Reply::status(500)).await;
        scene.patch("", &json!({ "events": ["job.failed"] })).await;
        scene.until_second().await;
        assert_eq!(scene.delivered().await["attempt_count"], 2, "{when:?}");
    }
}

#[tokio::test]
async fn disabling_holds_what_is_still_owed() {
    for when in [When::Between, When::InProgress] {
        let scene = Scene::start(when, Reply::status(500)).await;
        scene.patch("", &json!({ "enabled": false })).await;
        scene.until_second().await;
        scene.app.engine_has_looked().await;
        let held = scene.app.delivery_of(&scene.event).await;
        assert_eq!(
            (&held["status"], &held["attempt_count"]),
            (&json!("pending"), &json!(1)),
            "{when:?}"
        );
        scene.patch("", &json!({ "enabled": true })).await;
        assert_eq!(scene.delivered().await["attempt_count"], 2, "{when:?}");
    }
}

#[tokio::test]
async fn an_attempt_in_progress_counts_although_the_webhook_is_disabled() {
    let scene = Scene::start(When::InProgress, Reply::status(200)).await;
    scene.patch("", &json!({ "enabled": false })).await;
    scene.gate.open();
    assert_eq!(scene.delivered().await["attempt_count"], 1);
}

#[tokio::test]
async fn deleting_cancels_for_good() {
    for (when, status) in [(When::Between, 500), (When::InProgress, 500), (When::InProgress, 200)] {
        let scene = Scene::start(when, Reply::status(status)).await;
        scene.app.delete(&scene.path).await.expect(204);
        let canceled = scene.app.delivery_of(&scene.event).await;
        assert_eq!(
            (&canceled["status"], &canceled["next_attempt_at"]),
            (&json!("canceled"), &Value::Null)
        );
        scene.gate.open();
        scene.app.advance(Duration::from_hours(100)).await;
        scene.app.engine_has_looked().await;
        let left = scene.app.delivery_of(&scene.event).await;
        assert_eq!(left["status"], "canceled", "{when:?}");
        assert_eq!(scene.receiver.arrivals().len(), 1, "{when:?}: never attempted again");
        let attempts = scene.attempts(&left).await;
        let recorded: Vec<_> = attempts.iter().map(|one| one["response_status"].clone()).collect();
        assert_eq!(recorded, [json!(status)], "{when:?}: the attempt's record is kept");
        assert_eq!(
            (&left["attempt_count"], &left["response_status"]),
            (&json!(1), &json!(status)),
            "{when:?}"
        );
        let retry = format!("/v1/webhook_deliveries/{}/retry", left["id"].as_str().unwrap());
        scene
            .app
            .ask("POST", &retry)
            .send()
            .await
            .expect_problem(409, "conflict");
    }
}

#[tokio::test]
async fn a_delete_during_an_attempt_by_hand_keeps_its_record() {
    for (what, kept) in [("retry", "delivered"), ("test", "canceled")] {
        let scene = Scene::start(When::Between, Reply::status(200)).await;
        let delivery = scene.delivered().await;
        let gate = Gate::new();
        scene.receiver.then(Reply::status(500).held_by(&gate));
        let path = match what {
            "retry" => format!("/v1/webhook_deliveries/{}/retry", delivery["id"].as_str().unwrap()),
            _ => format!("{}/test", scene.path),
        };
        let delete = async {
            scene.receiver.wait_for(2).await;
            scene.app.delete(&scene.path).await.expect(204);
            gate.open();
        };
        let (attempted, ()) = tokio::join!(scene.app.ask("POST", &path).send(), delete);
        let delivery = attempted.expect(200);
        assert_eq!(delivery["status"], kept, "{what}");
        let attempts = scene.attempts(&delivery).await;
        assert_eq!(attempts.last().unwrap()["response_status"], 500, "{what}: {attempts:?}");
        assert_eq!(delivery["attempt_count"], json!(attempts.len()), "{what}");
    }
}

#[tokio::test]
async fn a_retry_by_hand_has_what_is_current_and_replaces_the_planned_one() {
    let scene = Scene::start(When::Between, Reply::status(500)).await;
    let rotated = scene.patch("?rotate_secret=true", &json!({})).await;
    let delivery = scene.app.delivery_of(&scene.event).await;
    let retry = format!("/v1/webhook_deliveries/{}/retry", delivery["id"].as_str().unwrap());
    let retried = scene.app.ask("POST", &retry).send().await.expect(200);
    assert_eq!(
        (&retried["status"], &retried["attempt_count"]),
        (&json!("delivered"), &json!(2))
    );
    scene.app.advance(Duration::from_hours(1)).await;
    scene.app.engine_has_looked().await;
    let arrivals = scene.receiver.arrivals();
    assert_eq!(arrivals.len(), 2, "the planned one is not made");
    assert!(arrivals[1].is_signed_with(rotated["secret"].as_str().unwrap()));
}
