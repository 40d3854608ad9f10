//! HTTP/2: the same API, with the same bounds on clients as HTTP/1.1, frame by frame.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    App,
    app::eventually,
    http2::{
        ACK, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, field, frame, get,
    },
};

/// Longer than anything takes: it only decides how soon a failing test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection that speaks HTTP/2 frame by frame.
struct Raw(TcpStream);

impl Raw {
    async fn connect(app: &App, settings: &[u8]) -> Self {
        let address = app.base.strip_prefix("http://").unwrap();
        Self::greet(TcpStream::connect(address).await.unwrap(), settings).await
    }

    /// Buffers little of what it does not read.
    async fn narrow(app: &App) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = app.base.strip_prefix("http://").unwrap().parse().unwrap();
        Self::greet(socket.connect(address).await.unwrap(), &[]).await
    }

    async fn greet(mut stream: TcpStream, settings: &[u8]) -> Self {
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
        Self(stream)
    }

    /// Whether it could be sent.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// The next frame: kind, flags, stream, payload. `None` if the server has closed.
    async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let read = async {
            let mut header = [0; 9];
            self.0.read_exact(&mut header).await.ok()?;
            let [high, middle, low, kind, flags, stream @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((kind, flags, u32::from_be_bytes(stream), payload))
        };
        timeout(PATIENCE, read).await.expect("it goes on or is closed")
    }

    /// Skips to the next frame of this kind on this stream. `None` if the server closes first.
    async fn skip_to(&mut self, kind: u8, stream: u32) -> Option<Vec<u8>> {
        loop {
            let (seen, _, of, payload) = self.read().await?;
            if (seen, of) == (kind, stream) {
                return Some(payload);
            }
        }
    }

    /// Waits until the server has closed it.
    async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }

    async fn is_alive(&mut self, stream: u32) -> bool {
        self.send(&get(stream, "/healthz", None)).await && self.skip_to(HEADERS, stream).await.is_some()
    }
}

#[tokio::test]
async fn it_is_the_same_api() {
    let app = App::dev().await;
    let body = json!({ "url": "http://127.0.0.1:1/", "description": "x".repeat(200) });
    let created = app.ask("POST", "/v1/webhooks").http2().json(&body).send().await;
    let id = created.expect(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/webhooks/{id}");
    app.ask("GET", &path).http2().send().await.expect(200);
    app.ask("PATCH", &path)
        .http2()
        .json(&json!({ "enabled": 1 }))
        .send()
        .await
        .expect_faults();
    app.ask("GET", "/v1/nothing")
        .http2()
        .send()
        .await
        .expect_problem(404, "not_found");
    app.ask("PUT", &path)
        .http2()
        .send()
        .await
        .expect_problem(405, "method_not_allowed");
    let large = json!({ "description": "x".repeat(20_000) });
    let large = app.ask("PATCH", &path).http2().json(&large).send().await;
    large.expect_problem(413, "payload_too_large");
    let page = app
        .ask("GET", "/docs/swagger-ui-bundle.js")
        .http2()
        .anonymous()
        .send()
        .await;
    assert!(page.body.len() > 1_000_000, "in many pieces: {}", page.body.len());
    app.ask("DELETE", &path).http2().send().await.expect(204);
    // A tunnel to somewhere.
    let mut raw = Raw::connect(&app, &[]).await;
    let connect = [field(1, "localhost:1"), field(2, "CONNECT")].concat();
    assert!(raw.send(&frame(HEADERS, END_HEADERS, 1, &connect)).await);
    let refused = raw.skip_to(HEADERS, 1).await.expect("it is answered");
    assert!(refused.contains(&0x8d), "404 of the static table: {refused:?}");
    assert!(raw.is_alive(3).await);
    // Several at once, on one connection.
    let mut raw = Raw::connect(&app, &[]).await;
    let requests = [1, 3, 5].map(|stream| get(stream, "/v1/webhooks", Some(&app.token)));
    assert!(raw.send(&requests.concat()).await);
    let mut answered = 0;
    while answered < 3 {
        let (kind, ..) = raw.read().await.unwrap();
        answered += usize::from(kind == HEADERS);
    }
}

#[tokio::test]
async fn a_connection_says_its_limits_and_keeps_them() {
    let app = App::dev().await;
    let mut raw = Raw::connect(&app, &[]).await;
    let settings = raw.skip_to(SETTINGS, 0).await.unwrap();
    let settings: Vec<_> = settings
        .chunks(6)
        .map(|one| (one[1], u32::from_be_bytes(one[2..].try_into().unwrap())))
        .collect();
    for expected in [(3, 32), (4, 65_535), (6, 16 * 1024)] {
        // The default window need not be announced.
        assert!(
            settings.contains(&expected) || expected.0 == 4,
            "{expected:?} in {settings:?}"
        );
        assert!(
            settings.iter().all(|one| one.0 != expected.0 || *one == expected),
            "{settings:?}"
        );
    }
    // Requests whose bodies do not come.
    let publish = block("POST", "/v1/events", Some(&app.token));
    let publish = [publish, field(31, "application/json")].concat();
    for number in 0..33 {
        assert!(raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &publish)).await);
    }
    let refused = raw.skip_to(RST_STREAM, 65).await.expect("the 33rd is refused");
    assert_eq!(refused, 7_u32.to_be_bytes(), "REFUSED_STREAM: it can be sent again");
    // One more header than the size of a head allows.
    let mut raw = Raw::connect(&app, &[]).await;
    let fields: Vec<u8> = (0..60).flat_map(|_| field(58, &"x".repeat(250))).collect();
    let large = [block("GET", "/healthz", None), fields].concat();
    assert!(
        large.len() < 16 * 1024,
        "in one frame, and with 32 bytes for each header too much"
    );
    assert!(raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &large)).await);
    let response = raw.skip_to(HEADERS, 1).await.expect("it is refused");
    // Its status in HPACK: `:status`, and three digits compressed.
    assert!(
        response.starts_with(&[0x48, 0x83, 0x69, 0x90, 0xff]),
        "431: {response:x?}"
    );
}

