//! Connections to receivers: they are reused if that is safe, and failures on them are classified correctly.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kallima_webhooks::{
    delivery::{
        connector::Connector,
        dial::Dialer,
        resolver::Resolver,
        sender::{self, Exchange, RequestTarget, Sender},
    },
    domain::{
        address::AddressPolicy,
        destination::DestinationPolicy,
        outcome::{ErrorWord, Outcome},
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::{
    hostile::{certificate, tls_acceptor},
    support::{App, app::eventually},
};

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Sends these bytes, and waits for the next request.
    Respond(&'static [u8]),
    /// Sends these bytes, and closes the connection.
    Close(&'static [u8]),
    /// Resets the connection.
    Reset,
}

const OK: Deed = Deed::Respond(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

/// A receiver that performs these deeds in order, over however many connections, and then returns 200.
#[derive(Clone)]
struct Receiver {
    url: Url,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    deeds: Arc<Mutex<VecDeque<Deed>>>,
}

impl Receiver {
    async fn start(deeds: impl IntoIterator<Item = Deed>) -> Self {
        Self::start_with(None, deeds).await
    }

    /// The same, behind TLS if there is an acceptor.
    async fn start_with(tls: Option<TlsAcceptor>, deeds: impl IntoIterator<Item = Deed>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let origin = match tls {
            Some(_) => "https://receiver.test",
            None => "http://127.0.0.1",
        };
        let receiver = Self {
            url: Url::parse(&format!("{origin}:{port}/hook")).unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
            deeds: Arc::new(Mutex::new(deeds.into_iter().collect())),
        };
        let accepting = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (receiver, tls) = (accepting.clone(), tls.clone());
                // The sender reports the result.
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => receiver.serve(&mut tls.accept(stream).await?).await,
                        None => receiver.serve_plain(stream).await,
                    }
                });
            }
        });
        receiver
    }

    async fn serve_plain(&self, mut stream: TcpStream) -> io::Result<()> {
        match self.serve(&mut stream).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => stream.set_zero_linger(),
            served => served,
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> io::Result<()> {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            while !seen.ends_with(b"}") {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    count => seen.extend_from_slice(&buffer[..count]),
                }
            }
            seen.clear();
            self.requests.fetch_add(1, Ordering::SeqCst);
            let deed = self.deeds.lock().unwrap().pop_front().unwrap_or(OK);
            match deed {
                Deed::Respond(response) => {
                    stream.write_all(response).await?;
                    stream.flush().await?;
                }
                Deed::Close(response) => {
                    stream.write_all(response).await?;
                    return stream.shutdown().await;
                }
                Deed::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }

    /// How many connections and requests have arrived so far.
    fn counts(&self) -> (usize, usize) {
        (
            self.connections.load(Ordering::SeqCst),
            self.requests.load(Ordering::SeqCst),
        )
    }
}

/// A policy that allows http to this machine.
fn open() -> DestinationPolicy {
    DestinationPolicy {
        allow_http: true,
        addresses: AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new()),
        allowed_ports: None,
    }
}

/// A sender to this machine that resolves every name to these addresses.
fn sender_to(addresses: &[&str], dialer: Dialer) -> Sender {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let resolver = Resolver::from_fn(move |_| std::future::ready(Ok(addresses.clone())));
    sender_with(resolver, dialer)
}

fn sender_with(resolver: Resolver, dialer: Dialer) -> Sender {
    let connector = Connector::new(resolver, open(), sender::tls(Vec::new()).unwrap(), dialer);
    Sender::through(connector, Duration::from_secs(15))
}

async fn exchange(sender: &Sender, url: &Url) -> Exchange {
    let target = RequestTarget::new(url).unwrap();
    sender.post_to(&target, &Vec::new(), Bytes::from_static(b"{}")).await
}

