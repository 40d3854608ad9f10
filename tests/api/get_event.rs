//! `GET /v1/events/{event_id}`.

use super::publish_event::event;
use crate::support::{
    App, Receiver,
    pages::{next, pages, texts},
};

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
    let response = app.get(&format!("/v1/events/{id}")).await;
    assert!(response.body.len() < 2500, "{} bytes", response.body.len());
    let mut shown = response.expect(200);
    let deliveries = shown.as_object_mut().unwrap().remove("deliveries").unwrap();
    assert_eq!(shown, published);
    let mut seen = texts(&[deliveries.as_array().unwrap().clone()], "id");
    assert!((1..5).contains(&seen.len()), "{deliveries}");
    assert!(
        deliveries
            .as_array()
            .unwrap()
            .iter()
            .all(|delivery| delivery.get("payload").is_none())
    );
    let rest = pages(&app, &next(response.header("link")).unwrap()).await;
    seen.extend(texts(&rest, "id"));
    assert_eq!(seen.len(), 5, "the rest is behind the link: {seen:?}");
    assert!(
        seen.is_sorted_by(|newer, older| newer > older),
        "newest first, each once"
    );
}

#[tokio::test]
async fn an_event_that_is_not_there_and_an_id_that_is_none() {
    let app = App::dev().await;
    app.get("/v1/events/evt_01JBAAAA000000000000000000")
        .await
        .expect_problem(404, "not_found");
    assert_eq!(app.get("/v1/events/evt_x").await.expect_faults(), ["path/event_id"]);
    let event = app.publish().await;
    let (_, token) = app.new_organization().await;
    app.ask("GET", &format!("/v1/events/{event}"))
        .token(&token)
        .send()
        .await
        .expect_problem(404, "not_found");
}
