//! `ETag` and `If-Match`: only the version that the client has seen is changed.

use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply, client::ApiResponse};

fn tag(response: &ApiResponse) -> String {
    response.header("etag").expect("an ETag").to_owned()
}

async fn created(app: &App, url: &str) -> (String, String) {
    let response = app.post("/v1/webhooks", &json!({ "url": url })).await;
    let path = format!("/v1/webhooks/{}", response.expect(201)["id"].as_str().unwrap());
    (path, tag(&response))
}

async fn patch_if(app: &App, path: &str, tags: &str, body: &Value) -> ApiResponse {
    app.ask("PATCH", path).header("if-match", tags).json(body).send().await
}

#[tokio::test]
async fn every_visible_change_moves_the_tag_and_nothing_else_does() {
    let app = App::dev().await;
    let receiver = Receiver::start([Reply::status(410)]).await;
    let (path, mut before) = created(&app, &receiver.url).await;
    assert_eq!(tag(&app.get(&path).await), before, "a creation and a reading agree");
    assert_eq!(tag(&app.patch(&path, &json!({})).await), before, "nothing has changed");
    for (query, body) in [
        ("", json!({ "description": "Lab" })),
        ("", json!({ "events": ["job.*"] })),
        ("", json!({ "enabled": false })),
        ("", json!({ "enabled": true, "events": [] })),
        ("?rotate_secret=true", json!({})),
        ("?rotate_secret=true", json!({})),
    ] {
        let changed = app.patch(&format!("{path}{query}"), &body).await;
        changed.expect(200);
        assert_ne!(tag(&changed), before, "{query} {body}");
        before = tag(&changed);
        assert_eq!(tag(&app.get(&path).await), before);
    }
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let disabled = app.get(&path).await;
    assert_eq!(disabled.expect(200)["disabled_reason"], "gone");
    assert_ne!(tag(&disabled), before, "the service's own change moves it too");
}

#[tokio::test]
async fn disabling_within_the_millisecond_of_another_change_moves_the_tag() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(410)]).await;
    let (path, _) = created(&app, &receiver.url).await;
    let before = tag(&app.patch(&path, &json!({ "description": "Lab" })).await);
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let disabled = app.get(&path).await;
    assert_eq!(disabled.expect(200)["enabled"], false);
    assert_ne!(tag(&disabled), before);
}

#[tokio::test]
async fn only_the_version_that_was_seen_is_changed_or_deleted() {
    let app = App::dev().await;
    let (path, first) = created(&app, "http://127.0.0.1:9/").await;
    let body = json!({ "description": "one" });
    let second = patch_if(&app, &path, &format!("\"x\", {first}"), &body).await;
    second.expect(200);
    let second = tag(&second);
    for stale in [first.as_str(), "\"x\"", &format!("W/{second}")] {
        patch_if(&app, &path, stale, &json!({ "description": "two" }))
            .await
            .expect_problem(412, "precondition_failed");
        let delete = app.ask("DELETE", &path).header("if-match", stale).send().await;
        delete.expect_problem(412, "precondition_failed");
    }
    let seen = app.get(&path).await;
    assert_eq!(seen.expect(200)["description"], "one");
    assert_eq!(tag(&seen), second);
    patch_if(&app, &path, "*", &json!({ "description": "three" }))
        .await
        .expect(200);
    let delete = app.ask("DELETE", &path).header("if-match", "*").send().await;
    delete.expect(204);
    // A webhook that does not exist has no version.
    patch_if(&app, &path, "*", &body).await.expect_problem(404, "not_found");
    patch_if(&app, &path, &first, &body)
        .await
        .expect_problem(404, "not_found");
}

#[tokio::test]
async fn what_is_no_list_of_tags_is_refused_by_the_headers_name() {
    let app = App::dev().await;
    let (path, first) = created(&app, "http://127.0.0.1:9/").await;
    for malformed in ["", "x", "\"x", "**", "\"x\" \"y\"", "w/\"x\""] {
        let response = patch_if(&app, &path, malformed, &json!({ "description": "one" })).await;
        let problem = response.expect_problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().contains("If-Match"), "{problem}");
        let delete = app.ask("DELETE", &path).header("if-match", malformed).send().await;
        delete.expect_problem(400, "bad_request");
    }
    let two_lines = app
        .ask("PATCH", &path)
        .header("if-match", "\"x\"")
        .header("if-match", &first);
    two_lines
        .json(&json!({ "description": "one" }))
        .send()
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_changes_to_one_version_exactly_one_wins() {
    let app = App::dev().await;
    let (path, mut version) = created(&app, "http://127.0.0.1:9/").await;
    for round in 0..10 {
        let descriptions: Vec<Value> = (0..4)
            .map(|number| json!({ "description": format!("{round}-{number}") }))
            .collect();
        let asks = descriptions
            .iter()
            .map(|body| app.ask("PATCH", &path).header("if-match", &version).json(body).send());
        let asks: Vec<_> = asks.map(tokio::spawn).collect();
        let mut won = Vec::new();
        for ask in asks {
            let response = ask.await.unwrap();
            if response.status == 200 {
                won.push(response);
            } else {
                response.expect_problem(412, "precondition_failed");
            }
        }
        let [winner] = won.as_slice() else {
            panic!("{} of 4 changes to one version were made", won.len());
        };
        let seen = app.get(&path).await;
        assert_eq!(seen.expect(200)["description"], winner.json()["description"]);
        version = tag(&seen);
        assert_eq!(version, tag(winner));
    }
}
