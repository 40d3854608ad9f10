//! Finding the addresses of a host name, by look-ups that end when their attempt ends.
//!
//! The system's `getaddrinfo` cannot be canceled: a look-up that hangs keeps a thread of the runtime's blocking pool until
//! the system gives up, long after its attempt timed out. One organization whose names no server resolves would hold every
//! thread and stop the look-ups of all others. hickory sends the queries itself, so a look-up is a future, which ends when
//! it is dropped. The cost: sources other than DNS and the hosts file (`nsswitch.conf`, mDNS) are not consulted.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};
use tokio::sync::Mutex;

use super::dial::BoxFuture;

/// How long the system's configuration is cached, so that a change of `/etc/resolv.conf` or `/etc/hosts` needs no restart.
const CACHED: Duration = Duration::from_secs(30);

/// How many queries one TCP connection to a name server may carry at once; more would fail. Only long responses use TCP.
const TCP_QUERIES_MAX: usize = 4096;

/// Finds the addresses of a host name.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> BoxFuture<io::Result<Vec<IpAddr>>> + Send + Sync>);

impl Resolver {
    /// Queries the name servers of `/etc/resolv.conf`, and reads `/etc/hosts` first.
    #[must_use]
    pub fn system() -> Self {
        let system = Arc::new(SystemResolver::default());
        Self::from_fn(move |name| {
            let system = Arc::clone(&system);
            async move { look_up(&system.current().await?, &name).await }
        })
    }

    /// A resolver that finds what `look_up` finds.
    pub fn from_fn<F, R>(look_up: F) -> Self
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(look_up(name))))
    }

    /// The addresses of a host name.
    ///
    /// # Errors
    /// If no name server answered, or the name has no address.
    pub async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        (self.0)(name.to_owned()).await
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Resolver")
    }
}

/// The resolver that the system's configuration asks for.
#[derive(Default)]
struct SystemResolver(Mutex<Option<(Instant, TokioResolver)>>);

impl SystemResolver {
    async fn current(&self) -> io::Result<TokioResolver> {
        let mut known = self.0.lock().await;
        match &*known {
            Some((read_at, resolver)) if read_at.elapsed() < CACHED => Ok(resolver.clone()),
            _ => {
                // It reads two files.
                let built = tokio::task::spawn_blocking(|| {
                    let (config, options) = system_config();
                    build(config, options)
                });
                let resolver = built.await.map_err(io::Error::other)?.map_err(io_error)?;
                *known = Some((Instant::now(), resolver.clone()));
                Ok(resolver)
            }
        }
    }
}

/// What `/etc/resolv.conf` says; without the file, a name server on this machine (resolv.conf(5)).
fn system_config() -> (ResolverConfig, ResolverOpts) {
    read_system_conf().unwrap_or_else(|cause| {
        tracing::warn!(exception.message = %cause, "cannot use /etc/resolv.conf: querying the name server 127.0.0.1 instead");
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        (ResolverConfig::from_name_servers(vec![local]), ResolverOpts::default())
    })
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    // Customers choose the names, and so could fill a cache. The name server has one.
    options.cache_size = 0;
    options.max_active_requests = TCP_QUERIES_MAX;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
}

async fn look_up(resolver: &TokioResolver, name: &str) -> io::Result<Vec<IpAddr>> {
    let found = resolver.lookup_ip(name).await.map_err(io_error)?;
    Ok(found.iter().collect())
}

/// Keeps the system's error numbers: some say that this machine has run out of a resource.
fn io_error(error: NetError) -> io::Error {
    match error {
        NetError::Io(cause) => cause
            .raw_os_error()
            .map_or_else(|| io::Error::other(cause), io::Error::from_raw_os_error),
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use hickory_resolver::config::ConnectionConfig;
    use tokio::{runtime, time};

    use super::*;

    /// A name server that resolves every name to 192.0.2.1, but never responds for names that begin with `hangs`.
    fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((_, client)) = socket.recv_from(&mut query) {
                let labels = &query[12..];
                let question = labels.iter().position(|byte| *byte == 0).unwrap() + 5;
                if labels[1..].starts_with(b"hangs") {
                    continue;
                }
                let is_ipv4 = labels[question - 3] == 1;
                let mut response = query[..2].to_vec();
                response.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
                response.extend(&labels[..question]);
                if is_ipv4 {
                    response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
                }
                socket.send_to(&response, client).unwrap();
            }
        });
        address
    }

    fn resolver_of(server: SocketAddr) -> TokioResolver {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        build(ResolverConfig::from_name_servers(vec![server]), ResolverOpts::default()).unwrap()
    }

    #[test]
    fn look_ups_that_hang_delay_no_other() {
        // With one blocking thread, the second look-up by `getaddrinfo` would wait for the first.
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let resolver = resolver_of(name_server());
            let hanging: Vec<_> = (0..100)
                .map(|number| {
                    let resolver = resolver.clone();
                    tokio::spawn(async move { look_up(&resolver, &format!("hangs-{number}.example.")).await })
                })
                .collect();
            let found = time::timeout(Duration::from_secs(4), look_up(&resolver, "answers.example.")).await;
            assert_eq!(found.unwrap().unwrap(), [IpAddr::from([192, 0, 2, 1])]);
            assert!(hanging.iter().all(|look_up| !look_up.is_finished()), "they still hang");
        });
    }

    #[tokio::test]
    async fn the_hosts_file_and_localhost_need_no_name_server() {
        let found = Resolver::system().look_up("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
