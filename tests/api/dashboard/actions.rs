use kallima_webhooks::domain::token::Scope;
use serde_json::{Value, json};

use super::{Browser, id, redirection, text};
use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn a_delivery_is_retried_once_however_often_the_form_is_sent() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(500)]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let browser = Browser::by_link(&app, "retry").await;
    let page = format!("/dashboard/deliveries/{}", id(&delivery));
    let action = format!("{page}/retry");
    let fields = browser.fields(&page, &action, &[]).await;
    for _ in 0..2 {
        let answer = browser.post(&action, &fields, &[]).await;
        assert_eq!(redirection(&answer), page);
    }
    assert_eq!(receiver.arrivals().len(), 2, "the first attempt, and one retry");
    let shown = browser.page(&page).await;
    assert!(shown.contains("Attempt 2 ") && !shown.contains("Attempt 3 "), "{shown}");
    let answer = browser.submit(&page, &action, &[]).await;
    assert_eq!(redirection(&answer), page);
    assert_eq!(receiver.arrivals().len(), 3, "the page's next form is another one");
}

#[tokio::test]
async fn a_test_leads_to_its_delivery() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let page = format!("/dashboard/webhooks/{}", id(&webhook));
    let action = format!("{page}/test");
    let answer = browser.submit(&page, &action, &[("event_type", "job.failed")]).await;
    let shown = browser.page(redirection(&answer)).await;
    assert!(shown.contains("job.failed") && shown.contains("· test ·"), "{shown}");
    assert_eq!(receiver.arrivals()[0].payload()["type"], "job.failed");
    let answer = browser.submit(&page, &action, &[("event_type", "job.fail")]).await;
    assert!(text(&answer, 422).contains("job.failed"), "did you mean");
}

async fn audit(app: &App, webhook: &Value) -> Value {
    let path = format!("/v1/webhooks/{}/audit", id(webhook));
    app.get(&path).await.expect(200)[0].clone()
}

#[tokio::test]
async fn a_webhook_is_enabled_and_its_secret_rotated_with_audit_entries() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let body = json!({ "url": receiver.url, "enabled": false });
    let webhook = app.post("/v1/webhooks", &body).await.expect(201);
    let browser = Browser::signed_in(&app, &app.token).await;
    let page = format!("/dashboard/webhooks/{}", id(&webhook));
    let answer = browser.submit(&page, &format!("{page}/enable"), &[]).await;
    assert_eq!(redirection(&answer), page);
    let entry = audit(&app, &webhook).await;
    assert_eq!(
        entry["changes"],
        json!({ "enabled": { "before": false, "after": true } })
    );
    assert_eq!(entry["request_id"], answer.header("x-request-id").unwrap());
    assert_eq!(entry["address"], "127.0.0.1");
    assert!(entry["token_id"].is_string(), "{entry}");
    assert!(
        !browser.page(&page).await.contains("/enable\""),
        "an enabled webhook has no such form"
    );

    let rotated = text(&browser.submit(&page, &format!("{page}/rotate"), &[]).await, 200);
    let (_, secret) = rotated.split_once("whsec_").unwrap();
    let secret = format!("whsec_{}", &secret[..40]);
    assert_ne!(secret, webhook["secret"]);
    assert_eq!(audit(&app, &webhook).await["secret_rotated"], true);
    app.publish().await;
    assert!(receiver.wait_for(1).await[0].is_signed_with(&secret));
    for path in [&page, "/dashboard", "/dashboard/deliveries"] {
        assert!(!browser.page(path).await.contains("whsec_"), "{path}");
    }
}

#[tokio::test]
async fn a_session_does_no_more_than_it_may() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let body = json!({ "url": receiver.url, "enabled": false });
    let webhook = app.post("/v1/webhooks", &body).await.expect(201);
    let tested = app
        .ask("POST", &format!("/v1/webhooks/{}/test", id(&webhook)))
        .send()
        .await
        .expect(200);
    let pages = [
        (
            format!("/dashboard/webhooks/{}", id(&webhook)),
            vec!["enable", "test", "rotate"],
        ),
        (format!("/dashboard/deliveries/{}", id(&tested)), vec!["retry"]),
    ];
    let (reader, _) = app.new_token(Some(app.organization), &[Scope::WebhooksRead]).await;
    for (browser, may) in [
        (Browser::by_link(&app, "read").await, vec![]),
        (Browser::by_link(&app, "retry").await, vec!["retry"]),
        (Browser::signed_in(&app, &reader).await, vec![]),
        (
            Browser::signed_in(&app, &app.token).await,
            vec!["enable", "test", "rotate", "retry"],
        ),
    ] {
        for (page, actions) in &pages {
            let shown = browser.page(page).await;
            // What every form of the session holds is in the one that signs out.
            let mut fields = browser.fields(page, "/dashboard/sign_out", &[]).await;
            for action in actions {
                let path = format!("{page}/{action}");
                let is_allowed = may.contains(action);
                assert_eq!(shown.contains(&format!("action=\"{path}\"")), is_allowed, "{path}");
                if !is_allowed {
                    fields.retain(|(name, _)| name == "form");
                    fields.push(("key".to_owned(), "one".to_owned()));
                    let refused = text(&browser.post(&path, &fields, &[]).await, 403);
                    assert!(refused.contains("webhooks:write"), "{refused}");
                }
            }
        }
    }
    assert_eq!(receiver.arrivals().len(), 1, "nothing was sent but the test by the API");
    let after = app.get(&format!("/v1/webhooks/{}", id(&webhook))).await.expect(200);
    assert_eq!(after["updated_at"], webhook["updated_at"]);
}
