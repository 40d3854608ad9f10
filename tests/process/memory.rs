//! What hostile receivers and clients cost in memory: a limited amount, however much the former send and however little the
//! latter read.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};
use uuid::Uuid;

use super::Process;
use crate::support::{
    app::eventually,
    client::Ask,
    database::TestDatabase,
    http2::{PREFACE, SETTINGS, WINDOW_UPDATE, frame, get},
};

/// Attempts in progress at once, each with a receiver that sends as much as it can.
const RECEIVERS: usize = 16;

/// What the process may have used at its peak, in KiB: the binary, the runtime and the database together take most of
/// it. A tenth of what is sent would be far beyond it.
const PEAK_KIB_MAX: u64 = 200 * 1024;

/// What a receiver goes on sending after its head, piece by piece.
#[derive(Clone, Copy)]
enum Flood {
    Body,
    Zipped,
    Head,
    Interim,
}

/// A gzip bomb's beginning is as good as any bytes: nothing unpacks it.
const PIECE: usize = 64 * 1024;

/// The most bytes that a receiver sends, so that the test ends even if nothing stops it.
const SENT_MAX: usize = 10_000_000_000;

async fn flood(mut stream: TcpStream, flood: Flood) -> std::io::Result<usize> {
    let mut request = [0; 4096];
    if stream.read(&mut request).await? == 0 {
        return Ok(0);
    }
    let head = match flood {
        Flood::Body => "HTTP/1.1 500 No\r\nContent-Length: 10000000000\r\n\r\n",
        Flood::Zipped => "HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n",
        Flood::Head => "HTTP/1.1 500 No\r\n",
        Flood::Interim => "",
    };
    stream.write_all(head.as_bytes()).await?;
    let piece: Vec<u8> = match flood {
        Flood::Body | Flood::Zipped => vec![b'x'; PIECE],
        Flood::Head => b"X-Header: again\r\n".repeat(PIECE / 17),
        Flood::Interim => b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n".repeat(PIECE / 48),
    };
    let mut sent = 0;
    while sent < SENT_MAX {
        stream.write_all(&piece).await?;
        sent += piece.len();
    }
    Ok(sent)
}

async fn receiver(kind: Flood) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(flood(stream, kind));
        }
    });
    url
}

/// The most memory that a process has had, in KiB, as Linux counts it.
pub(super) fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn hostile_receivers_cost_a_bounded_memory() {
    let database = TestDatabase::create().await;
    let mut server = Process::start(&database.options.url, &["--attempt-timeout-ms", "1500"]).await;
    let token = server.printed_token().await;
    let ask = |path: &str| Ask::new("POST", &server.base, path).token(&token);
    let mut tests = Vec::new();
    for number in 0..RECEIVERS {
        let kind = [Flood::Body, Flood::Zipped, Flood::Head, Flood::Interim][number % 4];
        let webhook: Value = ask("/v1/webhooks")
            .json(&json!({ "url": receiver(kind).await }))
            .send()
            .await
            .expect(201);
        tests.push(ask(&format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap())));
    }
    let attempts: Vec<_> = tests.into_iter().map(|test| tokio::spawn(test.send())).collect();
    for attempt in attempts {
        let delivery = tokio::time::timeout(Duration::from_mins(1), attempt)
            .await
            .unwrap()
            .unwrap()
            .expect(200);
        assert_ne!(delivery["status"], "delivered");
        let kept = delivery["response_body"].as_str().unwrap_or_default();
        assert!(kept.len() <= 4096, "{} bytes are kept", kept.len());
    }
    let peak = peak_kib(server.id());
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB at the peak");
}

/// Connections whose clients do not read, for each of two paths.
const UNREAD: u64 = 150;

/// Requests of the API that the node handles at once.
const REQUESTS_MAX: u64 = 4;

/// The maximum bytes of a page of a list (`--page-bytes-max`), which is the largest response.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// The formula of docs/operations.md of what clients can cost at most, in KiB: a part for each connection, for each request of the API with
/// bodies and responses of these sizes, for requests without a token, and for each CPU.
fn cost_kib_max(connections: u64, requests: u64, body_and_response_bytes: u64) -> u64 {
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    connections * 128 + requests * 3 * body_and_response_bytes / 1024 + 32 * 1024 + cpus * 64 * 1024
}

