//! No receiver delays another, and no organization delays another.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use kallima_webhooks::{
    delivery::lanes::{LaneLimits, Lanes, Now, Step},
    domain::{
        delivery::DeliveryStatus,
        event_id::EventId,
        id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::queue::lease::{Grant, Lease, Leased, Message},
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{App, Gate, Receiver, Reply};

#[tokio::test]
async fn a_slow_receiver_with_a_long_queue_does_not_delay_another() {
    let app = App::builder()
        .arguments(&["--dev", "--attempts-max", "6", "--attempts-per-webhook-max", "3"])
        .patient()
        .start()
        .await;
    // So slow that it does not respond as long as this test runs: whoever waits for it waits forever.
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
        "no more attempts than the cap are in progress for one webhook"
    );
}

#[tokio::test]
async fn slow_receivers_of_one_organization_leave_attempts_to_another() {
    let app = App::builder()
        .arguments(&["--dev", "--attempts-max", "8", "--attempts-per-webhook-max", "4"])
        .patient()
        .start()
        .await;
    let gate = Gate::new();
    let slow = Receiver::start((0..40).map(|_| Reply::status(200).held_by(&gate))).await;
    for _ in 0..3 {
        app.webhook(&slow.url).await;
    }
    for _ in 0..10 {
        app.publish().await;
    }
    // Three webhooks could have four attempts each; alone, the organization gets all that the node allows.
    slow.wait_for(8).await;
    let other = app.new_organization().await.1;
    let quick = Receiver::start([]).await;
    let post = |path: &str, body| app.ask("POST", path).token(&other).json(&body).send();
    post("/v1/webhooks", json!({ "url": quick.url })).await.expect(201);
    for number in 1..=10 {
        let event = json!({ "type": "webhook.test", "data": {} });
        post("/v1/events", event).await.expect(202);
        quick.wait_for(number).await;
    }
    assert_eq!(slow.arrivals().len(), 8, "all, and nothing of the reserve");
}

/// This many deliveries of one webhook.
fn leased(organization_id: OrganizationId, webhook_id: WebhookId, count: usize, payload: &Bytes) -> Vec<Leased> {
    let message = Arc::new(Message {
        event_id: EventId::from_uuid(Uuid::nil()),
        event_type: "job.failed".to_owned(),
        payload: payload.clone(),
        traceparent: None,
    });
    let one = |_| Leased {
        lease: Lease {
            organization_id,
            delivery_id: DeliveryId::new(Uuid::new_v4()),
            webhook_id,
            token: LeaseToken::NIL,
            number: 1,
        },
        until: Timestamp::from_millis(0),
        message: Arc::clone(&message),
        status: DeliveryStatus::Pending,
        schedule_start: 0,
        grant: Grant::Plain,
    };
    (0..count).map(one).collect()
}

#[test]
fn deliveries_of_one_organization_leave_room_in_memory_for_another() {
    let [busy, other] = [1, 2].map(|number| OrganizationId::new(Uuid::from_u128(number)));
    let webhook = |number| WebhookId::new(Uuid::from_u128(number));
    let both = HashSet::from([busy, other]);
    let full = |lanes: &Lanes| lanes.full(&[busy, other]).unwrap().organizations;
    // So many deliveries fill what may wait, and so do so many bytes.
    for (webhooks, each, payload_bytes) in [(100, 82, 2), (257, 1, 256 * 1024)] {
        let mut lanes = Lanes::new(LaneLimits {
            attempts_max: 512,
            per_webhook_max: 10,
            lease_needed: Duration::ZERO,
        });
        let payload = Bytes::from(vec![b' '; payload_bytes]);
        assert!(lanes.room(busy, webhook(1000)) > 0);
        for number in 0..webhooks {
            lanes.offer(
                leased(busy, webhook(number), each, &payload),
                Vec::new(),
                Duration::ZERO,
            );
        }
        assert_eq!(lanes.room(busy, webhook(1000)), 0, "{payload_bytes}");
        assert!(
            lanes.room(other, webhook(1001)) > 0,
            "{payload_bytes}: the reserve is for others"
        );
        assert_eq!(
            full(&lanes),
            HashSet::from([busy]),
            "{payload_bytes}: what others publish is leased at once"
        );
        let reserve = 8192 / 8 / (if payload_bytes > 2 { 16 } else { 1 });
        lanes.offer(
            leased(other, webhook(1001), reserve, &payload),
            Vec::new(),
            Duration::ZERO,
        );
        assert_eq!(lanes.room(other, webhook(1002)), 0, "{payload_bytes}: it is used up");
        assert_eq!(full(&lanes), both, "{payload_bytes}");
        lanes.drain();
        assert!(lanes.room(busy, webhook(1000)) > 0);
        assert!(full(&lanes).is_empty());
    }
}

