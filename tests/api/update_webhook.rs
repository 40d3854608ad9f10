//! `PATCH /v1/webhooks/{webhook_id}`: the reference page.

use serde_json::{Value, json};

use crate::support::{App, Receiver, Reply};

async fn webhook(app: &App) -> (String, Value) {
    let body = json!({ "url": "http://127.0.0.1:9/one", "events": ["job.failed"], "description": "Lab" });
    let mut created = app.post("/v1/webhooks", &body).await.expect(201);
    let path = format!("/v1/webhooks/{}", created["id"].as_str().unwrap());
    created.as_object_mut().unwrap().remove("secret");
    (path, created)
}

#[tokio::test]
async fn absent_and_null_leave_things_as_they_are() {
    let app = App::dev().await;
    let (path, before) = webhook(&app).await;
    let null = json!({ "url": null, "events": null, "enabled": null, "description": null });
    let same =
        json!({ "url": "http://127.0.0.1:9/one", "events": ["job.failed"], "enabled": true, "description": "Lab" });
    for body in [json!({}), null, same] {
        assert_eq!(app.patch(&path, &body).await.expect(200), before, "{body}");
    }
    assert_eq!(
        app.ask("PATCH", &path).send().await.expect(200),
        before,
        "no body at all"
    );
    assert_eq!(
        app.get(&path).await.expect(200),
        before,
        "updated_at moves only when something changes"
    );
}

#[tokio::test]
async fn each_field_changes_alone() {
    let app = App::dev().await;
    let (path, mut expected) = webhook(&app).await;
    for (name, value, seen) in [
        (
            "url",
            json!("http://127.0.0.1:9/two"),
            Some(json!("http://127.0.0.1:9/two")),
        ),
        ("events", json!(["humanization.*"]), Some(json!(["humanization.*"]))),
        ("events", json!([]), Some(Value::Null)),
        ("enabled", json!(false), Some(json!(false))),
        ("description", json!("Other"), Some(json!("Other"))),
        ("description", json!(""), None),
    ] {
        let response = app.patch(&path, &json!({ name: value })).await.expect(200);
        assert!(
            response["updated_at"].as_str() > expected["updated_at"].as_str(),
            "{name}: updated_at moves"
        );
        let fields = expected.as_object_mut().unwrap();
        fields.insert("updated_at".to_owned(), response["updated_at"].clone());
        match seen {
            Some(seen) => drop(fields.insert(name.to_owned(), seen)),
            None => drop(fields.remove(name)),
        }
        assert_eq!(response, expected, "{name}");
        assert_eq!(app.get(&path).await.expect(200), expected, "{name}");
    }
}

#[tokio::test]
async fn rotation_issues_a_new_secret_with_a_body_an_empty_one_and_none() {
    let app = App::dev().await;
    let receiver = Receiver::start([]).await;
    let created = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}", created["id"].as_str().unwrap());
    let mut secrets = vec![created["secret"].as_str().unwrap().to_owned()];
    let rotate = |query: &str| app.ask("PATCH", &format!("{path}?rotate_secret={query}"));
    let asks = [
        rotate("true").send().await,
        rotate("true").json(&json!({})).send().await,
        rotate("True").json(&json!({ "description": "rotated" })).send().await,
    ];
    for response in asks {
        let rotated = response.expect(200);
        let secret = rotated["secret"].as_str().unwrap().to_owned();
        assert!(!secrets.contains(&secret), "a new one each time");
        secrets.push(secret);
    }
    assert_eq!(app.get(&path).await.expect(200)["description"], "rotated");
    assert!(rotate("false").send().await.expect(200).get("secret").is_none());
    rotate("maybe").send().await.expect_problem(400, "bad_request");
    app.ask("POST", &format!("{path}/test")).send().await.expect(200);
    let arrival = &receiver.arrivals()[0];
    let valid: Vec<bool> = secrets.iter().map(|secret| arrival.is_signed_with(secret)).collect();
    assert_eq!(valid, [false, false, false, true], "only the newest secret signs");
}

#[tokio::test]
async fn the_old_secret_is_dead_at_once_for_what_is_already_queued() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(500)]).await;
    let created = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}", created["id"].as_str().unwrap());
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let rotated = app
        .ask("PATCH", &format!("{path}?rotate_secret=true"))
        .send()
        .await
        .expect(200);
    let elsewhere = Receiver::start([]).await;
    app.patch(&path, &json!({ "url": elsewhere.url })).await.expect(200);
    app.advance(std::time::Duration::from_secs(6)).await;
    let second = &elsewhere.wait_for(1).await[0];
    assert!(second.is_signed_with(rotated["secret"].as_str().unwrap()) && second.header("kallima-attempt") == "2");
    assert!(receiver.arrivals()[0].is_signed_with(created["secret"].as_str().unwrap()));
    assert_eq!(
        second.body,
        receiver.arrivals()[0].body,
        "the bytes are the same on every attempt"
    );
    assert_eq!(receiver.arrivals().len(), 1, "the URL before is not asked again");
}

#[tokio::test]
async fn what_is_not_valid_changes_nothing() {
    let app = App::dev().await;
    let (path, before) = webhook(&app).await;
    for (body, pointer) in [
        (json!({ "url": "http://example.com:0/" }), "/url"),
        (json!({ "url": "" }), "/url"),
        (json!({ "events": ["nope.nope"] }), "/events/0"),
        (json!({ "enabled": 1 }), "/enabled"),
        (json!({ "description": "a\u{0}b" }), "/description"),
        (json!({ "enable": false }), "/enable"),
    ] {
        let response = app
            .ask("PATCH", &format!("{path}?rotate_secret=true"))
            .json(&body)
            .send()
            .await;
        assert_eq!(response.expect_faults(), [pointer], "{body}");
    }
    assert_eq!(
        app.patch("/v1/webhooks/nonsense", &json!({})).await.expect_faults(),
        ["path/webhook_id"]
    );
    assert_eq!(app.get(&path).await.expect(200), before);
}
