//! Connecting to a receiver: the only module that resolves a receiver's name, and the only one that opens a connection
//! to it. Literal addresses and names take the same path, so no spelling bypasses the check.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::{
    dial::{Dialer, is_local},
    resolver::Resolver,
};
use crate::{
    domain::{destination::DestinationPolicy, outcome::ErrorWord},
    machine,
};

/// The peer of a connection: requests to the same peer can share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    https: bool,
    host: Host<String>,
    port: u16,
}

impl Peer {
    /// The peer of an `http` or `https` URL; `None` if it is neither, or has no host.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            https,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The receiver cannot be reached, or must not be.
    #[error("{word}: {detail}")]
    Failed {
        /// The error word of the attempt's outcome.
        word: ErrorWord,
        /// What happened, for the log.
        detail: String,
    },
    /// This machine has run out of something that a connection needs, which says nothing about the receiver.
    #[error("this machine cannot connect now: {0}")]
    Local(#[source] io::Error),
}

impl ConnectError {
    pub(super) fn failed(word: ErrorWord, detail: &impl ToString) -> Self {
        Self::Failed {
            word,
            detail: detail.to_string(),
        }
    }
}

/// A connection, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to allowed destinations only.
#[derive(Clone)]
pub struct Connector {
    resolver: Resolver,
    policy: DestinationPolicy,
    tls: TlsConnector,
    dialer: Dialer,
}

impl Connector {
    /// A connector that resolves names with `resolver`, and keeps the addresses that `policy` allows.
    #[must_use]
    pub fn new(resolver: Resolver, policy: DestinationPolicy, tls: ClientConfig, dialer: Dialer) -> Self {
        Self {
            resolver,
            policy,
            tls: TlsConnector::from(Arc::new(tls)),
            dialer,
        }
    }

    /// Connects to `peer`, including TLS. The policy is checked again here, whatever was allowed when the URL was
    /// registered.
    ///
    /// # Errors
    /// Without a packet sent, if the policy does not allow the scheme, the port or any of the addresses.
    pub async fn connect(&self, peer: &Peer) -> Result<Box<dyn Stream>, ConnectError> {
        if !self.policy.allows_scheme(peer.scheme()) {
            let detail = format!("deliveries over {} are not allowed", peer.scheme());
            return Err(ConnectError::failed(ErrorWord::AddressBlocked, &detail));
        }
        if !self.policy.allows_port(peer.port) {
            let detail = format!("deliveries to port {} are not allowed", peer.port);
            return Err(ConnectError::failed(ErrorWord::AddressBlocked, &detail));
        }
        let mut candidates = self.resolve(&peer.host).await?;
        candidates.retain(|address| self.policy.addresses.allows(*address));
        if candidates.is_empty() {
            return Err(ConnectError::failed(ErrorWord::AddressBlocked, &"no allowed address"));
        }
        let candidates = candidates
            .into_iter()
            .map(|address| SocketAddr::new(address, peer.port))
            .collect();
        let stream = self.dialer.dial(candidates).await.map_err(unconnected)?;
        // Requests are small and waited for: delaying their last bytes gains nothing.
        stream.set_nodelay(true).map_err(unconnected)?;
        if !peer.https {
            return Ok(Box::new(stream));
        }
        let name = server_name(&peer.host).map_err(|cause| ConnectError::failed(ErrorWord::Tls, &cause))?;
        let secured = self.tls.connect(name, stream).await;
        let stream = secured.map_err(|cause| ConnectError::failed(word_of(&cause), &cause))?;
        Ok(Box::new(stream))
    }

    async fn resolve(&self, host: &Host<String>) -> Result<Vec<IpAddr>, ConnectError> {
        let name = match host {
            Host::Ipv4(address) => return Ok(vec![IpAddr::V4(*address)]),
            Host::Ipv6(address) => return Ok(vec![IpAddr::V6(*address)]),
            Host::Domain(name) => name,
        };
        let addresses = self.resolver.look_up(name).await.map_err(unresolved)?;
        if addresses.is_empty() {
            return Err(ConnectError::failed(ErrorWord::Dns, &"the name has no address"));
        }
        Ok(addresses)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connector")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// The name that the receiver's certificate must be for.
fn server_name(host: &Host<String>) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()),
        Host::Ipv4(address) => Ok(ServerName::from(IpAddr::V4(*address))),
        Host::Ipv6(address) => Ok(ServerName::from(IpAddr::V6(*address))),
    }
}

fn unconnected(cause: io::Error) -> ConnectError {
    if is_local(&cause) {
        ConnectError::Local(cause)
    } else {
        ConnectError::failed(io_word(&cause), &cause)
    }
}

/// A resolver that gets no socket may report that the name could not be resolved, so this checks whether sockets are
/// available.
fn unresolved(cause: io::Error) -> ConnectError {
    if is_local(&cause) {
        return ConnectError::Local(cause);
    }
    match machine::source(Ipv4Addr::LOCALHOST.into()) {
        Err(local) if is_local(&local) => ConnectError::Local(local),
        _ => ConnectError::failed(ErrorWord::Dns, &cause),
    }
}

/// Walks an error's causes to the first that has an error word.
pub(super) fn word_of(error: &(dyn Error + 'static)) -> ErrorWord {
    let mut cause = Some(error);
    let mut word = ErrorWord::Network;
    while let Some(current) = cause {
        if current.is::<rustls::Error>() {
            return ErrorWord::Tls;
        }
        if let Some(http) = current.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() || http.is_canceled() {
                word = ErrorWord::ConnectionClosed;
            } else if http.is_parse() || http.is_parse_too_large() {
                return ErrorWord::InvalidResponse;
            }
        }
        let socket = current.downcast_ref::<io::Error>();
        word = socket.map_or(word, io_word);
        // An io::Error's `source` skips the error it wraps, which may be the one with the error word.
        cause = match socket.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
    }
    word
}

/// The error word for a socket's error.
fn io_word(error: &io::Error) -> ErrorWord {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorWord::ConnectionRefused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ErrorWord::ConnectionReset,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted => ErrorWord::ConnectionClosed,
        io::ErrorKind::TimedOut => ErrorWord::Timeout,
        _ => ErrorWord::Network,
    }
}
