//! A lost lease changes nothing, not even if its record shares a transaction with that of the next one.

use std::time::Duration;

use kallima_webhooks::{
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        event_id::EventId,
        health::HealthSignal,
        id::{DeliveryId, LeaseToken},
        outcome::{ErrorWord, Outcome},
    },
    store::queue::{
        finish,
        lease::{Finished, Lease},
        manual::{self, ManualLease},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{App, Receiver, Reply};

const LEASE: Duration = Duration::from_mins(1);

/// Leases a delivery for this long.
async fn take(app: &App, id: DeliveryId, lease: Duration) -> Lease {
    let taken = manual::take(&app.db, app.organization, id, lease, app.clock.now()).await;
    let ManualLease::Leased(lease) = taken.unwrap() else {
        panic!("nobody else has it")
    };
    lease
}

/// The record of an attempt that delivered, or after which the delivery is tried again.
fn finished(app: &App, delivery: &Value, lease: Lease, delivered: bool) -> Finished {
    let now = app.clock.now();
    let (status, outcome) = if delivered {
        (DeliveryStatus::Delivered, Outcome::default())
    } else {
        let error = Some(ErrorWord::Timeout);
        (
            DeliveryStatus::Pending,
            Outcome {
                error,
                ..Outcome::default()
            },
        )
    };
    Finished {
        lease,
        trigger: AttemptTrigger::Automatic,
        event_id: EventId::parse(delivery["event_id"].as_str().unwrap()).unwrap(),
        event_type: delivery["event_type"].as_str().unwrap().to_owned(),
        started_at: now,
        ended_at: now,
        outcome,
        status,
        next_attempt_at: (!delivered).then(|| now.plus(LEASE)),
        signal: None,
        exhausted: false,
    }
}

#[tokio::test]
async fn of_two_records_of_one_delivery_the_holders_counts() {
    let receiver = Receiver::start([Reply::status(500), Reply::status(500)]).await;
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let webhook = app.webhook(&receiver.url).await;
    let webhook = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    for holder_delivers in [true, false] {
        app.patch(&webhook, &json!({ "enabled": true })).await.expect(200);
        let event = app.publish().await;
        let delivery = app.after_attempt(&event, 1).await;
        // The engine ignores it; only the two leases are left.
        app.patch(&webhook, &json!({ "enabled": false })).await.expect(200);
        let id = delivery["id"].as_str().unwrap().parse().unwrap();
        let lost = take(&app, id, LEASE).await;
        app.clock.advance(2 * LEASE);
        let held = take(&app, id, LEASE).await;
        let number = u64::from(held.number);
        let lost = finished(&app, &delivery, lost, !holder_delivers);
        let held = finished(&app, &delivery, held, holder_delivers);
        // Submitted together, they are recorded together.
        let (lost, held) = tokio::join!(finish::finish(&app.db, lost), finish::finish(&app.db, held));
        assert_eq!((lost.unwrap(), held.unwrap()), (false, true));
        let now = app.delivery_of(&event).await;
        let (status, is_planned) = if holder_delivers {
            ("delivered", false)
        } else {
            ("pending", true)
        };
        assert_eq!(
            (&now["status"], &now["attempt_count"]),
            (&json!(status), &json!(number))
        );
        assert_eq!(now["next_attempt_at"].is_string(), is_planned, "{now}");
        let waiting = app
            .get(&format!("/v1/webhook_deliveries?status=pending&event_id={event}"))
            .await
            .expect(200);
        assert_eq!(waiting.as_array().unwrap().len(), usize::from(is_planned));
    }
}

#[tokio::test]
async fn a_record_that_does_not_count_keeps_no_news_back() {
    let receiver = Receiver::start([Reply::status(500)]).await;
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let news = Receiver::start([]).await;
    let subscription = json!({ "url": news.url, "events": ["webhook.*"] });
    app.post("/v1/webhooks", &subscription).await.expect(201);
    // The lease lasts a day, so the engine ignores the delivery.
    let day = Duration::from_hours(24);
    let id = delivery["id"].as_str().unwrap().parse().unwrap();
    let held = take(&app, id, 2 * day).await;
    app.clock.advance(day);
    let lost = Lease {
        token: LeaseToken::new(Uuid::new_v4()),
        ..held.clone()
    };
    // By the first record, which does not count, the webhook would be healthy again, and there would be no event.
    let signed = |lease, sign, delivered| Finished {
        signal: Some(sign),
        ..finished(&app, &delivery, lease, delivered)
    };
    let (lost, held) = (
        signed(lost, HealthSignal::Success, true),
        signed(held, HealthSignal::Failure, false),
    );
    let (lost, held) = tokio::join!(finish::finish(&app.db, lost), finish::finish(&app.db, held));
    assert_eq!((lost.unwrap(), held.unwrap()), (false, true));
    let arrivals = news.wait_for(1).await;
    assert_eq!(arrivals[0].payload()["type"], "webhook.failing");
}
