//! `GET /v1/webhook_deliveries/{delivery_id}`.

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply, database::TestDatabase};

#[tokio::test]
async fn a_delivery_is_shown_with_its_payload_and_the_last_response() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(503).body(&"x".repeat(5000))]).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let listed = app.delivery_of(&event).await;
    let path = format!("/v1/webhook_deliveries/{}", listed["id"].as_str().unwrap());
    let shown = app.get(&path).await.expect(200);
    assert_eq!(shown, listed, "as the list shows it");
    assert_eq!(shown["payload"], receiver.arrivals()[0].payload());
    assert_eq!(
        (&shown["webhook_id"], &shown["event_id"]),
        (&webhook["id"], &json!(event))
    );
    assert_eq!(
        (&shown["status"], &shown["error"], &shown["response_status"]),
        (&json!("pending"), &json!("response_status"), &json!(503))
    );
    assert_eq!(
        shown["response_body"],
        "x".repeat(4096),
        "no more than its beginning is kept"
    );
    assert_eq!(shown["delivered_at"], Value::Null);
    assert!(shown["next_attempt_at"].as_str() > shown["created_at"].as_str());
}

/// Records attempts as fast as it can while others read, and gives each a response by its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_shown_with_its_response_or_not_at_all() {
    const READS: usize = 300;
    let database = TestDatabase::fleeting().await;
    let app = App::builder()
        .arguments(&["--dev"])
        .manual_clock()
        .start_on(database)
        .await;
    let receiver = Receiver::start([Reply::status(503)]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let beside = app.database.connect().await;
    let record = async |number: u64| {
        let (count, status) = (format!("attempt_count = {number}"), 100 + number);
        let script = format!(
            "BEGIN; UPDATE deliveries SET {count}, response_status = {status}; UPDATE queue SET {count}; COMMIT"
        );
        beside.execute_unprepared(&script).await.unwrap();
    };
    record(1).await;
    let path = format!("/v1/webhook_deliveries/{}", delivery["id"].as_str().unwrap());
    let event_path = format!("/v1/events/{event}");
    let recording = async {
        for number in (2..400).cycle() {
            record(number).await;
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        for _ in 0..READS {
            let one = app.get(&path);
            let some = app.get("/v1/webhook_deliveries?status=pending");
            let all = app.get("/v1/webhook_deliveries");
            let of_event = app.get(&event_path);
            let (one, some, all, of_event) = tokio::join!(one, some, all, of_event);
            let (some, all, of_event) = (some.expect(200), all.expect(200), of_event.expect(200));
            for shown in [&one.expect(200), &some[0], &all[0], &of_event["deliveries"][0]] {
                let number = shown["attempt_count"].as_u64().unwrap();
                assert_eq!(shown["response_status"], 100 + number, "{shown}");
            }
        }
    };
    tokio::select! {
        () = recording => {}
        () = reading => {}
    }
}

#[tokio::test]
async fn another_organization_finds_no_delivery() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.delivery_of(&event).await;
    let (_, token) = app.new_organization().await;
    let path = format!("/v1/webhook_deliveries/{}", delivery["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/attempts")] {
        app.ask("GET", &path)
            .token(&token)
            .send()
            .await
            .expect_problem(404, "not_found");
    }
    assert_eq!(
        app.get("/v1/webhook_deliveries/42").await.expect_faults(),
        ["path/delivery_id"]
    );
}
