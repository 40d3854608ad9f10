//! One HTTP request to a receiver that may be hostile: within a deadline, reading no more than a cap, following no
//! redirects.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Body as _, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::time::timeout;
use url::{Position, Url};

use super::{
    connection::{Broken, Connection, HeaderSpelling},
    connector::{ConnectError, Connector, Peer, word_of},
    dial::Dialer,
    pool::IdlePool,
    resolver::Resolver,
};
use crate::domain::{
    destination::DestinationPolicy,
    outcome::{ErrorWord, Outcome, RetryAfter},
};

/// How much of a response's body is read and kept, in bytes; beyond it the connection is dropped.
pub const RESPONSE_BODY_BYTES_MAX: usize = 4096;

/// How long a connection stays idle for the next attempt to the same receiver, unless the receiver says how long it
/// keeps it open: less than the 5 s after which Node.js, Apache and uvicorn close one. Others keep them longer (nginx
/// 75 s, load balancers 60 s); a receiver that gets less than one event in 4 s is not worth a connection.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// A connection is given up this much earlier than the receiver says (`Keep-Alive: timeout=5`), so that no request is
/// on its way when it is closed.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

/// The longest time that a connection stays idle, whatever the receiver says.
const IDLE_TIME_MAX: Duration = Duration::from_mins(1);

/// The maximum age of a connection: a receiver that moves to another address must be found there, however busy the old
/// connection is.
const CONNECTION_AGE_MAX: Duration = Duration::from_mins(5);

/// The content type of every delivery.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The value of `User-Agent`.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("Kallima-Webhooks/", env!("CARGO_PKG_VERSION")));

/// How long a receiver keeps a connection open (RFC 2068, section 19.7.1).
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Sends requests to receivers. Clones share connections.
#[derive(Clone)]
pub struct Sender {
    connector: Arc<Connector>,
    pool: IdlePool<Connection>,
    timeout: Duration,
    spelling: HeaderSpelling,
}

/// A delivery's headers, apart from those that every request has.
pub type DeliveryHeaders = Vec<(HeaderName, String)>;

/// The result of a request.
#[derive(Debug)]
pub enum Exchange {
    /// The attempt was made, with this outcome.
    Ended(Outcome),
    /// Nothing was sent, because this machine has run out of file descriptors, ports or memory. That says nothing about
    /// the receiver, so it must not count as an attempt; try again later.
    Local(io::Error),
}

/// Where requests go: what must be known about a URL to send one there. Cheap to clone, and worth keeping for the next
/// one.
#[derive(Clone, Debug)]
pub struct RequestTarget {
    peer: Arc<Peer>,
    /// Path and query.
    uri: Uri,
    host: HeaderValue,
}

impl RequestTarget {
    /// Requests to this URL. `None` if it is neither `http` nor `https`, or cannot be written in a request.
    #[must_use]
    pub fn new(url: &Url) -> Option<Self> {
        Some(Self {
            peer: Arc::new(Peer::of(url)?),
            uri: Uri::try_from(&url[Position::BeforePath..Position::AfterQuery]).ok()?,
            host: HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()?,
        })
    }

    fn request(&self, headers: &DeliveryHeaders, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let map = request.headers_mut();
        map.reserve(headers.len() + 3);
        map.insert(HOST, self.host.clone());
        map.insert(CONTENT_TYPE, JSON);
        map.insert(USER_AGENT, AGENT);
        for (name, value) in headers {
            map.insert(name, HeaderValue::from_str(value).ok()?);
        }
        Some(request)
    }
}

impl Sender {
    /// A sender that sends where `policy` allows, with attempts that end after `timeout`. It trusts the public
    /// certificate authorities and `extra` ones.
    ///
    /// # Errors
    /// If an extra certificate cannot be used as an authority.
    pub fn new(
        resolver: Resolver,
        policy: DestinationPolicy,
        timeout: Duration,
        extra: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let connector = Connector::new(resolver, policy, tls(extra)?, Dialer::system());
        Ok(Self::through(connector, timeout))
    }

    /// A sender that connects through `connector`, with attempts that end after `timeout`.
    #[must_use]
    pub fn through(connector: Connector, timeout: Duration) -> Self {
        Self {
            connector: Arc::new(connector),
            pool: IdlePool::default(),
            timeout,
            spelling: HeaderSpelling::LowerCase,
        }
    }

    /// The same with connections of its own, on which header names are written so.
    #[must_use]
    pub fn spelling(&self, spelling: HeaderSpelling) -> Self {
        Self {
            connector: Arc::clone(&self.connector),
            pool: IdlePool::default(),
            timeout: self.timeout,
            spelling,
        }
    }

