//! The retry policy, seen from outside. `domain::retry` tests its table.

use std::time::Duration;

use kallima_webhooks::domain::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply};

const HOUR: Duration = Duration::from_hours(1);

async fn app() -> App {
    App::builder().arguments(&["--dev"]).manual_clock().start().await
}

fn instant(value: &Value) -> Timestamp {
    Timestamp::parse(value.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn the_schedule_is_kept_to_its_end_and_never_undercut() {
    let app = app().await;
    let receiver = Receiver::start((0..10).map(|_| Reply::status(500))).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    for (number, delay_s) in (1..).zip([5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]) {
        let delivery = app.after_attempt(&event, number).await;
        let wait = instant(&delivery["next_attempt_at"]).since(app.clock.now());
        let delay = Duration::from_secs(delay_s);
        assert!(
            wait >= delay && wait <= delay + delay / 10,
            "after attempt {number}: {wait:?} of {delay:?}"
        );
        app.advance(wait.saturating_sub(Duration::from_millis(1))).await;
        app.engine_has_looked().await;
        let early = app.delivery_of(&event).await;
        assert_eq!(early["attempt_count"], number, "not a millisecond early");
        app.advance(Duration::from_millis(1)).await;
    }
    let delivery = app.after_attempt(&event, 10).await;
    assert_eq!(
        (&delivery["status"], &delivery["error"]),
        (&json!("failed"), &json!("response_status"))
    );
    let arrivals = receiver.arrivals();
    assert!(
        arrivals
            .iter()
            .all(|arrival| arrival.is_signed_with(webhook["secret"].as_str().unwrap()))
    );
    assert!(
        arrivals.iter().all(|arrival| arrival.body == arrivals[0].body),
        "the same bytes on every attempt"
    );
    let times: Vec<&str> = arrivals
        .iter()
        .map(|arrival| arrival.header("webhook-timestamp"))
        .collect();
    assert!(
        times.windows(2).all(|pair| pair[0] < pair[1]),
        "t is the time of the attempt: {times:?}"
    );
}

#[tokio::test]
async fn retry_after_is_respected_where_it_means_something() {
    let app = app().await;
    for (status, header, least, most) in [
        (429, "120", Duration::from_mins(2), Duration::from_mins(2)),
        (503, "1", Duration::from_secs(5), Duration::from_millis(5500)),
        (502, "99999999", 24 * HOUR, 24 * HOUR),
        (
            504,
            "Thu, 23 Apr 2026 12:00:00 GMT",
            Duration::from_secs(7000),
            2 * HOUR,
        ),
        (503, "-5", Duration::from_secs(5), Duration::from_millis(5500)),
        (500, "120", Duration::from_secs(5), Duration::from_millis(5500)),
    ] {
        let receiver = Receiver::start([Reply::status(status).header("retry-after", header)]).await;
        let webhook = app.webhook(&receiver.url).await;
        let event = app.publish().await;
        let delivery = app.after_attempt(&event, 1).await;
        let wait = instant(&delivery["next_attempt_at"]).since(app.clock.now());
        assert!(
            (least..=most).contains(&wait),
            "{status} with Retry-After {header}: {wait:?}"
        );
        app.delete(&format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap()))
            .await
            .expect(204);
    }
}

#[tokio::test]
async fn gone_ends_it_and_disables_the_webhook() {
    let app = app().await;
    let receiver = Receiver::start([Reply::status(410)]).await;
    let path = format!(
        "/v1/webhooks/{}",
        app.webhook(&receiver.url).await["id"].as_str().unwrap()
    );
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    assert_eq!(
        (&delivery["status"], &delivery["response_status"]),
        (&json!("failed"), &json!(410))
    );
    let webhook = app.get(&path).await.expect(200);
    assert_eq!(
        (&webhook["enabled"], &webhook["disabled_reason"]),
        (&json!(false), &json!("gone"))
    );
    let enabled = app.patch(&path, &json!({ "enabled": true })).await.expect(200);
    assert!(
        enabled.get("disabled_reason").is_none(),
        "enabling it again clears the reason"
    );
}

#[tokio::test]
async fn five_days_of_failures_without_a_success_disable_the_webhook() {
    // No retry interferes: the next one is due in a year.
    let a_year = &["--dev", "--retry-schedule-s", "31536000"];
    let app = App::builder().arguments(a_year).manual_clock().start().await;
    let receiver = Receiver::start([]).await;
    let path = format!(
        "/v1/webhooks/{}",
        app.webhook(&receiver.url).await["id"].as_str().unwrap()
    );
    let enabled_after = async |status: u16| {
        receiver.then(Reply::status(status));
        let event = app.publish().await;
        app.delivery_when(&event, |delivery| delivery["response_status"] == status)
            .await;
        app.get(&path).await.expect(200)["enabled"].as_bool().unwrap()
    };
    assert!(enabled_after(500).await);
    app.advance(119 * HOUR).await;
    assert!(
        enabled_after(500).await && enabled_after(200).await,
        "a success in time"
    );
    app.advance(2 * HOUR).await;
    assert!(
        enabled_after(500).await,
        "the days are counted from the first failure after it"
    );
    app.advance(120 * HOUR).await;
    assert!(!enabled_after(500).await, "five days without a success");
    assert_eq!(app.get(&path).await.expect(200)["disabled_reason"], "failing");
    let enabled = app.patch(&path, &json!({ "enabled": true })).await.expect(200);
    assert!(enabled.get("disabled_reason").is_none());
    assert!(enabled_after(500).await, "and the days are counted from zero");
}
