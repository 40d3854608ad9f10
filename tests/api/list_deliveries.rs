//! `GET /v1/webhook_deliveries`.

use std::time::Duration;

use kallima_webhooks::store::deliveries::LOOKED_AT_MAX;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    App, Gate, Receiver, Reply, history,
    pages::{lengths, next, pages, texts},
};

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(410)]).await;
    let gone = app.webhook(&receiver.url).await["id"].as_str().unwrap().to_owned();
    let first = app.publish().await;
    let failed = app
        .delivery_when(&first, |delivery| delivery["status"] == "failed")
        .await;
    let works = app.webhook(&receiver.url).await["id"].as_str().unwrap().to_owned();
    let second = app.publish().await;
    let delivered = app
        .delivery_when(&second, |delivery| delivery["status"] == "delivered")
        .await;
    let (both, none) = (vec![second.clone(), first.clone()], Vec::<String>::new());
    let (one, two) = (vec![first.clone()], vec![second.clone()]);
    let (early, late) = (
        failed["created_at"].as_str().unwrap(),
        delivered["created_at"].as_str().unwrap(),
    );
    for (query, expected) in [
        (String::new(), &both),
        (format!("webhook_id={gone}"), &one),
        (format!("webhook_id={works}"), &two),
        ("status=failed".to_owned(), &one),
        ("status=delivered".to_owned(), &two),
        ("status=pending".to_owned(), &none),
        ("event_type=humanization.completed".to_owned(), &both),
        ("event_type=job.failed".to_owned(), &none),
        (format!("event_id={second}"), &two),
        (format!("created_after={late}"), &two),
        (format!("created_before={}", late.replace('+', "%2B")), &one),
        (
            format!("created_after={early}&created_before={late}&status=failed"),
            &one,
        ),
        (format!("after={}", delivered["id"].as_str().unwrap()), &one),
    ] {
        let list = app.get(&format!("/v1/webhook_deliveries?{query}")).await.expect(200);
        let seen: Vec<&str> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|delivery| delivery["event_id"].as_str().unwrap())
            .collect();
        assert_eq!(seen, *expected, "{query}");
    }
    let page = app.get("/v1/webhook_deliveries?limit=1").await;
    let rest = app.get(&next(page.header("link")).unwrap()).await;
    assert_eq!(
        (rest.expect(200)[0]["id"].clone(), rest.header("link")),
        (failed["id"].clone(), None)
    );
    let alone: Value = app
        .get(&format!("/v1/webhook_deliveries/{}", failed["id"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!(alone, failed);
    for query in ["status=lost", "status=unknown", "limit=201", "created_after=yesterday"] {
        app.get(&format!("/v1/webhook_deliveries?{query}"))
            .await
            .expect_problem(400, "bad_request");
    }
}

#[tokio::test]
async fn what_waits_is_listed_page_by_page_however_much_it_is() {
    const EACH: u64 = 250;
    let app = App::builder().arguments(&["--dev"]).patient().start().await;
    let gate = Gate::new();
    let receiver = Receiver::start((0..40).map(|_| Reply::status(200).held_by(&gate))).await;
    let webhook = app.webhook(&receiver.url).await["id"].as_str().unwrap().to_owned();
    app.webhook(&receiver.url).await;
    for event_type in ["job.completed", "job.failed"] {
        app.publish_at_once(EACH, event_type).await;
    }
    for (query, expected) in [
        ("status=pending&limit=200".to_owned(), 4 * EACH),
        (format!("status=pending&limit=200&webhook_id={webhook}"), 2 * EACH),
        ("status=pending&limit=150&event_type=job.completed".to_owned(), 2 * EACH),
        ("status=pending&event_type=webhook.test".to_owned(), 0),
    ] {
        let seen = texts(&pages(&app, &format!("/v1/webhook_deliveries?{query}")).await, "id");
        assert_eq!(seen.len() as u64, expected, "{query}");
        assert!(
            seen.is_sorted_by(|newer, older| newer > older),
            "newest first, each once"
        );
    }
    gate.open();
}

#[tokio::test]
async fn a_word_of_a_newer_version_is_read_as_unknown() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(410)]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let failed = app
        .delivery_when(&event, |delivery| delivery["status"] == "failed")
        .await;
    let beside = app.database.connect().await;
    for table in ["deliveries", "attempts"] {
        let newer = format!("UPDATE {table} SET error = 'sunspots'");
        beside.execute_unprepared(&newer).await.unwrap();
    }
    let id = failed["id"].as_str().unwrap();
    let error = async |path: &str| {
        let response = app.get(path).await.expect(200);
        response.as_array().map_or(&response, |list| &list[0])["error"].clone()
    };
    for path in [
        "/v1/webhook_deliveries".to_owned(),
        format!("/v1/webhook_deliveries/{id}"),
        format!("/v1/webhook_deliveries/{id}/attempts"),
    ] {
        assert_eq!(error(&path).await, "unknown", "{path}");
    }
    let shown = app.get(&format!("/v1/events/{event}")).await.expect(200);
    assert_eq!(shown["deliveries"][0]["error"], "unknown");
}

