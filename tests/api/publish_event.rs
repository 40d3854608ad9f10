//! `POST /v1/events`.

use serde_json::{Value, json};

use crate::support::{App, Receiver};

const ID: &str = "evt_01JBAAAA000000000000000000";

/// An event whose data has a number that no float holds.
pub(super) fn event() -> Value {
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
    let response = app.post("/v1/events", &event()).await;
    let published = response.expect(202);
    let shown = app.get(response.header("location").unwrap()).await.expect(200);
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
