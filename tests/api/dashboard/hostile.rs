use serde_json::json;

use super::{Browser, id, text};
use crate::support::{App, Receiver, Reply};

/// What would run, or end an attribute, an element or a style, if it were not text.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></pre></code>&lt;";

#[tokio::test]
async fn whatever_customers_and_receivers_write_is_text() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(500).body(HOSTILE).header("content-type", "text/html")]).await;
    let body = json!({ "url": format!("{}?q='&lt;script&gt;", receiver.url), "description": HOSTILE });
    let webhook = app.post("/v1/webhooks", &body).await.expect(201);
    let event = json!({ "type": "webhook.test", "data": { "message": HOSTILE } });
    let published = app.post("/v1/events", &event).await.expect(202);
    let event = published["id"].as_str().unwrap().to_owned();
    let delivery = app
        .delivery_when(&event, |delivery| delivery["response_body"] == HOSTILE)
        .await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("event_id", HOSTILE)
        .append_pair("webhook_id", HOSTILE)
        .append_pair(HOSTILE, HOSTILE)
        .finish();
    let refused = text(&browser.get(&format!("/dashboard/deliveries?{query}")).await, 400);
    let mut pages = vec![refused];
    for path in [
        "/dashboard".to_owned(),
        format!("/dashboard/webhooks/{}", id(&webhook)),
        "/dashboard/deliveries".to_owned(),
        format!("/dashboard/deliveries/{}", id(&delivery)),
    ] {
        pages.push(browser.page(&path).await);
    }
    for page in &pages {
        // Every response has been searched for scripts already.
        for raw in ["<img src=x", "</pre></code>", "'><", "alert(1)>"] {
            assert!(!page.contains(raw), "{raw} in {page}");
        }
    }
    let shown = &pages[4];
    assert!(
        shown.contains("&quot;'&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_form_counts_only_if_this_browser_has_it_from_a_page_of_ours() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let page = format!("/dashboard/webhooks/{}", id(&webhook));
    let action = format!("{page}/rotate");
    let fields = browser.fields(&page, &action, &[]).await;
    let same = [("sec-fetch-site", "same-origin")];
    for headers in [
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "none")],
        [("origin", "https://evil.example")],
        [("origin", "http://127.0.0.1:1")],
    ] {
        let refused = text(&browser.post(&action, &fields, &headers).await, 403);
        assert!(refused.contains("another site"), "{headers:?}: {refused}");
    }
    let other = Browser::signed_in(&app, &app.token).await;
    let theirs = other.fields(&page, &action, &[]).await;
    let visitors = other.fields("/dashboard/sign_in", "/dashboard/sign_in", &[]).await;
    for fields in [theirs, visitors, Vec::new(), vec![("form".to_owned(), "x".repeat(64))]] {
        text(&browser.post(&action, &fields, &same).await, 403);
    }
    let stranger = Browser::new(&app);
    let sign_in = stranger
        .fields("/dashboard/sign_in", "/dashboard/sign_in", &[("token", &app.token)])
        .await;
    text(
        &Browser::new(&app).post("/dashboard/sign_in", &sign_in, &same).await,
        403,
    );
    let answer = stranger.post(&action, &fields, &same).await;
    assert_eq!(
        super::redirection(&answer),
        "/dashboard/sign_in",
        "a form without a session"
    );
    let after = app.get(&format!("/v1/webhooks/{}", id(&webhook))).await.expect(200);
    assert_eq!(after["updated_at"], webhook["updated_at"], "nothing was rotated");
    let own = [("origin", app.base.as_str())];
    text(&browser.post(&action, &fields, &own).await, 200);
}

#[tokio::test]
async fn forms_that_are_none_are_refused() {
    let app = App::dev().await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let cookies = browser.cookies();
    let ask = || {
        app.ask("POST", "/dashboard/sign_out")
            .anonymous()
            .header("cookie", &cookies)
    };
    text(&ask().json(&json!({ "form": "x" })).send().await, 415);
    text(&ask().bytes("form=x").send().await, 415);
    let large = ask().header("content-type", "application/x-www-form-urlencoded");
    text(&large.bytes(&"a=b&".repeat(4096)).send().await, 413);
    let binary = ask().header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    text(&binary.bytes("form=%ff%00&form&&==").send().await, 403);
    // A token of the API opens no page, and a session no operation.
    let answer = app.get("/dashboard").await;
    assert_eq!(answer.status, 303);
    let ask = app.ask("GET", "/v1/webhooks").anonymous().header("cookie", &cookies);
    ask.send().await.expect_problem(401, "unauthorized");
}
