//! Misbehaving receivers. Each causes one failed attempt, with the right word, not long after the deadline.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{App, app::eventually, receiver::nobody};

/// The deadline of an attempt in tests that wait for it. Elsewhere it is the default, which even a slow machine does not
/// reach before the response that the test is about.
const TIMEOUT: Duration = Duration::from_millis(600);

/// How long after the deadline an attempt may take to end and be recorded.
const LATE_MAX: Duration = Duration::from_secs(1);

/// How often the time of an attempt is measured: a busy machine makes an attempt late now and then, but never early. If it
/// is late every time, that is our fault.
const SAMPLES: u32 = 5;

async fn hasty() -> App {
    App::builder()
        .arguments(&["--dev", "--attempt-timeout-ms", "600"])
        .start()
        .await
}

/// A receiver that treats every connection alike, and counts them.
async fn receiver<F, R>(behaviour: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            // The sender reports what became of it.
            tokio::spawn(behaviour(stream));
        }
    });
    (url, connections)
}

/// Reads a request to the end of its body, which is recognized by its last byte.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.ends_with(b"}") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

/// Responds to a request with these bytes, and keeps the connection open.
async fn answer_and_hang(mut stream: TcpStream, response: &'static [u8]) -> io::Result<()> {
    answer_on(&mut stream, response).await?;
    std::future::pending().await
}

/// Responds to a request with these bytes, and closes the connection.
async fn answer_and_close(mut stream: TcpStream, response: &'static [u8]) -> io::Result<()> {
    answer_on(&mut stream, response).await
}

async fn answer_on<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, response: &[u8]) -> io::Result<()> {
    read_request(stream).await?;
    stream.write_all(response).await?;
    stream.flush().await
}

/// Responds with a head, then repeatedly with the same piece, with pauses in between.
async fn repeat(mut stream: TcpStream, head: &'static [u8], piece: &'static [u8], pause: Duration) -> io::Result<()> {
    answer_on(&mut stream, head).await?;
    loop {
        stream.write_all(piece).await?;
        tokio::time::sleep(pause).await;
    }
}

/// Tests a webhook at this URL, and returns the delivery after its one attempt.
async fn attempt(app: &App, url: &str) -> Value {
    let webhook = app.webhook(url).await;
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let delivery = app.ask("POST", &path).send().await.expect(200);
    assert_eq!(delivery["attempt_count"], 1);
    delivery
}

/// Tests a webhook at this URL, whose attempt must end at its deadline and be recorded not long after.
async fn timed_out(app: &App, url: &str) {
    let mut fastest = Duration::MAX;
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        failed(&attempt(app, url).await, "timeout");
        fastest = fastest.min(begun.elapsed());
        assert!(fastest >= TIMEOUT, "{fastest:?} is before the deadline");
        if fastest < TIMEOUT + LATE_MAX {
            return;
        }
    }
    panic!("it took {fastest:?} at least");
}

/// One failed attempt, with this word.
#[track_caller]
fn failed(delivery: &Value, word: &str) {
    assert_eq!(
        (&delivery["status"], &delivery["error"]),
        (&"failed".into(), &word.into()),
        "{delivery}"
    );
}

#[tokio::test]
async fn receivers_that_answer_nothing_time_out() {
    let app = hasty().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    timed_out(&app, &url).await;
    let (url, _) = receiver(|stream| answer_and_hang(stream, b"")).await;
    timed_out(&app, &url).await;
    let (url, _) = receiver(|stream| answer_and_hang(stream, b"HTTP/1.1 200 OK\r\nContent-Le")).await;
    timed_out(&app, &url).await;
}