async fn post(sender: &Sender, url: &Url) -> Outcome {
    match exchange(sender, url).await {
        Exchange::Ended(outcome) => outcome,
        Exchange::Local(cause) => panic!("{cause}"),
    }
}

async fn delivered(sender: &Sender, url: &Url) -> Outcome {
    let outcome = post(sender, url).await;
    assert!(outcome.delivered(), "{outcome:?}");
    outcome
}

/// The beginning of a response.
fn shown(response: &[u8]) -> String {
    String::from_utf8_lossy(response.get(..80).unwrap_or(response)).into_owned()
}

fn leaked(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

#[tokio::test]
async fn a_response_that_was_read_to_its_end_leaves_its_connection_to_the_next_request() {
    let cap = "x".repeat(4096);
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n{cap}").into_bytes();
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n{cap}\r\n0\r\n\r\n").into_bytes();
    for response in [
        b"HTTP/1.1 204 No Content\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        leaked(whole),
        leaked(chunked),
    ] {
        let receiver = Receiver::start([Deed::Respond(response); 4]).await;
        let sender = sender_to(&[], Dialer::system());
        for _ in 0..4 {
            delivered(&sender, &receiver.url).await;
        }
        assert_eq!(receiver.counts(), (1, 4), "{}", shown(response));
    }
}

#[tokio::test]
async fn a_connection_with_tls_is_used_again_too() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let identity = certificate(&authority, "receiver.test", 2090);
    let deeds = [OK, OK, OK, Deed::Close(b"")];
    let receiver = Receiver::start_with(Some(tls_acceptor(identity)), deeds).await;
    let loopback = Resolver::from_fn(|_| std::future::ready(Ok(vec![[127, 0, 0, 1].into()])));
    let trusted = sender::tls(vec![authority.der().clone()]).unwrap();
    let connector = Connector::new(loopback, open(), trusted, Dialer::system());
    let sender = Sender::through(connector, Duration::from_secs(15));
    for _ in 0..3 {
        delivered(&sender, &receiver.url).await;
    }
    assert_eq!(receiver.counts(), (1, 3));
    delivered(&sender, &receiver.url).await;
    assert_eq!(receiver.counts(), (2, 5));
}

#[tokio::test]
async fn a_failed_attempt_leaves_its_connection_too() {
    let response = Deed::Respond(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops");
    let receiver = Receiver::start([response; 3]).await;
    let sender = sender_to(&[], Dialer::system());
    for _ in 0..3 {
        assert_eq!(
            post(&sender, &receiver.url).await.error,
            Some(ErrorWord::ResponseStatus)
        );
    }
    assert_eq!(receiver.counts(), (1, 3));
}

#[tokio::test]
async fn a_connection_that_cannot_or_must_not_be_used_again_is_dropped() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n{}", "x".repeat(4097)).into_bytes();
    for response in [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".as_slice(),
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n",
        // Bytes after a response belong to nothing.
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        leaked(long),
    ] {
        let receiver = Receiver::start([Deed::Respond(response); 3]).await;
        let sender = sender_to(&[], Dialer::system());
        for _ in 0..3 {
            delivered(&sender, &receiver.url).await;
        }
        assert_eq!(receiver.counts(), (3, 3), "{}", shown(response));
    }
}

/// Whether a request uses a connection that has been idle that long after this response.
async fn waits(response: &'static [u8], time: Duration) -> bool {
    let receiver = Receiver::start([Deed::Respond(response)]).await;
    let sender = sender_to(&[], Dialer::system());
    delivered(&sender, &receiver.url).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    delivered(&sender, &receiver.url).await;
    receiver.counts().0 == 1
}