#[tokio::test]
async fn what_is_rare_is_looked_for_in_pages_of_a_bounded_cost() {
    // Old history that retention must not delete.
    let app = App::builder()
        .arguments(&["--dev", "--retention-days", "0"])
        .start()
        .await;
    let beside = app.database.connect().await;
    // Only the oldest one is of another type, and has failed.
    let count = 2 * LOOKED_AT_MAX + 1;
    let webhook = history::deliveries(&beside, app.organization, count).await;
    let oldest = app.get("/v1/webhook_deliveries?event_type=job.failed").await;
    assert_eq!(oldest.expect(200), json!([]), "it is further down than a page looks");
    for query in [
        "event_type=job.failed".to_owned(),
        format!("event_type=job.failed&webhook_id={webhook}"),
        "event_type=job.failed&status=delivered".to_owned(),
        "event_type=job.failed&created_after=2020-01-01T00:00:00Z&limit=1".to_owned(),
    ] {
        let found = pages(&app, &format!("/v1/webhook_deliveries?{query}")).await;
        assert_eq!(lengths(&found), [0, 0, 1], "{query}");
    }
    // What an index alone can find is on the first page.
    for query in [
        "status=failed",
        "status=canceled",
        "status=pending",
        "event_type=job.failed&status=pending",
    ] {
        let lengths = lengths(&pages(&app, &format!("/v1/webhook_deliveries?{query}")).await);
        assert_eq!(lengths, [0], "{query}");
    }
    let found = pages(&app, "/v1/webhook_deliveries?status=delivered&limit=200").await;
    let ids = texts(&found, "id");
    assert_eq!((found.len() as u64, ids.len() as u64), (count.div_ceil(200), count));
    assert!(
        ids.is_sorted_by(|newer, older| newer > older),
        "newest first, each once"
    );
}

#[tokio::test]
async fn a_page_ends_where_its_bytes_do() {
    let app = App::builder()
        .arguments(&["--dev", "--page-bytes-max", "20000"])
        .manual_clock()
        .start()
        .await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    for length in [9_000, 9_000, 30_000, 100] {
        let data = json!({ "job_id": Uuid::new_v4(), "text": "x".repeat(length) });
        let event = json!({ "type": "job.completed", "data": data });
        app.post("/v1/events", &event).await.expect(202);
        app.clock.advance(Duration::from_millis(1));
    }
    receiver.wait_for(4).await;
    for list in ["/v1/webhook_deliveries", "/v1/events"] {
        assert_eq!(lengths(&pages(&app, list).await), [1, 1, 2], "{list}");
        let single = pages(&app, &format!("{list}?limit=1")).await;
        assert_eq!(lengths(&single), [1, 1, 1, 1], "{list}");
    }
}

#[tokio::test]
async fn texts_count_as_they_are_written() {
    const BYTES_MAX: usize = 100_000;
    let arguments = ["--dev", "--page-bytes-max", &BYTES_MAX.to_string()];
    let app = App::builder().arguments(&arguments).start().await;
    // Six bytes each as JSON.
    let receiver = Receiver::start((0..6).map(|_| Reply::status(200).body(&"\u{1}".repeat(4096)))).await;
    app.webhook(&receiver.url).await;
    for _ in 0..6 {
        let event = app.publish().await;
        app.delivery_when(&event, |delivery| delivery["status"] == "delivered")
            .await;
    }
    let response = app.get("/v1/webhook_deliveries").await;
    assert!(response.body.len() <= BYTES_MAX, "{}", response.body.len());
    assert_eq!(response.expect(200).as_array().unwrap().len(), 3);
    assert_eq!(lengths(&pages(&app, "/v1/webhook_deliveries").await), [3, 3]);
}

#[tokio::test]
async fn a_cursor_holds_when_its_delivery_is_gone() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    for _ in 0..4 {
        let event = app.publish().await;
        app.delivery_when(&event, |delivery| delivery["status"] == "delivered")
            .await;
    }
    let ids = texts(&pages(&app, "/v1/webhook_deliveries").await, "id");
    let first = app.get("/v1/webhook_deliveries?limit=2").await;
    let beside = app.database.connect().await;
    for prune in [
        "DELETE FROM attempts",
        "DELETE FROM deliveries WHERE id <> (SELECT id FROM deliveries ORDER BY id LIMIT 1)",
    ] {
        beside.execute_unprepared(prune).await.unwrap();
    }
    let rest = texts(&pages(&app, &next(first.header("link")).unwrap()).await, "id");
    assert_eq!(rest, ids[3..], "it continues where it was");
}
