//! Connecting to a receiver: the only place that resolves a receiver's name, and the only one that opens a
//! connection to it. Literal addresses and names take the same path, so no spelling goes round the check.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;
use url::Host;

use crate::domain::{address::AddressPolicy, outcome::ErrorWord};

/// A future that can be sent between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Finds the addresses of a host name.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> BoxFuture<io::Result<Vec<IpAddr>>> + Send + Sync>);

impl Resolver {
    /// The operating system's resolver.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(|name| async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }

    /// A resolver that answers as `look_up` does.
    pub fn from_fn<F, R>(look_up: F) -> Self
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(look_up(name))))
    }

    /// The addresses of a host name.
    pub async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        (self.0)(name.to_owned()).await
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Resolver")
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{word}: {detail}")]
pub struct ConnectError {
    /// The word that the attempt's outcome carries.
    pub word: ErrorWord,
    detail: String,
}

impl ConnectError {
    fn new(word: ErrorWord, detail: &impl ToString) -> Self {
        Self {
            word,
            detail: detail.to_string(),
        }
    }
}

/// Connects to allowed addresses alone.
#[derive(Clone, Debug)]
pub struct GuardedConnector {
    resolver: Resolver,
    policy: Arc<AddressPolicy>,
}

impl GuardedConnector {
    /// A connector that asks `resolver`, and keeps of its answers what `policy` allows.
    #[must_use]
    pub fn new(resolver: Resolver, policy: AddressPolicy) -> Self {
        Self {
            resolver,
            policy: Arc::new(policy),
        }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let text = uri.to_string();
        let url = url::Url::parse(&text).map_err(|cause| ConnectError::new(ErrorWord::Network, &cause))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            Some(Host::Domain(name)) => self.resolve(name).await?,
            None => return Err(ConnectError::new(ErrorWord::Network, &"the URL has no host")),
        };
        let allowed: Vec<IpAddr> = addresses
            .into_iter()
            .filter(|address| self.policy.allows(*address))
            .collect();
        let mut last = ConnectError::new(ErrorWord::AddressBlocked, &"no allowed address");
        for address in allowed {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => {
                    // Requests are small and waited for: nothing is won by holding their last bytes back.
                    stream
                        .set_nodelay(true)
                        .map_err(|cause| ConnectError::new(io_word(&cause), &cause))?;
                    return Ok(TokioIo::new(stream));
                }
                Err(cause) => last = ConnectError::new(io_word(&cause), &cause),
            }
        }
        Err(last)
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let failed = |cause: io::Error| ConnectError::new(ErrorWord::Dns, &cause);
        let addresses = self.resolver.look_up(name).await.map_err(failed)?;
        if addresses.is_empty() {
            return Err(ConnectError::new(ErrorWord::Dns, &"the name has no address"));
        }
        Ok(addresses)
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = BoxFuture<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// The word for an error of a socket.
#[must_use]
pub fn io_word(error: &io::Error) -> ErrorWord {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorWord::ConnectionRefused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ErrorWord::ConnectionReset,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted => ErrorWord::ConnectionClosed,
        io::ErrorKind::TimedOut => ErrorWord::Timeout,
        _ => ErrorWord::Network,
    }
}