    /// Connects to the host of `url`, including TLS, as an attempt would, and sends nothing.
    ///
    /// # Errors
    /// The error word that an attempt would get.
    pub async fn connect(&self, url: &Url) -> Result<(), String> {
        let peer = Peer::of(url).ok_or_else(|| ErrorWord::Network.to_string())?;
        match timeout(self.timeout, self.connector.connect(&peer)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(cause)) => Err(cause.to_string()),
            Err(_) => Err(ErrorWord::Timeout.to_string()),
        }
    }

    /// The same as [`Self::post_to`], for a URL that is not a [`RequestTarget`] yet.
    pub async fn post(&self, url: &Url, headers: &DeliveryHeaders, body: Bytes) -> Exchange {
        match RequestTarget::new(url) {
            Some(target) => self.post_to(&target, headers, body).await,
            None => unwritable(),
        }
    }

    /// Posts `body` and returns the result. Whatever a receiver does, this returns within the deadline.
    ///
    /// A connection that is reused may be closed by the receiver at that very moment. If it breaks before the first
    /// byte of the response, the request is sent again over a new connection: to the receiver both are one attempt,
    /// identical to the last byte. If it did take the first one after all, it sees the same event id (`webhook-id`)
    /// again, as it does after an attempt whose response was lost.
    pub async fn post_to(&self, target: &RequestTarget, headers: &DeliveryHeaders, body: Bytes) -> Exchange {
        timeout(self.timeout, self.exchange(target, headers, body))
            .await
            .unwrap_or_else(|_| failure(ErrorWord::Timeout))
    }

    async fn exchange(&self, target: &RequestTarget, headers: &DeliveryHeaders, body: Bytes) -> Exchange {
        let Some(request) = target.request(headers, body.clone()) else {
            return unwritable();
        };
        let mut request = Some(request);
        if let Some(connection) = self.reused(&target.peer)
            && let Some(request) = request.take()
        {
            match self.over(connection, target, request).await {
                Ok(outcome) => return Exchange::Ended(outcome),
                Err(broken) if broken.before_response => {
                    tracing::debug!(error.type = %broken.word, "a reused connection broke before the response; sending over a new one");
                }
                Err(broken) => return failure(broken.word),
            }
        }
        let connection = match self.connected(&target.peer).await {
            Ok(connection) => connection,
            Err(ConnectError::Failed { word, .. }) => return failure(word),
            Err(ConnectError::Local(cause)) => return Exchange::Local(cause),
        };
        let Some(request) = request.or_else(|| target.request(headers, body)) else {
            return unwritable();
        };
        match self.over(connection, target, request).await {
            Ok(outcome) => Exchange::Ended(outcome),
            Err(broken) => failure(broken.word),
        }
    }

    /// An idle connection from an earlier request, if there is one that the receiver has not closed.
    fn reused(&self, peer: &Peer) -> Option<Connection> {
        while let Some(mut connection) = self.pool.take(peer) {
            if connection.is_ready() {
                tracing::trace!("a connection is used again");
                return Some(connection);
            }
        }
        None
    }

    /// A new connection.
    async fn connected(&self, peer: &Peer) -> Result<Connection, ConnectError> {
        let stream = match self.connector.connect(peer).await {
            // Idle connections make room for what is needed now.
            Err(ConnectError::Local(_)) if self.pool.clear() > 0 => self.connector.connect(peer).await,
            connected => connected,
        };
        let stream =
            stream.inspect_err(|error| tracing::debug!(exception.message = %error, "no connection to a receiver"))?;
        tracing::trace!("a new connection is used");
        let opened = Connection::open(stream, self.spelling).await;
        opened.map_err(|error| ConnectError::failed(word_of(&error), &error))
    }

    /// Sends a request, reads the response, and keeps the connection if it can be reused.
    async fn over(
        &self,
        mut connection: Connection,
        target: &RequestTarget,
        request: Request<Full<Bytes>>,
    ) -> Result<Outcome, Broken> {
        let response = connection.send(request).await?;
        let keep = idle_time(response.headers());
        let (outcome, is_whole) = read(&mut connection, response).await;
        let keep = keep.min(CONNECTION_AGE_MAX.saturating_sub(connection.opened_at().elapsed()));
        if is_whole && !keep.is_zero() && connection.is_ready() {
            self.pool.put(&target.peer, connection, keep);
        }
        Ok(outcome)
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Sender")
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

/// TLS that trusts the public certificate authorities and `extra` ones.
///
/// # Errors
/// If an extra certificate cannot be used as an authority.
pub fn tls(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    extra.into_iter().try_for_each(|certificate| roots.add(certificate))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn failure(word: ErrorWord) -> Exchange {
    Exchange::Ended(failed(word))
}

fn failed(word: ErrorWord) -> Outcome {
    Outcome {
        error: Some(word),
        ..Outcome::default()
    }
}

fn unwritable() -> Exchange {
    tracing::warn!("the request of a delivery could not be built");
    failure(ErrorWord::Network)
}

/// How long the connection may stay idle after a response with these headers.
fn idle_time(headers: &HeaderMap) -> Duration {
    let Some(value) = headers.get(KEEP_ALIVE) else {
        return IDLE_TIME;
    };
    let parameters = value.to_str().unwrap_or_default().split(',');
    let seconds = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok());
    seconds.map_or(IDLE_TIME, |seconds| {
        Duration::from_secs(seconds)
            .saturating_sub(IDLE_MARGIN)
            .min(IDLE_TIME_MAX)
    })
}

/// Reads the response up to the cap, and returns whether it was read to its end. A body that breaks off below the cap
/// is a failure whatever the status.
async fn read(connection: &mut Connection, response: Response<Incoming>) -> (Outcome, bool) {
    let status = response.status();
    // HTTP's statuses end at 599 (RFC 9110, section 15); hyper reads up to 999.
    if status.as_u16() > 599 {
        return (failed(ErrorWord::InvalidResponse), false);
    }
    let header = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let retry_after = header.and_then(RetryAfter::parse);
    let mut body = response.into_body();
    let (mut kept, mut broken, mut is_whole) = (Vec::new(), None, body.is_end_stream());
    while !is_whole {
        match connection.frame(&mut body).await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                let room = RESPONSE_BODY_BYTES_MAX - kept.len();
                kept.extend_from_slice(data.get(..room).unwrap_or(&data));
                if data.len() > room {
                    break;
                }
                if kept.len() == RESPONSE_BODY_BYTES_MAX {
                    // Nothing more is waited for, but the end may have arrived already.
                    is_whole = body.is_end_stream() || connection.has_ended(&mut body);
                    break;
                }
                is_whole = body.is_end_stream();
            }
            Some(Err(error)) => {
                broken = Some(word_of(&error));
                break;
            }
            None => is_whole = true,
        }
    }
    let outcome = Outcome {
        response_status: Some(status.as_u16()),
        response_body: Some(text(kept)),
        error: broken.or_else(|| status_word(status)),
        retry_after,
    };
    (outcome, is_whole)
}

