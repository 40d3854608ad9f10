//! Slow, large, numerous and cross-origin requests.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{App, Gate, Receiver, Reply, app::eventually};

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(app.base.strip_prefix("http://").unwrap())
        .await
        .unwrap()
}

/// What the server responds to this text until it closes the connection, in lower case.
async fn raw(app: &App, text: &str) -> String {
    let mut stream = connect(app).await;
    // The server may close the connection before all of it is sent.
    drop(stream.write_all(text.as_bytes()).await);
    let mut response = Vec::new();
    drop(stream.read_to_end(&mut response).await);
    String::from_utf8_lossy(&response).to_lowercase()
}

/// Sends `head`, then a letter now and then, until the server closes the connection. Returns what it sent, and how long it
/// took.
async fn drip(app: &App, head: &str) -> (String, Duration) {
    let began = Instant::now();
    let (mut reader, mut writer) = connect(app).await.into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut response = Vec::new();
    let closed = tokio::time::timeout(Duration::from_mins(1), reader.read_to_end(&mut response));
    drop(closed.await.expect("the connection is closed in bounded time"));
    dripping.abort();
    (String::from_utf8_lossy(&response).into_owned(), began.elapsed())
}

#[tokio::test]
async fn a_slow_head_and_a_slow_body_end_in_bounded_time_and_hold_up_nobody() {
    let limits = [
        "--dev",
        "--head-read-timeout-ms",
        "500",
        "--body-read-timeout-ms",
        "500",
    ];
    let app = App::builder().arguments(&limits).start().await;
    let head = "GET /v1/webhooks HTTP/1.1\r\nhost: x\r\nx-slow: ";
    let body = format!(
        "POST /v1/webhooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 10000\r\n\r\n{{",
        app.token
    );
    let others = async {
        for _ in 0..20 {
            app.get("/v1/webhooks").await.expect(200);
        }
    };
    let heads = async { tokio::join!(drip(&app, head), drip(&app, head), drip(&app, head)).0 };
    let ((_, head_took), (response, body_took), ()) = tokio::join!(heads, drip(&app, &body), others);
    assert!(head_took >= Duration::from_millis(450) && body_took >= Duration::from_millis(450));
    assert!(
        response.starts_with("HTTP/1.1 400") && response.contains("took too long"),
        "{response}"
    );
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let app = App::dev().await;
    let large = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    assert!(raw(&app, &large).await.starts_with("http/1.1 431"));
    let many = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x-many: x\r\n".repeat(200)
    );
    assert!(raw(&app, &many).await.starts_with("http/1.1 431"));
    app.get("/v1/webhooks").await.expect(200);
}

#[tokio::test]
async fn a_client_that_is_refused_before_its_body_is_read_hears_why() {
    const BODY_BYTES: usize = 8_000_000;
    let app = App::dev().await;
    let known = format!("authorization: bearer {}\r\n", app.token);
    let length = format!("content-length: {BODY_BYTES}\r\n");
    let chunked = "transfer-encoding: chunked\r\n";
    for (token, framing, status) in [(&*known, &*length, 413), ("", &length, 401), (&known, chunked, 413)] {
        let mut stream = connect(&app).await;
        let chunk = if framing == chunked {
            format!("{BODY_BYTES:x}\r\n")
        } else {
            String::new()
        };
        let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let head = format!("{head}{token}{framing}\r\n{chunk}");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The response is there long before the end of this.
        stream.write_all(&vec![b' '; BODY_BYTES]).await.unwrap();
        let mut response = String::new();
        drop(stream.read_to_string(&mut response).await);
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{framing}{response}"
        );
        assert!(response.ends_with('}'), "{framing}{response}");
    }
    // But not forever: neither a body without end nor one that does not go on.
    let mut stream = connect(&app).await;
    let head = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\n{chunked}\r\nffffffffff\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(stream.write_all(&vec![b' '; 64_000_000]).await.is_err());
    let mut stream = connect(&app).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually(|| async { stream.try_write(b"x").err().map(drop) }).await;
}

#[tokio::test]
async fn more_requests_than_the_node_takes_are_refused_at_once() {
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200).held_by(&gate)]).await;
    let app = App::builder()
        .arguments(&["--dev", "--requests-max", "1"])
        .patient()
        .start()
        .await;
    let webhook = app.webhook(&receiver.url).await;
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let beside = async {
        receiver.wait_for(1).await;
        let refused = app.get("/v1/webhooks").await;
        refused.expect_problem(503, "service_unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"));
        app.ask("GET", "/healthz").anonymous().send().await.expect(200);
        assert_eq!(app.ask("GET", "/docs").anonymous().send().await.status, 200);
        gate.open();
    };
    let nothing = json!({});
    let (tested, ()) = tokio::join!(app.post(&path, &nothing), beside);
    assert_eq!(tested.expect(200)["status"], "delivered");
    eventually(|| async { (app.get("/v1/webhooks").await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn responses_carry_security_headers_for_browsers() {
    let app = App::dev().await;
    let nosniff = Some("nosniff");
    for path in [
        "/v1/webhooks",
        "/nowhere",
        "/openapi.json",
        "/docs",
        "/docs/swagger-ui.css",
    ] {
        assert_eq!(app.get(path).await.header("x-content-type-options"), nosniff, "{path}");
    }
    let page = app.get("/docs").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
}

#[tokio::test]
async fn other_origins_are_let_in_by_name_alone() {
    let ask = |method: &str, origin: &str| {
        format!(
            "{method} /v1/webhooks HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\nconnection: close\r\n\
             access-control-request-method: PATCH\r\naccess-control-request-headers: authorization,if-match\r\n\r\n"
        )
    };
    let closed = App::dev().await;
    for method in ["GET", "OPTIONS"] {
        let response = raw(&closed, &ask(method, "https://app.example.com")).await;
        assert!(!response.contains("access-control"), "{response}");
    }
    let arguments = ["--dev", "--cors-allow-origin", "https://app.example.com"];
    let open = App::builder().arguments(&arguments).start().await;
    let preflight = raw(&open, &ask("OPTIONS", "https://app.example.com")).await;
    assert!(preflight.starts_with("http/1.1 200"), "{preflight}");
    for part in [
        "access-control-allow-origin: https://app.example.com\r\n",
        "if-match",
        "patch",
        "x-request-id: req_",
    ] {
        assert!(preflight.contains(part), "{part}: {preflight}");
    }
    // Such an origin can read a refusal, too.
    let refused = raw(&open, &ask("GET", "https://app.example.com")).await;
    assert!(
        refused.starts_with("http/1.1 401") && refused.contains("access-control-expose-headers"),
        "{refused}"
    );
    let other = raw(&open, &ask("OPTIONS", "https://evil.example.com")).await;
    assert!(!other.contains("access-control-allow-origin"), "{other}");
}
