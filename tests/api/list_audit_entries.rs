//! `GET /v1/webhooks/{webhook_id}/audit`.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::support::{
    App, Gate, Receiver, Reply,
    client::ApiResponse,
    pages::{next, pages},
};

fn path(webhook: &Value) -> String {
    format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap())
}

async fn audit(app: &App, webhook: &Value) -> Vec<Value> {
    let response = app.get(&format!("{}/audit", path(webhook))).await;
    response.expect(200).as_array().unwrap().clone()
}

fn request_id(response: &ApiResponse) -> &str {
    response.header("x-request-id").unwrap()
}

#[tokio::test]
async fn every_write_is_remembered_with_who_what_when_and_from_where() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let made = app
        .post(
            "/v1/webhooks",
            &json!({ "url": "http://127.0.0.1:9/", "events": ["job.*"] }),
        )
        .await;
    let webhook = made.expect(201);
    app.advance(Duration::from_mins(1)).await;
    let (token, token_id) = app
        .new_token(Some(app.organization), kallima_webhooks::domain::token::Scope::ALL)
        .await;
    let change = json!({ "url": "http://127.0.0.1:10/", "events": [], "enabled": false, "description": "Lab" });
    let changed = app
        .ask("PATCH", &path(&webhook))
        .token(&token)
        .json(&change)
        .send()
        .await;
    changed.expect(200);
    // A request that changes nothing is not a write.
    app.patch(&path(&webhook), &change).await.expect(200);
    let rotate = format!("{}?rotate_secret=true", path(&webhook));
    let rotated = app.ask("PATCH", &rotate).send().await.expect(200);
    let gone = app.delete(&path(&webhook)).await;
    gone.expect(204);

    let entries = audit(&app, &webhook).await;
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["action"], &entry["secret_rotated"], &entry["changes"]))
        .map(|(action, rotated, changes)| json!([action, rotated, changes]))
        .collect();
    let expected = [
        json!(["deleted", false, {
            "url": { "before": "http://127.0.0.1:10/", "after": null },
            "enabled": { "before": false, "after": null },
            "description": { "before": "Lab", "after": null },
        }]),
        json!(["updated", true, {}]),
        json!(["updated", false, {
            "url": { "before": "http://127.0.0.1:9/", "after": "http://127.0.0.1:10/" },
            "enabled": { "before": true, "after": false },
            "events": { "before": ["job.*"], "after": null },
            "description": { "before": null, "after": "Lab" },
        }]),
        json!(["created", false, {
            "url": { "before": null, "after": "http://127.0.0.1:9/" },
            "enabled": { "before": null, "after": true },
            "events": { "before": null, "after": ["job.*"] },
        }]),
    ];
    assert_eq!(shown, expected);
    for (entry, response) in [(&entries[0], &gone), (&entries[2], &changed), (&entries[3], &made)] {
        assert_eq!(entry["request_id"], request_id(response));
        assert_eq!(entry["address"], "127.0.0.1");
        assert_eq!(entry["actor"], "token");
    }
    assert_eq!(entries[2]["token_id"], token_id.to_string());
    assert_ne!(entries[3]["token_id"], entries[2]["token_id"]);
    assert_eq!(entries[3]["created_at"], webhook["created_at"]);
    assert_eq!(entries[2]["created_at"], "2026-04-23T10:01:00+00:00");
    let all = Value::from(entries).to_string();
    for secret in [&webhook["secret"], &rotated["secret"]] {
        assert!(!all.contains(secret.as_str().unwrap()), "no secret is in the audit");
    }
}

#[tokio::test]
async fn the_services_own_disabling_is_remembered_once() {
    let gate = Gate::new();
    let gone = || Reply::status(410).held_by(&gate);
    let receiver = Receiver::start([gone(), gone()]).await;
    let app = App::builder().arguments(&["--dev"]).patient().start().await;
    let webhook = app.webhook(&receiver.url).await;
    let (first, second) = (app.publish().await, app.publish().await);
    // Both are in progress before either gets its response.
    receiver.wait_for(2).await;
    gate.open();
    app.after_attempt(&first, 1).await;
    app.after_attempt(&second, 1).await;
    let entries = audit(&app, &webhook).await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(entries[0]["action"], "disabled");
    assert_eq!(entries[0]["actor"], "service");
    assert_eq!(entries[0]["token_id"], Value::Null);
    let changes = json!({
        "enabled": { "before": true, "after": false },
        "disabled_reason": { "before": null, "after": "gone" },
    });
    assert_eq!(entries[0]["changes"], changes);
    app.patch(&path(&webhook), &json!({ "enabled": true }))
        .await
        .expect(200);
    assert_eq!(
        audit(&app, &webhook).await[0]["changes"]["disabled_reason"],
        json!({ "before": "gone", "after": null })
    );
}

#[tokio::test]
async fn what_is_anothers_or_nobodys_is_not_found_also_after_its_deletion() {
    let app = App::dev().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    let (_, other) = app.new_organization().await;
    for _ in 0..2 {
        let response = app
            .ask("GET", &format!("{}/audit", path(&webhook)))
            .token(&other)
            .send()
            .await;
        response.expect_problem(404, "not_found");
        // Deleted or pruned: both look the same to others.
        app.delete(&path(&webhook)).await;
    }
    assert_eq!(audit(&app, &webhook).await.len(), 2);
    app.get("/v1/webhooks/0190a000-0000-7000-8000-000000000000/audit")
        .await
        .expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_write_that_is_refused_is_not_remembered() {
    let app = App::dev().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    app.patch(&path(&webhook), &json!({ "url": "nonsense" }))
        .await
        .expect_problem(422, "validation_error");
    let (_, other) = app.new_organization().await;
    app.ask("DELETE", &path(&webhook))
        .token(&other)
        .send()
        .await
        .expect_problem(404, "not_found");
    assert_eq!(audit(&app, &webhook).await.len(), 1);
}

#[tokio::test]
async fn pages_follow_by_link() {
    let app = App::dev().await;
    let webhook = app.webhook("http://127.0.0.1:9/").await;
    for turn in 0..4 {
        app.patch(&path(&webhook), &json!({ "description": turn.to_string() }))
            .await
            .expect(200);
    }
    let all: Vec<Value> = audit(&app, &webhook).await;
    let seen = pages(&app, &format!("{}/audit?limit=2", path(&webhook))).await.concat();
    assert_eq!((seen.len(), &seen), (5, &all));

    // Retention deletes the oldest of any webhook; a cursor remains valid when its entry is gone.
    let first = app.get(&format!("{}/audit?limit=2", path(&webhook))).await;
    let beside = app.database.connect().await;
    let prune = "DELETE FROM audit_entries WHERE action = 'updated'";
    beside.execute_unprepared(prune).await.unwrap();
    let rest = app.get(&next(first.header("link")).unwrap()).await;
    assert_eq!(rest.expect(200), json!(all[4..]));
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_about_the_address() {
    for (arguments, expected) in [
        (&["--dev"][..], "127.0.0.1"),
        (&["--dev", "--trusted-proxy", "127.0.0.0/8"][..], "198.51.100.7"),
    ] {
        let app = App::builder().arguments(arguments).start().await;
        let body = json!({ "url": "http://127.0.0.1:9/" });
        let ask = app.ask("POST", "/v1/webhooks").json(&body);
        let ask = ask.header("x-forwarded-for", "203.0.113.9, 198.51.100.7");
        let webhook = ask.send().await.expect(201);
        assert_eq!(audit(&app, &webhook).await[0]["address"], expected);
    }
}