#[tokio::test]
async fn a_client_that_cancels_what_it_asks_for_is_cut_off() {
    let app = App::dev().await;
    let mut raw = Raw::connect(&app, &[]).await;
    let mut sent = 0;
    for number in 0..10_000 {
        let stream = 2 * number + 1;
        let canceled = [
            get(stream, "/v1/webhooks", Some(&app.token)),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ];
        if !raw.send(&canceled.concat()).await {
            break;
        }
        sent += 1;
    }
    raw.closed().await;
    assert!(sent < 10_000, "all were taken");
    app.get("/v1/webhooks").await.expect(200);
    // A client that cancels now and then is not cut off.
    let mut raw = Raw::connect(&app, &[]).await;
    for number in 0..150 {
        let (canceled, whole) = (4 * number + 1, 4 * number + 3);
        let reset = frame(RST_STREAM, 0, canceled, &[0, 0, 0, 8]);
        assert!(raw.send(&[get(canceled, "/healthz", None), reset].concat()).await);
        assert!(raw.is_alive(whole).await, "after {number}");
    }
}

#[tokio::test]
async fn a_client_that_sends_frames_for_nothing_is_cut_off() {
    let app = App::dev().await;
    for nothing in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(0x77, 0, 0, b"unknown"),
    ] {
        let mut raw = Raw::connect(&app, &[]).await;
        assert!(raw.is_alive(1).await);
        // It reads the responses, so that this is not why it is cut off.
        let (mut reading, mut writing) = raw.0.into_split();
        let drained = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
        let mut sent = 0;
        while sent < 100_000 && writing.write_all(&nothing).await.is_ok() {
            sent += 1;
        }
        drop(timeout(PATIENCE, drained).await.expect("it is closed"));
        assert!(sent < 100_000, "{nothing:?}");
    }
}

#[tokio::test]
async fn a_head_must_arrive_in_time() {
    let limits = ["--dev", "--head-read-timeout-ms", "300", "--idle-timeout-ms", "3600000"];
    let app = App::builder().arguments(&limits).start().await;
    let address = app.base.strip_prefix("http://").unwrap();
    // Less than the preface.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&PREFACE[..18]).await.unwrap();
    let closed = timeout(PATIENCE, stream.read(&mut [0])).await.expect("it is closed");
    assert_eq!(closed.unwrap_or(0), 0);
    let request = get(3, "/healthz", None);
    let open = frame(HEADERS, END_STREAM, 3, &block("GET", "/healthz", None));
    for part in [&request[..5], &request[..20], &open] {
        let mut raw = Raw::connect(&app, &[]).await;
        assert!(raw.is_alive(1).await);
        assert!(raw.send(part).await);
        raw.closed().await;
    }
    // Another byte now and then does not help.
    let mut raw = Raw::connect(&app, &[]).await;
    assert!(raw.send(&open).await);
    let began = Instant::now();
    while raw.send(&frame(CONTINUATION, 0, 3, &field(58, "x"))).await && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() < PATIENCE);
    raw.closed().await;
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let app = App::dev().await;
    let mut raw = Raw::connect(&app, &[]).await;
    assert!(
        raw.send(&frame(HEADERS, END_STREAM, 1, &block("GET", "/healthz", None)))
            .await
    );
    let piece = frame(CONTINUATION, 0, 1, &field(58, &"x".repeat(120)));
    let mut sent = 0;
    while sent < 100_000 && raw.send(&piece).await {
        sent += 1;
    }
    assert!(sent < 100_000);
    raw.closed().await;
}

