use std::num::NonZeroU32;

use kallima_webhooks::domain::limits::Limits;
use serde_json::json;

use super::{Browser, id, text};
use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn an_organization_without_anything_sees_what_to_do() {
    let app = App::dev().await;
    let browser = Browser::signed_in(&app, &app.token).await;
    assert!(
        browser
            .page("/dashboard")
            .await
            .contains("href=\"/reference/create_webhook\"")
    );
    assert!(
        browser
            .page("/dashboard/deliveries")
            .await
            .contains("There are no deliveries yet.")
    );
    let filtered = browser.page("/dashboard/deliveries?status=failed").await;
    assert!(filtered.contains("No delivery matches."), "{filtered}");
}

#[tokio::test]
async fn webhooks_are_shown_with_their_health() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(500), Reply::status(410)]).await;
    let failing = app.webhook(&receiver.url).await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let page = format!("/dashboard/webhooks/{}", id(&failing));
    assert!(browser.page("/dashboard").await.contains(">ok</span>"));
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let list = browser.page("/dashboard").await;
    assert!(
        list.contains(">failing</span>") && list.contains(&receiver.url),
        "{list}"
    );
    let shown = browser.page(&page).await;
    assert!(shown.contains("Failures in a row: 1, since "), "{shown}");
    let event = app.publish().await;
    app.delivery_when(&event, |delivery| delivery["status"] == "failed")
        .await;
    let shown = browser.page(&page).await;
    assert!(
        shown.contains(">disabled by service</span>") && shown.contains("the receiver answered 410 Gone."),
        "{shown}"
    );
    let disabled =
        json!({ "url": receiver.url, "enabled": false, "events": ["job.*"], "description": "Off <b>for</b> now." });
    let disabled = app.post("/v1/webhooks", &disabled).await.expect(201);
    let shown = browser.page(&format!("/dashboard/webhooks/{}", id(&disabled))).await;
    assert!(shown.contains(">disabled</span>") && shown.contains("job.*"), "{shown}");
    assert!(shown.contains("Off &lt;b&gt;for&lt;/b&gt; now."), "{shown}");
}

#[tokio::test]
async fn a_delivery_shows_each_attempt_with_the_request_that_arrived_and_the_response() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(503).body("come back <later>"), Reply::status(200)]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let path = format!("/v1/webhook_deliveries/{}/retry", id(&delivery));
    app.ask("POST", &path).send().await.expect(200);
    let browser = Browser::signed_in(&app, &app.token).await;
    let shown = browser.page(&format!("/dashboard/deliveries/{}", id(&delivery))).await;
    assert!(
        shown.contains("come back &lt;later&gt;") && shown.contains("It had no body."),
        "{shown}"
    );
    assert!(
        shown.contains("· automatic ·") && shown.contains("· manual ·"),
        "{shown}"
    );
    // The bytes are the same, apart from the white space between tokens.
    let payload = shown
        .split("<pre><code>")
        .last()
        .unwrap()
        .split("</code>")
        .next()
        .unwrap();
    let payload = payload.replace("&quot;", "\"");
    let sent = serde_json::from_slice::<serde_json::Value>(&receiver.arrivals()[0].body).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&payload).unwrap(), sent);
    for arrival in receiver.arrivals() {
        for (name, value) in &arrival.headers {
            let (name, value) = (name.as_str(), value.to_str().unwrap());
            let is_signature = name.ends_with("-signature");
            if (name.starts_with("kallima-") || name.starts_with("webhook-")) && !is_signature {
                let shown = shown.to_ascii_lowercase();
                assert!(
                    shown.contains(&format!("{name}: {}\n", value.to_ascii_lowercase())) || name == "kallima-attempt"
                );
                assert!(
                    shown.contains(&format!("{name}: {}", value.to_ascii_lowercase())),
                    "{name}: {value}"
                );
            }
        }
    }
}

