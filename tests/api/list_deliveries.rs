//! `GET /v1/webhook_deliveries` and `GET /v1/webhook_deliveries/{delivery_id}`.

use kallima_webhooks::{
    domain::outcome::ErrorWord,
    store::deliveries::{self, DeliveryQuery},
};
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use super::list_webhooks::next;
use crate::support::{App, Gate, Receiver, Reply};

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
    for query in [
        "status=lost",
        "limit=201",
        "event_id=x",
        "created_after=yesterday",
        "event_type=%00",
        "webhook_id=1",
    ] {
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
        ("status=pending&event_type=job.canceled".to_owned(), 0),
    ] {
        let (mut page, mut seen) = (Some(format!("/v1/webhook_deliveries?{query}")), Vec::new());
        while let Some(path) = page {
            let answer = app.get(&path).await;
            page = next(answer.header("link"));
            let list = answer.expect(200);
            let ids = list.as_array().unwrap().iter();
            seen.extend(ids.map(|delivery| delivery["id"].as_str().unwrap().to_owned()));
        }
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
    // Asked of the store: the words that openapi.yaml lists are those of this version.
    let (db, org) = (&app.db, app.organization);
    let found = deliveries::list(db, org, &DeliveryQuery::default(), None).await;
    assert_eq!(found.unwrap()[0].error, Some(ErrorWord::Unknown));
    let id = failed["id"].as_str().unwrap().parse().unwrap();
    let attempts = deliveries::attempts(db, org, id, 0, 10).await.unwrap();
    assert_eq!(attempts[0].error, Some(ErrorWord::Unknown));
}
