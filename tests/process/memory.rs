//! What hostile receivers cost in memory: a bounded amount, however much they send.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::Process;
use crate::support::{client::Ask, database::TestDatabase};

/// Attempts under way at once, each with a receiver that sends as much as it is let.
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

/// Bytes that a receiver sends at most, so that this ends even where nobody stops it.
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
fn peak_kib(process: u32) -> u64 {
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