#[tokio::test]
async fn pings_do_not_keep_an_idle_connection() {
    let limits = ["--dev", "--idle-timeout-ms", "1500"];
    let app = App::builder().arguments(&limits).start().await;
    let mut raw = Raw::connect(&app, &[]).await;
    assert!(raw.is_alive(1).await);
    let began = Instant::now();
    while raw.send(&frame(PING, 0, 0, &[0; 8])).await && began.elapsed() < PATIENCE {
        // Also in two parts.
        let ping = frame(PING, 0, 0, &[0; 8]);
        raw.send(&ping[..7]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        raw.send(&ping[7..]).await;
    }
    let lasted = began.elapsed();
    assert!(lasted >= Duration::from_millis(1400) && lasted < PATIENCE, "{lasted:?}");
}

#[tokio::test]
async fn a_response_that_is_granted_no_window_is_cut_off_and_holds_no_request() {
    let limits = ["--dev", "--write-timeout-ms", "1000", "--requests-max", "1"];
    let app = App::builder().arguments(&limits).start().await;
    // Each stream has a window of no byte, and then of one byte now and then.
    for grants in [false, true] {
        let mut raw = Raw::connect(&app, &[0, 4, 0, 0, 0, 0]).await;
        assert!(raw.send(&get(1, "/v1/event_types", Some(&app.token))).await);
        raw.skip_to(HEADERS, 1).await.unwrap();
        app.get("/v1/webhooks").await.expect_problem(503, "service_unavailable");
        let began = Instant::now();
        let (mut reading, mut writing) = raw.0.into_split();
        let drained = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
        while !drained.is_finished() && began.elapsed() < PATIENCE {
            if grants {
                drop(writing.write_all(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let lasted = began.elapsed();
        assert!(lasted >= Duration::from_millis(900) && lasted < PATIENCE, "{lasted:?}");
        eventually(|| async { (app.get("/v1/webhooks").await.status == 200).then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let app = App::builder()
        .arguments(&["--dev", "--write-timeout-ms", "300"])
        .start()
        .await;
    let mut raw = Raw::narrow(&app).await;
    // The largest window, so that only the connection is full.
    assert!(
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()))
            .await
    );
    assert!(raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await);
    let requests: Vec<u8> = (0..16)
        .flat_map(|number| get(2 * number + 1, "/docs/swagger-ui-bundle.js", None))
        .collect();
    assert!(raw.send(&requests).await);
    eventually(|| async { raw.0.take_error().unwrap().map(|_| ()) }).await;
    app.get("/v1/webhooks").await.expect(200);
}

#[tokio::test]
async fn where_there_is_no_room_an_idle_connection_makes_some() {
    let app = App::builder()
        .arguments(&["--dev", "--connections-max", "1"])
        .start()
        .await;
    let mut first = Raw::connect(&app, &[]).await;
    assert!(first.is_alive(1).await);
    let mut second = Raw::connect(&app, &[]).await;
    assert!(second.is_alive(1).await);
    first.closed().await;
}

#[tokio::test]
async fn a_server_that_stops_says_goodbye() {
    let app = App::dev().await;
    let mut raw = Raw::connect(&app, &[]).await;
    assert!(raw.is_alive(1).await);
    let stopping = tokio::spawn(app.stop());
    let mut is_announced = false;
    while let Some((kind, _, _, payload)) = raw.read().await {
        is_announced |= kind == GOAWAY;
        if kind == PING {
            raw.send(&frame(PING, ACK, 0, &payload)).await;
        }
    }
    assert!(is_announced);
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}
