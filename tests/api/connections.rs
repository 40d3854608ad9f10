//! What a connection may cost: clients that are idle, do not read, are many, or send requests with ambiguous framing.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use uuid::Uuid;

use crate::support::{App, app::eventually};

/// Longer than anything takes: it only decides how soon a failing test fails.
const PATIENCE: Duration = Duration::from_mins(1);

fn address(base: &str) -> &str {
    base.strip_prefix("http://").unwrap()
}

async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(address(base)).await.unwrap()
}

/// A connection whose client buffers little of what it does not read.
async fn narrow(base: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address(base).parse().unwrap()).await.unwrap()
}

fn get(path: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\n{}\r\n",
        authorization.unwrap_or_default()
    )
}

/// Sends the same request so often that the responses exceed the kernel's buffers, and reads none of them.
async fn ask_without_reading(stream: &mut TcpStream, request: &str, response_bytes: usize) {
    let times = 8_000_000 / response_bytes;
    stream.write_all(request.repeat(times.max(8)).as_bytes()).await.unwrap();
}

/// Sends a request and reads its response, which ends with `end`, so that the connection is idle.
async fn exchange(stream: &mut TcpStream, request: &str, end: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    while !response.ends_with(end.as_bytes()) {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => response.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8(response).unwrap())
}

