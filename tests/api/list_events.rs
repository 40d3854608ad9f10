//! `GET /v1/events`.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use serde_json::json;

use super::{list_webhooks::next, publish_event::event};
use crate::support::App;

#[tokio::test]
async fn events_are_listed_newest_first_and_paged() {
    let app = App::dev().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(app.publish().await);
    }
    made.reverse();
    let (mut seen, mut path) = (Vec::new(), Some("/v1/events?limit=2".to_owned()));
    while let Some(page) = path {
        let answer = app.get(&page).await;
        let events = answer.expect(200);
        seen.extend(
            events
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        path = next(answer.header("link"));
    }
    seen.sort();
    made.sort();
    assert_eq!(seen, made, "each event once, over three pages");
    let older = app
        .get("/v1/events?after=evt_01JBAAAA000000000000000000")
        .await
        .expect(200);
    assert_eq!(older, json!([]), "an id that nobody has still has its place in time");
    app.get("/v1/events?after=evt_8ZZZZZZZZZZZZZZZZZZZZZZZZZ")
        .await
        .expect_problem(400, "bad_request");
}

#[tokio::test]
async fn a_cursor_holds_when_its_event_is_gone_whatever_its_id_says() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    // A publisher's own id may hold any time.
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
