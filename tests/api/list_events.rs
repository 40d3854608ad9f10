//! `GET /v1/events`.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use serde_json::json;

use kallima_webhooks::store::deliveries::LOOKED_AT_MAX;

use super::publish_event::event;
use crate::support::{
    App, history,
    pages::{lengths, next, pages, texts},
};

#[tokio::test]
async fn events_are_listed_newest_first_and_paged() {
    let app = App::dev().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(app.publish().await);
    }
    made.reverse();
    let mut seen = texts(&pages(&app, "/v1/events?limit=2").await, "id");
    seen.sort();
    made.sort();
    assert_eq!(seen, made, "each event once, over three pages");
    let older = app
        .get("/v1/events?after=evt_01JBAAAA000000000000000000")
        .await
        .expect(200);
    assert_eq!(older, json!([]), "an id that nothing has still has its time");
    let none = app.get("/v1/events?after=evt_8ZZZZZZZZZZZZZZZZZZZZZZZZZ").await;
    assert_eq!(none.expect_faults(), ["query/after"]);
}

#[tokio::test]
async fn a_cursor_holds_when_its_event_is_gone_whatever_its_id_says() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    // A publisher's own id may contain any time.
    let (before, after) = ("evt_00000000000000000000000001", "evt_7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    let mut made = Vec::new();
    for id in [None, Some(before), Some(after), None] {
        let mut body = event();
        body["id"] = id.into();
        let published = app.post("/v1/events", &body).await.expect(202);
        made.insert(0, published["id"].as_str().unwrap().to_owned());
        app.clock.advance(Duration::from_millis(1));
    }
    let mut links = Vec::new();
    for (limit, last) in [(2, after), (3, before)] {
        let page = app.get(&format!("/v1/events?limit={limit}")).await;
        assert_eq!(page.expect(200)[limit - 1]["id"], last);
        links.extend(next(page.header("link")));
    }
    let beside = app.database.connect().await;
    let prune = format!("DELETE FROM events WHERE id IN ('{before}', '{after}')");
    beside.execute_unprepared(&prune).await.unwrap();
    for link in links {
        let events = app.get(&link).await.expect(200);
        let seen: Vec<&str> = events
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        assert_eq!(seen, made[3..], "{link}");
    }
}

#[tokio::test]
async fn events_of_one_type_are_found_in_pages_of_a_bounded_cost() {
    // Old history that retention must not delete.
    let app = App::builder()
        .arguments(&["--dev", "--retention-days", "0"])
        .start()
        .await;
    let beside = app.database.connect().await;
    let count = 2 * LOOKED_AT_MAX + 1;
    history::deliveries(&beside, app.organization, count).await;
    // Only the oldest one is of another type, further down than a page looks.
    let rare = pages(&app, "/v1/events?type=job.failed").await;
    assert_eq!(
        (lengths(&rare), texts(&rare, "type")),
        (vec![0, 0, 1], vec!["job.failed".to_owned()])
    );
    let others = pages(&app, "/v1/events?type=job.completed&limit=200").await;
    let types = texts(&others, "type");
    assert_eq!((types.len() as u64, others.len()), (count - 1, 20));
    assert!(types.iter().all(|found| found == "job.completed"));
    let none = pages(&app, "/v1/events?type=webhook.test").await;
    assert_eq!(lengths(&none).iter().sum::<usize>(), 0);
    let first = app.get("/v1/events?type=job.completed&limit=2").await;
    let link = first.header("link").unwrap();
    assert!(link.contains("type=job.completed&limit=2&after=evt_"), "{link}");
}