async fn is_alive(stream: &mut TcpStream) -> bool {
    let request = get("/healthz", None);
    let response = exchange(stream, &request, r#"{"status":"ok"}"#);
    timeout(PATIENCE, response)
        .await
        .expect("it is answered or closed")
        .is_ok()
}

/// Waits until the server has cut off a client that does not read.
fn cut_off(stream: &TcpStream) -> impl Future<Output = ()> + '_ {
    eventually(|| async { stream.take_error().unwrap().map(|_| ()) })
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head_and_ends_after_its_own() {
    let limits = ["--dev", "--head-read-timeout-ms", "200", "--idle-timeout-ms", "2000"];
    let app = App::builder().arguments(&limits).start().await;
    let mut stream = connect(&app.base).await;
    assert!(is_alive(&mut stream).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(
        is_alive(&mut stream).await,
        "three times a head's time is no reason to close it"
    );
    let began = Instant::now();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty() && began.elapsed() >= Duration::from_millis(1900));
}

#[tokio::test]
async fn every_head_must_arrive_in_time_and_so_must_the_first_byte() {
    let limits = ["--dev", "--head-read-timeout-ms", "300", "--idle-timeout-ms", "3600000"];
    let app = App::builder().arguments(&limits).start().await;
    let mut silent = connect(&app.base).await;
    let closed = timeout(PATIENCE, silent.read(&mut [0])).await.expect("it is closed");
    assert_eq!(closed.unwrap(), 0);
    let mut second = connect(&app.base).await;
    assert!(is_alive(&mut second).await);
    second.write_all(b"GET /healthz HTTP/1.1\r\nho").await.unwrap();
    // A reset or an end of stream: either way, the request got no response.
    let closed = timeout(PATIENCE, second.read(&mut [0])).await.expect("it is closed");
    assert_eq!(closed.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_with_or_without_a_token() {
    let limits = ["--dev", "--write-timeout-ms", "300"];
    let app = App::builder().arguments(&limits).start().await;
    for (path, token, response_bytes) in [
        ("/openapi.json", None, 100_000),
        ("/docs/swagger-ui-bundle.js", None, 1_000_000),
        ("/v1/webhooks", Some(app.token.as_str()), 300),
        ("/v1/webhooks", None, 300),
    ] {
        let mut stream = narrow(&app.base).await;
        ask_without_reading(&mut stream, &get(path, token), response_bytes).await;
        cut_off(&stream).await;
    }
    app.get("/v1/webhooks").await.expect(200);
}

#[tokio::test]
async fn a_client_that_reads_a_byte_now_and_then_is_cut_off_and_a_slow_one_is_not() {
    let limits = ["--dev", "--write-timeout-ms", "1000"];
    let app = App::builder().arguments(&limits).start().await;
    let mut dripping = narrow(&app.base).await;
    ask_without_reading(&mut dripping, &get("/openapi.json", None), 100_000).await;
    let drip = async {
        // What has arrived could be read long after the server has closed the connection.
        while dripping.take_error().unwrap().is_none() && dripping.read(&mut [0]).await.is_ok_and(|count| count == 1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, drip).await.expect("it is cut off");

    let whole = app
        .ask("GET", "/docs/swagger-ui-bundle.js")
        .anonymous()
        .send()
        .await
        .body
        .len();
    let mut slow = narrow(&app.base).await;
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut read = 0;
    let mut piece = vec![0; 32 * 1024];
    loop {
        match slow.read(&mut piece).await.expect("it is not cut off") {
            0 => break,
            count => read += count,
        }
        // 32 KiB, in a twentieth of the time that 48 KiB may take.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(read > whole, "head and body: {read} of {whole} bytes");
}

#[tokio::test]
async fn the_metrics_are_served_although_clients_do_not_read_them() {
    let limits = ["--dev", "--write-timeout-ms", "300", "--metrics-listen", "127.0.0.1:0"];
    let app = App::builder().arguments(&limits).start().await;
    let metrics = app.metrics.as_deref().unwrap();
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = narrow(metrics).await;
        ask_without_reading(&mut stream, &get("/metrics", None), 10_000).await;
        streams.push(stream);
    }
    let mut stream = connect(metrics).await;
    let request = get("/metrics", None);
    let response = exchange(&mut stream, &request, "# EOF\n");
    let response = timeout(PATIENCE, response).await.expect("it is answered").unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn a_request_is_in_progress_until_its_response_is_sent() {
    let limits = ["--dev", "--requests-max", "1"];
    let app = App::builder().arguments(&limits).start().await;
    for _ in 0..4 {
        let data = json!({ "job_id": Uuid::new_v4(), "text": "x".repeat(200_000) });
        let event = json!({ "type": "humanization.completed", "data": data });
        let published =
            || async { Some(app.post("/v1/events", &event).await).filter(|response| response.status == 202) };
        // The previous response may still be on its way.
        eventually(published).await;
    }
    let mut stream = narrow(&app.base).await;
    let request = get("/v1/events?limit=4", Some(&app.token));
    ask_without_reading(&mut stream, &request, 800_000).await;
    eventually(|| async { (app.get("/v1/webhooks").await.status == 503).then_some(()) }).await;
    for _ in 0..20 {
        let refused = app.get("/v1/webhooks").await;
        refused.expect_problem(503, "service_unavailable");
    }
    app.ask("GET", "/healthz").anonymous().send().await.expect(200);
    drop(stream);
    eventually(|| async { (app.get("/v1/webhooks").await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn one_peer_has_so_many_connections_and_no_more() {
    let limits = ["--dev", "--connections-per-peer-max", "2"];
    let app = App::builder().arguments(&limits).start().await;
    let (mut first, mut second) = (connect(&app.base).await, connect(&app.base).await);
    assert!(is_alive(&mut first).await && is_alive(&mut second).await);
    let mut third = connect(&app.base).await;
    assert!(!is_alive(&mut third).await);
    assert!(is_alive(&mut first).await && is_alive(&mut second).await);
    drop(first);
    eventually(|| async { is_alive(&mut connect(&app.base).await).await.then_some(()) }).await;
}

#[tokio::test]
async fn where_there_is_no_room_the_longest_idle_connection_makes_some() {
    let limits = ["--dev", "--connections-max", "2"];
    let app = App::builder().arguments(&limits).start().await;
    let (mut first, mut second) = (connect(&app.base).await, connect(&app.base).await);
    assert!(is_alive(&mut first).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_alive(&mut second).await);
    let mut third = connect(&app.base).await;
    assert!(is_alive(&mut third).await, "the third is served");
    assert!(!is_alive(&mut first).await, "the first was closed for it");
    assert!(is_alive(&mut second).await, "the second was not");
}

#[tokio::test]
async fn a_request_without_a_clear_end_is_refused_and_the_connection_closed() {
    let app = App::builder()
        .arguments(&["--dev", "--metrics-listen", "127.0.0.1:0"])
        .start()
        .await;
    let smuggled = get("/healthz", None);
    for base in [&app.base, app.metrics.as_ref().unwrap()] {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: gzip, chunked",
        ] {
            for before in ["", &get("/healthz", None)] {
                let request =
                    format!("{before}GET /metrics HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n0\r\n\r\n{smuggled}");
                let mut stream = connect(base).await;
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut response = String::new();
                timeout(PATIENCE, stream.read_to_string(&mut response))
                    .await
                    .expect("closed")
                    .unwrap();
                let responses: Vec<&str> = response.split("HTTP/1.1 ").skip(1).collect();
                let expected = if before.is_empty() { 1 } else { 2 };
                assert_eq!(responses.len(), expected, "{fields}: {response}");
                let refused = responses.last().unwrap().to_lowercase();
                assert!(
                    refused.starts_with("400") && refused.contains("connection: close"),
                    "{fields}: {response}"
                );
            }
        }
    }
    let mut stream = connect(&app.base).await;
    let body = json!({ "url": "http://127.0.0.1:1/" }).to_string();
    let (start, rest) = body.split_at(4);
    let chunked = format!(
        "POST /v1/webhooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n4\r\n{start}\r\n{:x};extension=1\r\n{rest}\r\n0\r\n\r\n",
        app.token,
        rest.len(),
    );
    let created = exchange(&mut stream, &chunked, "\"}").await.unwrap();
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    assert!(
        is_alive(&mut stream).await,
        "a plain chunked body is nothing to close for"
    );
}