#[tokio::test]
async fn a_connection_waits_as_long_as_the_receiver_keeps_it_and_four_seconds_if_it_does_not_say() {
    let plain = b"HTTP/1.1 204 No Content\r\n\r\n";
    let said = |seconds: u64| leaked(format!("HTTP/1.1 204 No\r\nKeep-Alive: timeout={seconds}, max=9\r\n\r\n").into());
    let nonsense = b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=soon\r\n\r\n";
    for (response, milliseconds, expected) in [
        (plain.as_slice(), 3900, true),
        (plain, 4100, false),
        (nonsense, 3900, true),
        (nonsense, 4100, false),
        (said(3), 1900, true),
        (said(3), 2100, false),
        (said(20), 18_900, true),
        (said(20), 19_100, false),
        (said(86_400), 59_900, true),
        (said(86_400), 60_100, false),
        (said(0), 0, false),
    ] {
        let answered = shown(response);
        assert_eq!(
            waits(response, Duration::from_millis(milliseconds)).await,
            expected,
            "{milliseconds} ms after {answered}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_is_always_used_grows_old_all_the_same() {
    let receiver = Receiver::start([Deed::Respond(b"HTTP/1.1 204 No\r\nKeep-Alive: timeout=100\r\n\r\n"); 20]).await;
    let sender = sender_to(&[], Dialer::system());
    for _ in 0..7 {
        delivered(&sender, &receiver.url).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(50)).await;
        tokio::time::resume();
    }
    assert_eq!(receiver.counts(), (2, 7), "after five minutes a new one is opened");
}

#[tokio::test]
async fn a_receiver_that_closes_while_a_connection_waits_costs_nothing() {
    let closing = Deed::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let receiver = Receiver::start([closing; 5]).await;
    let sender = sender_to(&[], Dialer::system());
    for _ in 0..5 {
        delivered(&sender, &receiver.url).await;
    }
    assert_eq!(receiver.counts().1, 5);
}

#[tokio::test]
async fn a_receiver_that_closes_in_the_very_moment_gets_the_request_again_over_a_new_connection() {
    for deed in [Deed::Close(b""), Deed::Reset] {
        let receiver = Receiver::start([OK, deed, OK, OK]).await;
        let sender = sender_to(&[], Dialer::system());
        for _ in 0..3 {
            delivered(&sender, &receiver.url).await;
        }
        assert_eq!(receiver.counts(), (2, 4), "{deed:?}");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_once_and_not_over_another_connection_that_has_waited() {
    let receiver = Receiver::start([]).await;
    let sender = sender_to(&[], Dialer::system());
    let (one, other) = tokio::join!(delivered(&sender, &receiver.url), delivered(&sender, &receiver.url));
    assert_eq!(one, other);
    assert_eq!(receiver.counts(), (2, 2));
    receiver
        .deeds
        .lock()
        .unwrap()
        .extend([Deed::Close(b""), Deed::Close(b"")]);
    let outcome = post(&sender, &receiver.url).await;
    assert_eq!(outcome.error, Some(ErrorWord::ConnectionClosed));
    assert_eq!(receiver.counts(), (3, 4));
}

#[tokio::test]
async fn what_fails_on_a_new_connection_or_after_a_byte_of_the_response_is_not_sent_again() {
    let receiver = Receiver::start([Deed::Close(b"")]).await;
    let outcome = post(&sender_to(&[], Dialer::system()), &receiver.url).await;
    assert_eq!(outcome.error, Some(ErrorWord::ConnectionClosed));
    assert_eq!(receiver.counts(), (1, 1));
    for (response, word) in [
        (b"H".as_slice(), ErrorWord::ConnectionClosed),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", ErrorWord::ConnectionClosed),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
            ErrorWord::ConnectionClosed,
        ),
        (b"nonsense\r\n\r\n", ErrorWord::InvalidResponse),
    ] {
        let receiver = Receiver::start([OK, Deed::Close(response)]).await;
        let sender = sender_to(&[], Dialer::system());
        delivered(&sender, &receiver.url).await;
        let outcome = post(&sender, &receiver.url).await;
        assert_eq!(outcome.error, Some(word), "{response:?}");
        assert_eq!(receiver.counts(), (1, 2), "{response:?}");
    }
}

#[tokio::test]
async fn an_engine_opens_no_more_connections_than_it_makes_attempts_at_once() {
    let receiver = Receiver::start([]).await;
    let app = App::builder()
        .arguments(&["--dev", "--attempts-per-webhook-max", "4"])
        .start()
        .await;
    app.webhook(receiver.url.as_str()).await;
    app.publish_at_once(200, "job.completed").await;
    eventually(|| async { (receiver.counts().1 >= 200).then_some(()) }).await;
    app.at_rest().await;
    let (connections, requests) = receiver.counts();
    assert_eq!(requests, 200);
    assert!(connections <= 4, "{connections} connections");
}

/// A listener whose queue is full: whoever connects to it waits for a response that never comes.
async fn black_hole(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    // Nobody accepts them; one more than the queue holds gets no response.
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 100, "the queue does not fill");
    }
    (listener, waiting)
}

