//! Every error is a problem.

use crate::support::{App, app::eventually};

#[tokio::test]
async fn routes_and_methods_that_are_not_there() {
    let app = App::dev().await;
    for path in ["/v1", "/v2/webhooks", "/v1/webhooks/", "/v1/webhooks/x/y/z", "/%ff"] {
        app.get(path).await.expect_problem(404, "not_found");
    }
    let response = app.ask("PUT", "/v1/webhooks").send().await;
    response.expect_problem(405, "method_not_allowed");
    let allowed = response.header("allow").unwrap();
    assert!(
        allowed.contains("GET") && allowed.contains("POST") && !allowed.contains("PUT"),
        "{allowed}"
    );
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let app = App::dev().await;
    let ask = || app.ask("POST", "/v1/webhooks");
    ask().send().await.expect_problem(400, "bad_request");
    for text in ["{", "{\"url\": }", "\u{feff}{}", "{} {}", "{\"url\": \"\\ud800\"}"] {
        ask().text(text).send().await.expect_problem(400, "bad_request");
    }
    ask()
        .bytes("{}")
        .send()
        .await
        .expect_problem(415, "unsupported_media_type");
    ask()
        .header("content-type", "text/plain")
        .bytes("{}")
        .send()
        .await
        .expect_problem(415, "unsupported_media_type");
    ask()
        .header("content-encoding", "gzip")
        .text("{}")
        .send()
        .await
        .expect_problem(415, "unsupported_media_type");
    let spaced = ask()
        .header("content-type", "Application/JSON; charset=utf-8")
        .bytes("{\"url\": 5}")
        .send()
        .await;
    assert_eq!(spaced.expect_faults(), ["/url"]);
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    ask().text(&deep).send().await.expect_problem(400, "bad_request");
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let app = App::dev().await;
    for (path, bytes_max) in [("/v1/webhooks", 16 * 1024), ("/v1/events", 256 * 1024)] {
        let just = format!("{{{}}}", " ".repeat(bytes_max - 2));
        app.ask("POST", path)
            .text(&just)
            .send()
            .await
            .expect_problem(422, "validation_error");
        app.ask("POST", path)
            .text(&format!("{just} "))
            .send()
            .await
            .expect_problem(413, "payload_too_large");
    }
}

#[tokio::test]
async fn a_problem_says_where_and_under_which_request_id() {
    let app = App::dev().await;
    let response = app.get("/v1/webhooks/0190a000-0000-7000-8000-000000000000?x=1").await;
    let problem = app.get("/v1/webhooks/0190a000-0000-7000-8000-000000000000").await;
    let body = problem.expect_problem(404, "not_found");
    assert_eq!(body["type"], "https://docs.kallima.bio/errors/not_found");
    assert_eq!(body["title"], "Not found");
    assert_eq!(body["instance"], "/v1/webhooks/0190a000-0000-7000-8000-000000000000");
    assert_eq!(
        Some(body["request_id"].as_str().unwrap()),
        problem.header("x-request-id")
    );
    assert_ne!(
        response.header("x-request-id"),
        problem.header("x-request-id"),
        "each request has its own"
    );
    assert_eq!(app.get("/v1/webhooks").await.header("x-request-id").unwrap().len(), 30);
}

#[tokio::test]
async fn a_database_that_is_gone_is_503_and_nothing_is_acknowledged() {
    let app = App::dev().await;
    assert_eq!(
        app.ask("GET", "/readyz").anonymous().send().await.expect(200)["status"],
        "ready"
    );
    app.db.clone().close().await.unwrap();
    let response = app.get("/v1/webhooks").await;
    response.expect_problem(503, "service_unavailable");
    assert!(response.header("retry-after").is_some());
    let event = serde_json::json!({ "type": "webhook.test", "data": {} });
    app.post("/v1/events", &event)
        .await
        .expect_problem(503, "service_unavailable");
    let ready = || app.ask("GET", "/readyz").anonymous().send();
    let unready = eventually(|| async { Some(ready().await).filter(|response| response.status != 200) }).await;
    unready.expect_problem(503, "service_unavailable");
    assert_eq!(
        app.ask("GET", "/healthz").anonymous().send().await.expect(200)["status"],
        "ok"
    );
}