#[tokio::test]
async fn a_response_that_does_not_end_times_out_whatever_it_says_first() {
    let app = hasty().await;
    let (url, _) =
        receiver(|stream| answer_and_hang(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")).await;
    timed_out(&app, &url).await;
    let (url, _) = receiver(|stream| {
        repeat(
            stream,
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
            b"x",
            Duration::from_millis(20),
        )
    })
    .await;
    timed_out(&app, &url).await;
    let (url, _) = receiver(|stream| {
        repeat(
            stream,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
            Duration::from_millis(20),
        )
    })
    .await;
    timed_out(&app, &url).await;
}

#[tokio::test]
async fn a_flood_of_interim_responses_ends_the_attempt_and_a_few_do_not() {
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    let app = App::dev().await;
    for pause in [Duration::ZERO, Duration::from_millis(5)] {
        let (url, _) = receiver(move |stream| repeat(stream, b"", HINTS, pause)).await;
        failed(&attempt(&app, &url).await, "invalid_response");
    }
    let few = [&HINTS.repeat(20)[..], b"HTTP/1.1 204 No Content\r\n\r\n"].concat();
    let few: &'static [u8] = Box::leak(few.into_boxed_slice());
    let (url, _) = receiver(move |stream| answer_and_hang(stream, few)).await;
    let delivery = attempt(&app, &url).await;
    assert_eq!(
        (&delivery["status"], &delivery["response_status"]),
        (&"delivered".into(), &204.into())
    );
}

#[tokio::test]
async fn connections_that_break_have_their_words() {
    let app = App::dev().await;
    let (url, _) = receiver(|stream| answer_and_close(stream, b"")).await;
    failed(&attempt(&app, &url).await, "connection_closed");
    let (url, _) =
        receiver(|stream| answer_and_close(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")).await;
    failed(&attempt(&app, &url).await, "connection_closed");
    let (url, _) = receiver(|mut stream| async move {
        read_request(&mut stream).await?;
        // Closed with no time to linger, a socket sends a reset.
        stream.set_zero_linger()
    })
    .await;
    failed(&attempt(&app, &url).await, "connection_reset");
    let (_held, closed) = nobody();
    failed(&attempt(&app, &format!("http://{closed}/")).await, "connection_refused");
}

#[tokio::test]
async fn what_is_not_http_is_an_invalid_response() {
    let app = App::dev().await;
    for response in [
        b"SSH-2.0-OpenSSH_9.2p1\r\n".as_slice(),
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 601 Beyond\r\nContent-Length: 0\r\n\r\n",
        // What a server that speaks only HTTP/2 says first: its settings.
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ] {
        let (url, _) = receiver(move |stream| answer_and_hang(stream, response)).await;
        failed(&attempt(&app, &url).await, "invalid_response");
    }
    let lines: &'static str = Box::leak("X-Header: again\r\n".repeat(10_000).into_boxed_str());
    let (url, _) =
        receiver(move |stream| repeat(stream, b"HTTP/1.1 200 OK\r\n", lines.as_bytes(), Duration::ZERO)).await;
    failed(&attempt(&app, &url).await, "invalid_response");
}

#[tokio::test]
async fn no_more_of_a_body_is_read_than_is_kept() {
    static SENT: AtomicU64 = AtomicU64::new(0);
    static DROPPED: AtomicBool = AtomicBool::new(false);
    let app = App::dev().await;
    let (url, _) = receiver(|mut stream| async move {
        answer_on(
            &mut stream,
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10000000000\r\n\r\n",
        )
        .await?;
        let piece = vec![b'x'; 64 * 1024];
        while stream.write_all(&piece).await.is_ok() {
            SENT.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        DROPPED.store(true, Ordering::SeqCst);
        Ok(())
    })
    .await;
    let delivery = attempt(&app, &url).await;
    // The status was a success; the rest of the body does not matter.
    assert_eq!(delivery["status"], "delivered", "{delivery}");
    assert_eq!(delivery["response_body"], "x".repeat(4096));
    eventually(|| async { DROPPED.load(Ordering::SeqCst).then_some(()) }).await;
    let sent = SENT.load(Ordering::SeqCst);
    assert!(
        sent < 50_000_000,
        "only what the sockets buffer was taken: {sent} bytes"
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let app = App::dev().await;
    let (target, connections) = receiver(|stream| answer_and_close(stream, b"HTTP/1.1 200 OK\r\n\r\n")).await;
    let location = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
    let location: &'static [u8] = Box::leak(location.into_boxed_str()).as_bytes();
    let (url, _) = receiver(move |stream| answer_and_hang(stream, location)).await;
    let delivery = attempt(&app, &url).await;
    failed(&delivery, "redirect");
    assert_eq!(delivery["response_status"], 302);
    assert_eq!(connections.load(Ordering::SeqCst), 0, "nobody went where it pointed");
}

/// A certificate authority, and a receiver's certificate from it, for this name and valid until that year.
pub(crate) fn certificate(
    authority: &CertifiedIssuer<'_, KeyPair>,
    name: &str,
    until: i32,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, authority).unwrap();
    (
        certificate.der().clone(),
        PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
    )
}

/// Accepts TLS with this certificate.
pub(crate) fn tls_acceptor(identity: (CertificateDer<'static>, PrivateKeyDer<'static>)) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.0], identity.1)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A receiver behind TLS that returns 200.
pub(crate) async fn tls_receiver(identity: (CertificateDer<'static>, PrivateKeyDer<'static>)) -> u16 {
    let acceptor = tls_acceptor(identity);
    let (url, _) = receiver(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            answer_on(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
            stream.shutdown().await
        }
    })
    .await;
    url::Url::parse(&url).unwrap().port().unwrap()
}

#[tokio::test]
async fn only_a_certificate_that_holds_is_delivered_to() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    let stranger = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let app = App::builder()
        .arguments(&["--dev"])
        .arguments(&["--tls-ca-file", file.to_str().unwrap()])
        .name("receiver.test", &["127.0.0.1"])
        .start()
        .await;
    for (what, identity, word) in [
        ("in order", certificate(&authority, "receiver.test", 2090), None),
        ("another name", certificate(&authority, "other.test", 2090), Some("tls")),
        ("expired", certificate(&authority, "receiver.test", 2021), Some("tls")),
        (
            "by nobody we trust",
            certificate(&stranger, "receiver.test", 2090),
            Some("tls"),
        ),
    ] {
        let port = tls_receiver(identity).await;
        let delivery = attempt(&app, &format!("https://receiver.test:{port}/")).await;
        assert_eq!(delivery["error"].as_str(), word, "{what}: {delivery}");
    }
    let (url, _) = receiver(|mut stream| async move {
        // All of the greeting is read first: what is left unread when a connection ends makes a reset of it.
        let mut greeting = [0; 4096];
        let _ = stream.read(&mut greeting).await?;
        stream.write_all(b"HTTP/1.1 400 Speak TLS\r\n\r\n").await?;
        std::future::pending().await
    })
    .await;
    failed(
        &attempt(&app, &url.replace("http://127.0.0.1", "https://receiver.test")).await,
        "tls",
    );
}