#[tokio::test]
async fn an_address_that_does_not_answer_does_not_use_up_the_attempt() {
    let receiver = Receiver::start([]).await;
    let port = receiver.url.port().unwrap();
    let _dead = black_hole(SocketAddr::from(([127, 0, 0, 2], port))).await;
    let sender = sender_to(&["127.0.0.2", "127.0.0.1"], Dialer::system());
    let url = Url::parse(&format!("http://receiver.test:{port}/")).unwrap();
    delivered(&sender, &url).await;
    assert_eq!(receiver.counts(), (1, 1));
}

/// The errors of a process, and of a system, without file descriptors.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

fn is_local(exchange: &Exchange) -> bool {
    matches!(exchange, Exchange::Local(_))
}

/// A dialer that fails with this error this many times.
fn exhausted(times: usize, number: i32) -> Dialer {
    let left = AtomicUsize::new(times);
    Dialer::from_fn(
        move |address| -> std::pin::Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> {
            let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() {
                return Box::pin(std::future::ready(Err(io::Error::from_raw_os_error(number))));
            }
            Box::pin(TcpStream::connect(address))
        },
    )
}

#[tokio::test]
async fn what_this_machine_lacks_is_not_the_receivers_failure() {
    const ENOMEM: i32 = 12;
    let receiver = Receiver::start([]).await;
    for number in [EMFILE, ENFILE, ENOMEM] {
        let sender = sender_to(&[], exhausted(1, number));
        let first = exchange(&sender, &receiver.url).await;
        assert!(is_local(&first), "{number}: {first:?}");
        delivered(&sender, &receiver.url).await;
    }
    let url = Url::parse("http://receiver.test/").unwrap();
    let unresolved = |error: fn() -> io::Error| {
        let resolver = Resolver::from_fn(move |_| std::future::ready(Err(error())));
        sender_with(resolver, Dialer::system())
    };
    let first = exchange(&unresolved(|| io::Error::from_raw_os_error(EMFILE)), &url).await;
    assert!(is_local(&first), "{first:?}");
    let outcome = post(&unresolved(|| io::Error::other("no such name")), &url).await;
    assert_eq!(outcome.error, Some(ErrorWord::Dns));
}

#[tokio::test]
async fn connections_that_wait_make_room_for_one_that_is_needed() {
    let (idle, wanted) = (Receiver::start([]).await, Receiver::start([]).await);
    let port = wanted.url.port().unwrap();
    let failed = AtomicUsize::new(0);
    let dialer = Dialer::from_fn(move |address: SocketAddr| {
        let fails = address.port() == port && failed.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if fails {
                return Err(io::Error::from_raw_os_error(EMFILE));
            }
            TcpStream::connect(address).await
        }
    });
    let sender = sender_to(&[], dialer);
    delivered(&sender, &idle.url).await;
    delivered(&sender, &wanted.url).await;
    delivered(&sender, &idle.url).await;
    assert_eq!((idle.counts(), wanted.counts()), ((2, 2), (1, 1)));
}
