//! `/v1/events`.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::list_webhooks::next;
use crate::support::{App, Receiver};

const ID: &str = "evt_01JBAAAA000000000000000000";

fn event() -> Value {
    json!({ "type": "job.completed", "data": { "job_id": "7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11", "x": 12_345_678_901_234_567_890_u64 } })
}

#[tokio::test]
async fn an_event_is_owed_to_the_webhooks_that_want_it() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let hook = |events: Value, enabled: bool| json!({ "url": receiver.url, "events": events, "enabled": enabled });
    let mut wanting = Vec::new();
    for (body, wants) in [
        (hook(Value::Null, true), true),
        (hook(json!(["job.*"]), true), true),
        (hook(json!(["job.completed", "job.failed"]), true), true),
        (hook(json!(["job.failed"]), true), false),
        (hook(json!(["humanization.*"]), true), false),
        (hook(Value::Null, false), false),
    ] {
        let id = app.post("/v1/webhooks", &body).await.expect(201)["id"]
            .as_str()
            .unwrap()
            .to_owned();
        wanting.extend(wants.then_some(id));
    }
    let answer = app.post("/v1/events", &event()).await;
    let published = answer.expect(202);
    let shown = app.get(answer.header("location").unwrap()).await.expect(200);
    let mut owed: Vec<&str> = shown["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| delivery["webhook_id"].as_str().unwrap())
        .collect();
    owed.sort_unstable();
    assert_eq!(owed, wanting);
    let arrivals = receiver.wait_for(3).await;
    assert!(
        arrivals.iter().all(|arrival| arrival.payload() == published),
        "what was answered is what is sent"
    );
    assert!(
        String::from_utf8_lossy(&arrivals[0].body).contains("12345678901234567890"),
        "numbers are kept as written"
    );
}

#[tokio::test]
async fn the_same_event_twice_is_one_event() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    app.webhook(&receiver.url).await;
    let mut body = event();
    body["id"] = ID.into();
    let (one, other) = tokio::join!(app.post("/v1/events", &body), app.post("/v1/events", &body));
    assert_eq!(one.expect(202), other.expect(202));
    assert_eq!(app.post("/v1/events", &body).await.expect(202)["id"], ID);
    body["data"]["x"] = 1.into();
    app.post("/v1/events", &body).await.expect_problem(409, "conflict");
    app.delivery_when(ID, |delivery| delivery["status"] == "delivered")
        .await;
    assert_eq!(receiver.arrivals().len(), 1);
    let (_, token) = app.new_organization().await;
    app.ask("POST", "/v1/events")
        .token(&token)
        .json(&body)
        .send()
        .await
        .expect(202);
}

#[tokio::test]
async fn what_the_catalog_does_not_know_is_refused() {
    let app = App::dev().await;
    for (body, faults) in [
        (json!({}), vec!["/type", "/data"]),
        (json!({ "type": "job.complete", "data": {} }), vec!["/type"]),
        (json!({ "type": "job.completed", "data": {} }), vec!["/data/job_id"]),
        (
            json!({ "type": "job.completed", "data": { "job_id": 5 }, "id": "evt_1" }),
            vec!["/id", "/data/job_id"],
        ),
        (json!({ "type": "job.completed", "data": [] }), vec!["/data"]),
    ] {
        assert_eq!(app.post("/v1/events", &body).await.expect_faults(), faults, "{body}");
    }
}

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
    let older = app.get(&format!("/v1/events?after={ID}")).await.expect(200);
    assert_eq!(older, json!([]), "an id that nobody has still has its place in time");
    app.get("/v1/events?after=evt_8ZZZZZZZZZZZZZZZZZZZZZZZZZ")
        .await
        .expect_problem(400, "bad_request");
    app.get(&format!("/v1/events/{ID}"))
        .await
        .expect_problem(404, "not_found");
    assert_eq!(app.get("/v1/events/evt_x").await.expect_faults(), ["path/event_id"]);
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

#[tokio::test]
async fn an_event_shows_its_deliveries_without_its_payload_as_many_as_there_is_room_for() {
    let arguments = ["--dev", "--page-bytes-max", "2000"];
    let app = App::builder().arguments(&arguments).start().await;
    let receiver = Receiver::start([]).await;
    for _ in 0..5 {
        app.webhook(&receiver.url).await;
    }
    let mut body = event();
    body["data"]["text"] = "x".repeat(500).into();
    let published = app.post("/v1/events", &body).await.expect(202);
    let id = published["id"].as_str().unwrap();
    receiver.wait_for(5).await;
    let answer = app.get(&format!("/v1/events/{id}")).await;
    assert!(answer.body.len() < 2500, "{} bytes", answer.body.len());
    let mut shown = answer.expect(200);
    let deliveries = shown.as_object_mut().unwrap().remove("deliveries").unwrap();
    assert_eq!(shown, published);
    let ids = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|delivery| delivery["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut seen = ids(&deliveries);
    assert!((1..5).contains(&seen.len()), "{deliveries}");
    assert!(
        deliveries
            .as_array()
            .unwrap()
            .iter()
            .all(|delivery| delivery.get("payload").is_none())
    );
    let mut page = next(answer.header("link"));
    while let Some(path) = page {
        let answer = app.get(&path).await;
        page = next(answer.header("link"));
        seen.extend(ids(&answer.expect(200)));
    }
    assert_eq!(seen.len(), 5, "the rest is behind the link: {seen:?}");
    assert!(
        seen.is_sorted_by(|newer, older| newer > older),
        "newest first, each once"
    );
}