/// A claim that leases more than fits would have to release it, repeatedly.
#[test]
fn no_more_is_claimed_than_fits_and_only_where_that_is_worth_a_claim() {
    let [busy, other] = [1, 2].map(|number| OrganizationId::new(Uuid::from_u128(number)));
    let webhook = |number| WebhookId::new(Uuid::from_u128(number));
    let payload = Bytes::from_static(b"{}");
    let mut lanes = Lanes::new(LaneLimits {
        attempts_max: 512,
        per_webhook_max: 10,
        lease_needed: Duration::ZERO,
    });
    let offer = |lanes: &mut Lanes, organization, number, count| {
        let leased = leased(organization, webhook(number), count, &payload);
        lanes.offer(leased, Vec::new(), Duration::ZERO);
    };
    // Nothing is known about these receivers: each lane holds ten permits' worth, plus what those finish in 250 ms at 20 ms each.
    let whole = lanes.room(busy, webhook(1));
    assert_eq!(whole, 10 + 10 * 12);
    offer(&mut lanes, busy, 1, whole);
    lanes.set_behind(busy, webhook(1), true);
    assert!(lanes.is_well_filled(webhook(1)), "a claim for it would be a small one");
    offer(&mut lanes, busy, 2, 8192 - whole - 20);
    lanes.set_behind(busy, webhook(3), true);
    assert_eq!(lanes.room_for(busy), 20);
    assert_eq!(
        lanes.room(busy, webhook(3)),
        20,
        "not more than all lanes together have room for"
    );
    assert!(!lanes.is_well_filled(webhook(3)), "its permits are idle");
    offer(&mut lanes, busy, 3, 20);
    assert_eq!(lanes.room_for(busy), 0);
    assert_eq!(lanes.low(), [], "nothing can be leased for it");
    assert_eq!(lanes.room_for(other), 8192 / 8, "the reserve");
    offer(&mut lanes, other, 4, 1000);
    assert_eq!(lanes.room(other, webhook(5)), 24);
}

#[test]
fn what_arrives_at_once_beyond_what_may_wait_is_given_back() {
    let [busy, other] = [1, 2].map(|number| OrganizationId::new(Uuid::from_u128(number)));
    let webhook = |number| WebhookId::new(Uuid::from_u128(number));
    let mut lanes = Lanes::new(LaneLimits {
        attempts_max: 512,
        per_webhook_max: 10,
        lease_needed: Duration::ZERO,
    });
    // Like publications that are leased in one transaction: none of them has seen the others in the lanes.
    let burst = leased(busy, webhook(1), 12_000, &Bytes::from_static(b"{}"));
    lanes.offer(burst, Vec::new(), Duration::ZERO);
    assert_eq!(lanes.load().waiting, 8192);
    assert!(lanes.room(other, webhook(2)) > 0, "the reserve is for others");
    let now = Now {
        monotonic: Duration::ZERO,
        time: Timestamp::from_millis(0),
    };
    let Some(Step::Release(leases)) = lanes.next(now, false) else {
        panic!("what does not fit is given back first");
    };
    assert_eq!(leases.len(), 12_000 - 8192);
    assert!(lanes.next(now, false).is_none(), "once");
    lanes.drain();
    assert_eq!(
        lanes.low(),
        [(busy, webhook(1))],
        "more is due than the lane had room for"
    );
}