/// Sends a request repeatedly on a connection of its own, and reads nothing.
async fn ask_without_reading(base: &str, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = base.trim_start_matches("http://").parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(request.repeat(8).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn responses_that_nobody_reads_cost_a_bounded_memory() {
    let database = TestDatabase::create().await;
    let requests_max = REQUESTS_MAX.to_string();
    let limits = ["--requests-max", &requests_max, "--connections-per-peer-max", "0"];
    let patient = ["--write-timeout-ms", "600000"];
    let mut server = Process::start(&database.options.url, &[&limits[..], &patient].concat()).await;
    let token = server.printed_token().await;
    let ask = |method: &str, path: &str| Ask::new(method, &server.base, path).token(&token);
    for _ in 0..8 {
        let data = json!({ "job_id": Uuid::new_v4(), "text": "x".repeat(250_000) });
        let event = json!({ "type": "humanization.completed", "data": data });
        ask("POST", "/v1/events").json(&event).send().await.expect(202);
    }
    let page = || ask("GET", "/v1/events?limit=8").send();
    let response = page().await;
    let response_bytes = response.body.len() as u64;
    assert!(response_bytes > 500_000, "worth not to be read: {response_bytes}");
    assert!(response_bytes <= PAGE_BYTES_MAX, "{response_bytes}");
    assert!(response.header("link").is_some(), "all eight are twice as much");
    response.expect(200);
    let before = peak_kib(server.id());
    let authorized = format!("GET /v1/events?limit=8 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let anonymous = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(ask_without_reading(&server.base, &authorized).await);
        unread.push(ask_without_reading(&server.base, anonymous).await);
        // One after another, so that none is refused only because others are in progress.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cost = peak_kib(server.id()) - before;
    // No request has a body here, so the CPUs' part is left out.
    let cost_max = cost_kib_max(2 * UNREAD, REQUESTS_MAX, PAGE_BYTES_MAX) - cost_kib_max(0, 0, 0) + 32 * 1024;
    assert!(cost < cost_max, "{cost} KiB beyond {before}, not {cost_max}");
    page().await.expect_problem(503, "service_unavailable");
    drop(unread);
    eventually(|| async { (page().await.status == 200).then_some(()) }).await;
}

/// What one HTTP/2 connection may cost more than one of HTTP/1.1, in KiB, as docs/operations.md says.
const HTTP2_KIB_MAX: u64 = 256;

#[tokio::test]
async fn responses_by_http2_that_nobody_reads_cost_a_bounded_memory() {
    const CONNECTIONS: u64 = 100;
    let database = TestDatabase::create().await;
    let limits = ["--connections-per-peer-max", "0", "--write-timeout-ms", "600000"];
    let server = Process::start(&database.options.url, &limits).await;
    let page = || Ask::new("GET", &server.base, "/docs/swagger-ui-bundle.js").send();
    page().await;
    let before = peak_kib(server.id());
    // The largest window, so that only the connection is full.
    let mut requests = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
        &frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()),
    ]
    .concat();
    for number in 0..32 {
        let path = if number % 4 == 0 {
            "/docs/swagger-ui-bundle.js"
        } else {
            "/openapi.json"
        };
        requests.extend(get(2 * number + 1, path, None));
    }
    let connect = async |requests: &[u8]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = server.base.trim_start_matches("http://").parse().unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(requests).await.unwrap();
        stream
    };
    let mut unread = Vec::new();
    for _ in 0..CONNECTIONS {
        unread.push(connect(&requests).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cost = peak_kib(server.id()) - before;
    let cost_max = cost_kib_max(CONNECTIONS, 0, 0) - cost_kib_max(0, 0, 0) + CONNECTIONS * HTTP2_KIB_MAX + 64 * 1024;
    assert!(cost < cost_max, "{cost} KiB beyond {before}, not {cost_max}");
    // A few of the responses may have gone whole into the kernel's buffers. Without a window, none ends.
    let mut requests = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..32 {
        requests.extend(get(2 * number + 1, "/docs/swagger-ui-bundle.js", None));
    }
    // Some of them may be refused, since responses are in progress that end later: then others take what those leave.
    let mut is_full = false;
    for _ in 0..100 {
        unread.push(connect(&requests).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
        is_full = page().await.status == 503;
        if is_full {
            break;
        }
    }
    assert!(is_full, "the pages are still served");
    drop(unread);
    eventually(|| async { (page().await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn bodies_cost_a_bounded_memory() {
    const REQUESTS: u64 = 32;
    let database = TestDatabase::create().await;
    let mut server = Process::start(&database.options.url, &[]).await;
    let token = server.printed_token().await;
    // Each number is two bytes here, and far more in a tree.
    let numbers = "0,".repeat(127_000);
    let body = format!(
        r#"{{"type": "job.completed", "data": {{"job_id": "{}", "numbers": [{numbers}0]}}}}"#,
        Uuid::new_v4()
    );
    let publish = |body: &str| {
        Ask::new("POST", &server.base, "/v1/events")
            .token(&token)
            .text(body)
            .send()
    };
    publish(&body.replace(&numbers, "")).await.expect(202);
    let before = peak_kib(server.id());
    for _ in 0..3 {
        let publishing: Vec<_> = (0..REQUESTS).map(|_| tokio::spawn(publish(&body))).collect();
        for published in publishing {
            published.await.unwrap().expect(202);
        }
    }
    let cost = peak_kib(server.id()) - before;
    let cost_max = cost_kib_max(REQUESTS, REQUESTS, body.len() as u64);
    assert!(cost < cost_max, "{cost} KiB beyond {before}, not {cost_max}");
}