#[tokio::test]
async fn filters_are_checked_as_those_of_the_operation_and_pages_lead_to_the_next() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    for _ in 0..30 {
        app.publish().await;
    }
    let browser = Browser::signed_in(&app, &app.token).await;
    let rows = |page: &str| page.matches("<td data-label=\"Event\">").count();
    // Empty fields, as a browser sends them, are none.
    let query = format!(
        "?webhook_id={}&status=&event_type=&event_id=&created_after=&created_before=",
        id(&webhook)
    );
    let first = browser.page(&format!("/dashboard/deliveries{query}")).await;
    assert_eq!(rows(&first), 25);
    let (_, next) = first.split_once("href=\"/dashboard/deliveries?webhook_id=").unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let second = browser.page(&format!("/dashboard/deliveries?webhook_id={next}")).await;
    assert_eq!(rows(&second), 5);
    assert!(!second.contains("rel=\"next\""), "{second}");
    for (query, expected) in [
        ("created_after=2026-01-01T00:00", 25),
        ("created_after=2026-01-01T00:00:00", 25),
        ("created_before=2026-01-01T00%3A00", 0),
        ("created_before=2026-01-01T00:00:00%2B01:00", 0),
        ("event_type=job.failed", 0),
    ] {
        let shown = browser.page(&format!("/dashboard/deliveries?{query}")).await;
        assert_eq!(rows(&shown), expected, "{query}");
    }
    for (query, said) in [
        ("webhook_id=42", "<li>webhook_id "),
        ("status=lost", "<li>status "),
        ("event_type=job.fail", "job.failed"),
        ("created_after=yesterday", "<li>created_after "),
        ("colour=red", "<li>colour "),
        ("status=failed&status=pending", "<li>status "),
    ] {
        let answer = browser.get(&format!("/dashboard/deliveries?{query}")).await;
        let status = answer.status.as_u16();
        assert!([400, 422].contains(&status), "{query}");
        let shown = text(&answer, status);
        assert!(
            shown.contains(said) && shown.contains("<form class=\"filters\""),
            "{query}: {shown}"
        );
    }
}

#[tokio::test]
async fn what_is_another_organizations_does_not_exist() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let (_, stranger) = app.new_organization().await;
    let browser = Browser::signed_in(&app, &stranger).await;
    let nobody = "0190a000-0000-7000-8000-000000000000";
    for (kind, theirs) in [("webhooks", id(&webhook)), ("deliveries", id(&delivery))] {
        let seen = text(&browser.get(&format!("/dashboard/{kind}/{theirs}")).await, 404);
        let missing = text(&browser.get(&format!("/dashboard/{kind}/{nobody}")).await, 404);
        let without_request = |page: &str| page.split("Request <code>").next().unwrap().to_owned();
        assert_eq!(without_request(&seen), without_request(&missing));
        text(&browser.get(&format!("/dashboard/{kind}/nonsense")).await, 404);
        text(&browser.get(&format!("/dashboard/{kind}/%ff")).await, 404);
    }
    for path in [
        format!("/dashboard/deliveries?webhook_id={}", id(&webhook)),
        format!("/dashboard/deliveries?event_id={event}"),
        "/dashboard/deliveries".to_owned(),
        "/dashboard".to_owned(),
    ] {
        let page = browser.page(&path).await;
        assert!(!page.contains(&receiver.url) && !page.contains(id(&delivery)), "{page}");
    }
}

#[tokio::test]
async fn pages_count_against_the_rate_of_the_organization() {
    let app = App::dev().await;
    let limits = Limits {
        requests_per_minute_max: NonZeroU32::new(3),
        writes_per_month_max: None,
    };
    let (_, token) = app.new_limited_organization(limits).await;
    let browser = Browser::signed_in(&app, &token).await;
    let mut last = browser.get("/dashboard").await;
    for _ in 0..3 {
        last = browser.get("/dashboard").await;
    }
    let page = text(&last, 429);
    assert!(page.contains("3 requests per minute"), "{page}");
    assert!(last.header("retry-after").is_some());
}

#[tokio::test]
async fn errors_are_pages_here_and_problems_elsewhere() {
    let app = App::dev().await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let missing = text(&browser.get("/dashboard/nothing").await, 404);
    assert!(
        missing.contains("<h1>Not found</h1><p>There is no such page.</p>"),
        "{missing}"
    );
    text(&browser.get("/dashboard/webhooks/x/rotate").await, 405);
    app.get("/dashboards").await.expect_problem(404, "not_found");
    app.db.clone().close().await.unwrap();
    let page = text(&browser.get("/dashboard").await, 503);
    assert!(page.contains("cannot reach its database"), "{page}");
}
