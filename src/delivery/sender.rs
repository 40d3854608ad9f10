//! One HTTP request to a receiver that may be hostile: within a deadline, reading no more than a cap, following
//! nothing.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::sync::Notify;
use tower_service::Service as _;

use super::connector::{ConnectError, GuardedConnector, Resolver, io_word};
use crate::domain::{
    address::AddressPolicy,
    outcome::{ErrorWord, Outcome, RetryAfter},
};

/// How much of an answer's body is read and kept, in bytes; the connection is dropped behind it.
pub const RESPONSE_BODY_BYTES_MAX: usize = 4096;

/// How large an answer's head may be, in bytes.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// How many interim answers (1xx; RFC 9110, section 15.2) may come before the answer: any server has said by then what it
/// has to say, and a flood of them would keep a core busy until the deadline.
const INTERIM_ANSWERS_MAX: usize = 64;

/// How long a connection may wait for the next attempt to the same host: shorter than common servers keep one open, so
/// that a request is not sent into a connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Idle connections kept to one host.
const IDLE_PER_HOST_MAX: usize = 8;

/// The value of `User-Agent`.
const AGENT: &str = concat!("Kallima-Webhooks/", env!("CARGO_PKG_VERSION"));

/// Sends requests to receivers. Clones share connections.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client<HttpsConnector<GuardedConnector>, Full<Bytes>>,
    connector: HttpsConnector<GuardedConnector>,
    timeout: Duration,
}

/// The headers of a delivery beside the ones that every request has.
pub type DeliveryHeaders = Vec<(&'static str, String)>;

impl Sender {
    /// A sender whose attempts end after `timeout`, trusting the public certificate authorities and `extra` ones.
    ///
    /// # Errors
    /// Where an extra certificate cannot be used as an authority.
    pub fn new(
        resolver: Resolver,
        policy: AddressPolicy,
        timeout: Duration,
        extra: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(extra)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(GuardedConnector::new(resolver, policy));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .build(connector.clone());
        Ok(Self {
            client,
            connector,
            timeout,
        })
    }

    /// Connects to the host of `url`, TLS included, as an attempt would, and sends nothing.
    ///
    /// # Errors
    /// The word that an attempt would carry.
    pub async fn connect(&self, url: &str) -> Result<(), ErrorWord> {
        let uri = Uri::try_from(url).map_err(|_| ErrorWord::Network)?;
        let mut connector = self.connector.clone();
        let connecting = tokio::time::timeout(self.timeout, connector.call(uri));
        match connecting.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(word_of(error.as_ref())),
            Err(_) => Err(ErrorWord::Timeout),
        }
    }

    /// Posts `body` to `url`, and says what came of it. Whatever a receiver does, this returns within the deadline.
    pub async fn post(&self, url: &str, headers: DeliveryHeaders, body: Bytes) -> Outcome {
        let mut request = match request(url, headers, body) {
            Ok(request) => request,
            Err(cause) => {
                tracing::warn!(%cause, "a delivery could not be made into a request");
                return failure(ErrorWord::Network);
            }
        };
        let flooded = interim_flood(&mut request);
        let exchange = async {
            tokio::select! {
                answer = self.client.request(request) => match answer {
                    Ok(response) => read(response).await,
                    Err(error) => failure(word_of(&error)),
                },
                () = flooded.notified() => failure(ErrorWord::InvalidResponse),
            }
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| failure(ErrorWord::Timeout))
    }
}

/// TLS that trusts the public certificate authorities and `extra` ones.
///
/// # Errors
/// Where an extra certificate cannot be used as an authority.
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

fn request(url: &str, headers: DeliveryHeaders, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut builder = Request::builder()
        .method(Method::POST)
        .uri(Uri::try_from(url)?)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, AGENT);
    for (name, value) in headers {
        builder = builder.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    builder.body(Full::new(body))
}

/// Notified when more interim answers come to the request than [`INTERIM_ANSWERS_MAX`].
fn interim_flood<B>(request: &mut Request<B>) -> Arc<Notify> {
    let (flooded, count) = (Arc::new(Notify::new()), AtomicUsize::new(0));
    let notify = Arc::clone(&flooded);
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == INTERIM_ANSWERS_MAX {
            notify.notify_one();
        }
    });
    flooded
}

fn failure(word: ErrorWord) -> Outcome {
    Outcome {
        error: Some(word),
        ..Outcome::default()
    }
}

/// Reads the answer up to the cap. A body that breaks off below the cap is a failure whatever the status said.
async fn read(response: Response<Incoming>) -> Outcome {
    let status = response.status();
    // HTTP's statuses end at 599 (RFC 9110, section 15); hyper reads up to 999.
    if status.as_u16() > 599 {
        return failure(ErrorWord::InvalidResponse);
    }
    let header = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let retry_after = header.and_then(RetryAfter::parse);
    let mut body = response.into_body();
    let mut kept = Vec::new();
    let mut broken = None;
    while kept.len() < RESPONSE_BODY_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => kept.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default()),
            Some(Err(error)) => {
                broken = Some(word_of(&error));
                break;
            }
            None => break,
        }
    }
    Outcome {
        response_status: Some(status.as_u16()),
        response_body: Some(text(&kept)),
        error: broken.or_else(|| status_word(status)),
        retry_after,
    }
}

/// The first bytes as text: what is not UTF-8 is replaced, and so is NUL, which PostgreSQL cannot keep in a text.
/// A character that the cap cuts in two is left out, and the text never has more characters than the cap has bytes.
fn text(kept: &[u8]) -> String {
    let kept = kept.get(..RESPONSE_BODY_BYTES_MAX).unwrap_or(kept);
    let whole = match std::str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() => kept.get(..error.valid_up_to()).unwrap_or(kept),
        _ => kept,
    };
    String::from_utf8_lossy(whole).replace('\0', "\u{fffd}")
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

/// Walks an error's causes to the first that says in our words what happened.
fn word_of(error: &(dyn Error + 'static)) -> ErrorWord {
    let mut cause = Some(error);
    let mut word = ErrorWord::Network;
    while let Some(current) = cause {
        if let Some(connect) = current.downcast_ref::<ConnectError>() {
            return connect.word;
        }
        if current.is::<rustls::Error>() {
            return ErrorWord::Tls;
        }
        if let Some(http) = current.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() {
                word = ErrorWord::ConnectionClosed;
            } else if http.is_parse() || http.is_parse_too_large() {
                return ErrorWord::InvalidResponse;
            }
        }
        let socket = current.downcast_ref::<io::Error>();
        word = socket.map_or(word, io_word);
        // The `source` of an io::Error skips the error it wraps, and that may be the one that says what happened.
        cause = match socket.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_as_text_whatever_it_is() {
        assert_eq!(text(b"ok"), "ok");
        assert_eq!(text(b"a\0b\xffc"), "a\u{fffd}b\u{fffd}c");
        let long = "é".repeat(RESPONSE_BODY_BYTES_MAX);
        assert_eq!(text(long.as_bytes()), "é".repeat(RESPONSE_BODY_BYTES_MAX / 2));
        let odd = format!("x{long}");
        assert_eq!(text(odd.as_bytes()).len(), RESPONSE_BODY_BYTES_MAX - 1);
    }
}
