//! `POST /v1/webhooks`.

use serde_json::{Value, json};

use crate::support::App;

const URL: &str = "https://your-service.example.com/webhooks/kallima";

#[tokio::test]
async fn a_plain_webhook_has_exactly_its_seven_keys_and_the_secret_once() {
    let app = App::builder().start().await;
    let response = app.post("/v1/webhooks", &json!({ "url": URL })).await;
    let created = response.expect(201);
    let keys: Vec<&String> = created.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "object",
            "url",
            "enabled",
            "events",
            "created_at",
            "updated_at",
            "secret"
        ]
    );
    assert_eq!(
        (&created["url"], &created["enabled"], &created["events"]),
        (&json!(URL), &json!(true), &Value::Null)
    );
    assert_eq!(created["created_at"], created["updated_at"]);
    assert!(created["created_at"].as_str().unwrap().ends_with("+00:00"));
    let location = response.header("location").unwrap();
    let read = app.get(location).await.expect(200);
    let mut expected = created.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(read, expected, "every later response omits the key altogether");
}

#[tokio::test]
async fn everything_can_be_said_at_once() {
    let app = App::builder().start().await;
    let body =
        json!({ "url": URL, "events": ["humanization.*", "job.failed"], "enabled": false, "description": "Lab" });
    let created = app.post("/v1/webhooks", &body).await.expect(201);
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(&created[name], value);
    }
    for (events, description) in [(json!([]), json!("")), (Value::Null, Value::Null)] {
        let body = json!({ "url": URL, "events": events, "enabled": null, "description": description });
        let created = app.post("/v1/webhooks", &body).await.expect(201);
        assert_eq!((&created["events"], &created["enabled"]), (&Value::Null, &json!(true)));
        assert!(created.get("description").is_none(), "the key is omitted while unset");
    }
}

#[tokio::test]
async fn every_fault_is_reported_at_once_with_its_pointer() {
    let app = App::builder().start().await;
    let body = json!({
        "url": "http://example.com/", "events": ["humanisation.completed", "job.failed", "nothing.*"], "enabled": "yes",
        "description": "x".repeat(257), "bogus/~": 1,
    });
    let response = app.post("/v1/webhooks", &body).await;
    let mut faults = response.expect_faults();
    faults.sort();
    assert_eq!(
        faults,
        [
            "/bogus~1~0",
            "/description",
            "/enabled",
            "/events/0",
            "/events/2",
            "/url"
        ]
    );
    let problem = response.json();
    let nearest = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|error| error["pointer"] == "/events/0")
        .unwrap();
    assert!(
        nearest["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean humanization.completed?"),
        "{nearest}"
    );
    assert_eq!(
        app.post("/v1/webhooks", &json!({ "events": ["nope.nope"] }))
            .await
            .expect_faults(),
        ["/url", "/events/0"]
    );
    for body in [json!([]), json!(null), json!("x")] {
        assert_eq!(app.post("/v1/webhooks", &body).await.expect_faults(), [""], "{body}");
    }
}

#[tokio::test]
async fn destinations_that_are_not_public_are_refused() {
    let app = App::builder().start().await;
    for url in [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://user:pass@example.com/",
        "https://example.com/#fragment",
        "http://example.com/",
        "ftp://example.com/",
        "https://①②⑦.⓪.⓪.①/",
        "https://metadata.google.internal/",
        "https://localhost.localdomain/",
        "https://ｌｏｃａｌｈｏｓｔ/",
        "https://-/",
        "https://-.example.com/",
        "https://a-.example.com/",
        "https://example.com:0/",
        "https://exa mple.com/",
        "https://",
        "not a url",
        "",
    ] {
        assert_eq!(
            app.post("/v1/webhooks", &json!({ "url": url })).await.expect_faults(),
            ["/url"],
            "{url}"
        );
    }
}

#[tokio::test]
async fn an_internationalized_url_is_stored_in_its_ascii_form() {
    let app = App::builder().start().await;
    let ascii = "https://xn--bcher-kva.example/stra%C3%9Fe";
    let created = app.webhook("https://bücher.example/straße").await;
    assert_eq!(created["url"], ascii);
    let path = format!("/v1/webhooks/{}", created["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.expect(200)["url"], ascii);
    let changed = app
        .patch(&path, &json!({ "url": "https://例え.テスト" }))
        .await
        .expect(200);
    assert_eq!(changed["url"], "https://xn--r8jz45g.xn--zckzah/");
    // The limit is on the stored form.
    let long = format!("https://bücher.example/{}", "ß".repeat(400));
    let refused = app.post("/v1/webhooks", &json!({ "url": long })).await;
    assert_eq!(refused.expect_faults(), ["/url"]);
}

#[tokio::test]
async fn an_organization_may_have_a_hundred() {
    let app = App::builder().start().await;
    for _ in 0..99 {
        app.webhook(URL).await;
    }
    let body = json!({ "url": URL });
    let (one, other) = tokio::join!(app.post("/v1/webhooks", &body), app.post("/v1/webhooks", &body));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "two at once do not both get through");
    app.post("/v1/webhooks", &body).await.expect_problem(409, "conflict");
    let (_, token) = app.new_organization().await;
    app.ask("POST", "/v1/webhooks")
        .token(&token)
        .json(&body)
        .send()
        .await
        .expect(201);
}
