//! Retention: old rows are deleted, pending deliveries stay, and publishing continues.

use std::{cell::Cell, collections::HashSet, time::Duration};

use kallima_webhooks::{
    domain::id::DeliveryId,
    store::{
        queue::manual::{self, ManualLease},
        upkeep::retention::{self, Pruned},
    },
};
use serde_json::json;

use crate::support::{App, Receiver, Reply, app::eventually};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn what_is_old_goes_and_what_is_owed_stays() {
    let (well, failing) = (Receiver::start([]).await, Receiver::start([Reply::status(500)]).await);
    let app = app().await;
    app.webhook(&well.url).await;
    let done = app.publish().await;
    app.delivery_when(&done, |delivery| delivery["status"] == "delivered")
        .await;
    let held = app.webhook(&failing.url).await;
    let owed = app.publish().await;
    let webhook = format!("/v1/webhooks/{}", held["id"].as_str().unwrap());
    let deliveries = || async {
        app.get(&format!("/v1/webhook_deliveries?event_id={owed}"))
            .await
            .expect(200)
    };
    eventually(|| async {
        let deliveries = deliveries().await;
        let attempted =
            |delivery: &serde_json::Value| delivery["status"] == "delivered" || delivery["response_status"] == 500;
        deliveries.as_array().unwrap().iter().all(attempted).then_some(())
    })
    .await;
    app.patch(&webhook, &json!({ "enabled": false })).await.expect(200);

    app.advance(30 * DAY).await;
    assert_eq!(
        prune(&app, 30 * DAY).await,
        Pruned::default(),
        "nothing is older than 30 days yet"
    );
    let new = app.publish().await;
    app.delivery_when(&new, |delivery| delivery["status"] == "delivered")
        .await;
    app.advance(Duration::from_millis(1)).await;
    let expected = Pruned {
        events: 1,
        deliveries: 2,
        audit_entries: 3,
    };
    assert_eq!(
        prune(&app, 30 * DAY).await,
        expected,
        "an event, its delivery, and the finished one of another"
    );
    let event = |id: &str| app.ask("GET", &format!("/v1/events/{id}")).send();
    event(&done).await.expect_problem(404, "not_found");
    event(&new).await.expect(200);
    event(&owed).await.expect(200);
    let left = deliveries().await;
    assert_eq!(
        (left.as_array().unwrap().len(), &left[0]["status"]),
        (1, &"pending".into())
    );
    assert_eq!(prune(&app, 30 * DAY).await, Pruned::default());

    // Once it is enabled again, even the oldest delivery is made; then that event is deleted, too.
    app.patch(&webhook, &json!({ "enabled": true })).await.expect(200);
    app.after_attempt(&owed, 2).await;
    assert_eq!(
        prune(&app, 30 * DAY).await,
        Pruned {
            events: 1,
            deliveries: 1,
            audit_entries: 0,
        }
    );
    event(&owed).await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn more_than_a_batch_goes_whoever_prunes() {
    let receiver = Receiver::start([]).await;
    let app = app().await;
    app.webhook(&receiver.url).await;
    let count = 300;
    app.publish_at_once(count, "job.completed").await;
    eventually(|| async {
        let pending = app
            .get("/v1/webhook_deliveries?status=pending&limit=1")
            .await
            .expect(200);
        (pending == json!([])).then_some(())
    })
    .await;
    app.advance(DAY).await;
    let (first, second) = tokio::join!(prune(&app, DAY / 2), prune(&app, DAY / 2));
    let third = prune(&app, DAY / 2).await;
    let sum = |part: fn(&Pruned) -> u64| [first, second, third].iter().map(part).sum::<u64>();
    assert_eq!(
        (sum(|pruned| pruned.events), sum(|pruned| pruned.deliveries)),
        (count, count)
    );
}

/// After this many events the next test gives up: none was pruned while they were published.
const PUBLISHED_MAX: usize = 5_000;

#[tokio::test]
async fn a_retry_whose_node_died_keeps_its_delivery_until_the_lease_ends() {
    const LEASE: Duration = Duration::from_hours(1);
    let receiver = Receiver::start([]).await;
    let app = app().await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app
        .delivery_when(&event, |delivery| delivery["status"] == "delivered")
        .await;
    let id: DeliveryId = delivery["id"].as_str().unwrap().parse().unwrap();
    app.advance(DAY).await;
    let taken = manual::take(&app.db, app.organization, id, LEASE, app.clock.now()).await;
    assert!(matches!(taken.unwrap(), ManualLease::Leased(lease) if lease.number == 2));
    let pruned = prune(&app, DAY / 2).await;
    assert_eq!((pruned.events, pruned.deliveries), (0, 0));
    app.clock.advance(2 * LEASE);
    let pruned = prune(&app, DAY / 2).await;
    assert_eq!((pruned.events, pruned.deliveries), (1, 1));
}

#[tokio::test]
async fn nothing_is_lost_when_pruning_meets_publishing() {
    let receiver = Receiver::start([]).await;
    let app = App::builder()
        .arguments(&["--dev", "--retention-days", "0"])
        .start()
        .await;
    for _ in 0..2 {
        app.webhook(&receiver.url).await;
    }
    // Publishes until some have been pruned, however slow either is.
    let pruned = Cell::new(0);
    let publishing = async {
        let mut published = HashSet::new();
        while published.len() < 150 || pruned.get() == 0 {
            assert!(
                published.len() < PUBLISHED_MAX,
                "none was pruned while others were published"
            );
            published.insert(app.publish().await);
        }
        published
    };
    let pruning = async {
        loop {
            let batch = prune(&app, Duration::from_millis(50)).await;
            pruned.set(pruned.get() + batch.events);
        }
    };
    let published = tokio::select! {
        published = publishing => published,
        () = pruning => unreachable!("it goes on until the publishing ends"),
    };
    eventually(|| async {
        let arrivals = receiver.arrivals();
        let arrived: HashSet<_> = arrivals
            .iter()
            .map(|arrival| arrival.header("webhook-id").to_owned())
            .collect();
        (arrived == published && arrivals.len() >= 2 * published.len()).then_some(())
    })
    .await;
}

async fn prune(app: &App, keep: Duration) -> Pruned {
    retention::prune(&app.db, &app.clock, keep).await.unwrap()
}

/// A service that prunes only on demand.
async fn app() -> App {
    App::builder()
        .arguments(&["--dev", "--retention-days", "0"])
        .manual_clock()
        .start()
        .await
}