/// The first bytes as text: invalid UTF-8 is replaced, and so is NUL, which PostgreSQL cannot store in a text. A
/// character that the cap cuts in two is dropped, and the text never has more characters than the cap has bytes.
fn text(mut kept: Vec<u8>) -> String {
    if let Err(error) = std::str::from_utf8(&kept)
        && error.error_len().is_none()
    {
        kept.truncate(error.valid_up_to());
    }
    match String::from_utf8(kept) {
        Ok(text) if !text.contains('\0') => text,
        Ok(text) => text.replace('\0', "\u{fffd}"),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).replace('\0', "\u{fffd}"),
    }
}

fn status_word(status: StatusCode) -> Option<ErrorWord> {
    if status.is_success() {
        None
    } else if status.is_redirection() {
        Some(ErrorWord::Redirect)
    } else {
        Some(ErrorWord::ResponseStatus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_as_text_whatever_it_is() {
        let kept = |bytes: &[u8]| text(bytes.to_vec());
        assert_eq!(kept(b"ok"), "ok");
        assert_eq!(kept(b"a\0b"), "a\u{fffd}b");
        assert_eq!(kept(b"a\0b\xffc"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(kept("é".as_bytes().get(..1).unwrap()), "");
        assert_eq!(kept("xé".as_bytes().get(..2).unwrap()), "x");
    }

    #[test]
    fn a_request_has_the_url_in_its_parts() {
        for (url, path, host) in [
            ("https://Example.com", "/", "example.com"),
            ("https://example.com:443/a?b=c", "/a?b=c", "example.com"),
            (
                "http://example.com:8080/a%20b?'x'|`^",
                "/a%20b?%27x%27|`^",
                "example.com:8080",
            ),
            ("https://[2606::1]:8443/?", "/?", "[2606::1]:8443"),
            ("https://bücher.example/ß", "/%C3%9F", "xn--bcher-kva.example"),
        ] {
            let target = RequestTarget::new(&Url::parse(url).unwrap()).unwrap();
            let headers = vec![(RETRY_AFTER, "7".to_owned())];
            let request = target.request(&headers, Bytes::from_static(b"{}")).unwrap();
            assert_eq!(request.uri().to_string(), path, "{url}");
            assert_eq!(request.headers()[HOST], host, "{url}");
            assert_eq!(request.headers()[RETRY_AFTER], "7");
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
        }
        for url in ["ftp://example.com/", "data:text/plain,x"] {
            assert!(RequestTarget::new(&Url::parse(url).unwrap()).is_none(), "{url}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_sent_makes_no_request() {
        let target = RequestTarget::new(&Url::parse("https://example.com/").unwrap()).unwrap();
        let headers = vec![(RETRY_AFTER, "a\r\nX-Other: b".to_owned())];
        assert!(target.request(&headers, Bytes::new()).is_none());
    }
}
