//! Opening a TCP connection to one of several addresses: Happy Eyeballs (RFC 8305).
//!
//! A receiver whose IPv6 is dead, or that has one dead machine among several, must not cost an attempt its whole time.
//! hyper-util's connector does less: it races the two families, but tries the addresses of one family one after another,
//! without a limit, and cannot tell a failure of this machine from one of the receiver.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time};

use crate::machine;

/// A future that can be sent between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The head start of each candidate before the next one is tried in parallel: RFC 8305's "Connection Attempt Delay"
/// (section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long one candidate may take: a lost SYN is resent after 1 and 3 seconds, and a host that replied to none of the
/// three will not reply to the next.
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many addresses are tried; a name may have hundreds.
const CANDIDATES_MAX: usize = 8;

/// The error numbers of a process, and of a system, that has no file descriptors left: the same on all Unix systems,
/// and without a variant in [`io::ErrorKind`].
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Opens connections to addresses.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn(SocketAddr) -> BoxFuture<io::Result<TcpStream>> + Send + Sync>);

impl Dialer {
    /// The operating system's sockets.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(TcpStream::connect)
    }

    /// A dialer that connects as `connect` does.
    pub fn from_fn<F, R>(connect: F) -> Self
    where
        F: Fn(SocketAddr) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<TcpStream>> + Send + 'static,
    {
        Self(Arc::new(move |address| Box::pin(connect(address))))
    }

    /// Connects to the first of `candidates` that responds. They are tried in order, the two address families
    /// alternating, each with a head start before the next; the others are dropped as soon as one is connected.
    ///
    /// # Errors
    /// The error of the candidate that failed last; but if one failed for a [local reason](is_local), that one, since
    /// it says nothing about the receiver.
    pub(super) async fn dial(&self, candidates: Vec<SocketAddr>) -> io::Result<TcpStream> {
        let mut waiting = alternating(candidates).into_iter().take(CANDIDATES_MAX);
        // Dropping it aborts the rest: the losers, or all of them at the attempt's deadline.
        let mut racing = JoinSet::new();
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        loop {
            if let Some(candidate) = waiting.next() {
                racing.spawn(self.connect(candidate));
            }
            let head_start = async {
                if waiting.len() > 0 {
                    time::sleep(HEAD_START).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                ended = racing.join_next() => match ended {
                    Some(Ok(Ok(stream))) => return Ok(stream),
                    Some(Ok(Err(cause))) if is_local(&failed) => tracing::debug!(exception.message = %cause, "a candidate failed, too"),
                    Some(Ok(Err(cause))) => failed = cause,
                    Some(Err(panicked)) => failed = io::Error::other(panicked),
                    None => return Err(failed),
                },
                () = head_start => {}
            }
        }
    }

    /// Connects to one address.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + use<> {
        let connecting = (self.0)(address);
        async move {
            let connected = time::timeout(CANDIDATE_TIMEOUT, connecting).await;
            connected
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|cause| classified(cause, address))
        }
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Dialer")
    }
}

/// Whether an error says that this machine has run out of something (file descriptors, ports, memory), and nothing
/// about the receiver.
#[must_use]
pub fn is_local(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::ResourceBusy)
}

/// Interprets an error of connecting to `address`. EADDRNOTAVAIL has two meanings: all ports are in use, which is local
/// and temporary, or there is no source address (IPv6 on a machine without it), which will not change.
fn classified(error: io::Error, address: SocketAddr) -> io::Error {
    if error.kind() != io::ErrorKind::AddrNotAvailable {
        return error;
    }
    match machine::source(address.ip()) {
        Ok(_) => io::Error::new(io::ErrorKind::ResourceBusy, error),
        Err(_) => io::Error::new(io::ErrorKind::NetworkUnreachable, error),
    }
}

/// The same addresses, the two families alternating, starting with that of the first (RFC 8305, section 4): the
/// resolver has sorted them by preference.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let ipv6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let count = addresses.len();
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == ipv6_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut merged = Vec::with_capacity(count);
    while merged.len() < count {
        merged.extend(first.next());
        merged.extend(second.next());
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, TcpListener},
        sync::Mutex,
    };

    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// When and to what a dialer connected.
    type Journal = Arc<Mutex<Vec<(Duration, SocketAddr)>>>;

    /// A dialer on a network where an address whose last part is 1 is alive, 2 is a black hole, 3 refuses, 4 takes a
    /// second, and for others there is no file descriptor. It only waits on the clock, which advances by itself.
    fn network() -> (Dialer, Journal) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (begun, journal) = (Instant::now(), Journal::default());
        let noted = Arc::clone(&journal);
        let alive = move || {
            let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        };
        let alive = Arc::new(alive);
        let dialer = Dialer::from_fn(move |address| {
            noted.lock().unwrap().push((begun.elapsed(), address));
            let alive = Arc::clone(&alive);
            async move {
                let last = match address.ip() {
                    IpAddr::V4(address) => u16::from(address.octets()[3]),
                    IpAddr::V6(address) => address.segments()[7],
                };
                match last {
                    1 => alive(),
                    2 => std::future::pending().await,
                    3 => Err(io::ErrorKind::ConnectionRefused.into()),
                    4 => {
                        time::sleep(Duration::from_secs(1)).await;
                        alive()
                    }
                    _ => Err(io::Error::from_raw_os_error(EMFILE)),
                }
            }
        });
        (dialer, journal)
    }

    #[test]
    fn families_alternate_beginning_with_the_preferred_one() {
        for (given, expected) in [
            (
                &["[2606::1]:1", "[2606::2]:1", "8.8.8.1:1", "8.8.8.2:1", "8.8.8.3:1"][..],
                &["[2606::1]:1", "8.8.8.1:1", "[2606::2]:1", "8.8.8.2:1", "8.8.8.3:1"][..],
            ),
            (
                &["8.8.8.1:1", "8.8.8.2:1", "[2606::1]:1"],
                &["8.8.8.1:1", "[2606::1]:1", "8.8.8.2:1"],
            ),
            (&["8.8.8.1:1", "8.8.8.2:1"], &["8.8.8.1:1", "8.8.8.2:1"]),
            (&[], &[]),
        ] {
            assert_eq!(alternating(addresses(given)), addresses(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_candidate_has_a_head_start_and_the_first_to_respond_wins() {
        let (dialer, journal) = network();
        let candidates = addresses(&["[2606::2]:1", "[2606::12]:1", "8.8.8.4:1", "8.8.8.1:1", "8.8.8.1:2"]);
        dialer.dial(candidates).await.unwrap();
        let expected = addresses(&["[2606::2]:1", "8.8.8.4:1", "[2606::12]:1", "8.8.8.1:1"]);
        let journal = journal.lock().unwrap().clone();
        assert_eq!(
            journal.iter().map(|(_, address)| *address).collect::<Vec<_>>(),
            expected
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_candidate_is_not_given_up_when_the_next_begins() {
        let (dialer, journal) = network();
        let begun = Instant::now();
        dialer.dial(addresses(&["8.8.8.4:1", "[2606::2]:1"])).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 1);
        let times: Vec<_> = journal.lock().unwrap().iter().map(|(at, _)| at.as_millis()).collect();
        assert_eq!(times.len(), 2);
        assert!((250..260).contains(&times[1]), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_candidate_begins_at_once_when_one_fails() {
        let (dialer, journal) = network();
        dialer
            .dial(addresses(&["8.8.8.3:1", "8.8.8.3:2", "8.8.8.1:1"]))
            .await
            .unwrap();
        let journal = journal.lock().unwrap().clone();
        assert_eq!(journal.len(), 3);
        assert!(journal.iter().all(|(at, _)| at.as_millis() < 100), "{journal:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn candidates_have_a_limit_each_and_all_together() {
        let (dialer, journal) = network();
        let begun = Instant::now();
        let failed = dialer.dial(addresses(&["8.8.8.2:1"])).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), CANDIDATE_TIMEOUT.as_secs());
        journal.lock().unwrap().clear();
        let hundred: Vec<_> = (1..=100).map(|port| SocketAddr::from(([8, 8, 8, 3], port))).collect();
        let failed = dialer.dial(hundred).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(journal.lock().unwrap().len(), CANDIDATES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_local_failure_outweighs_those_of_the_receiver() {
        let (dialer, _) = network();
        for list in [
            &["8.8.8.5:1"][..],
            &["8.8.8.5:1", "8.8.8.3:1"],
            &["8.8.8.3:1", "8.8.8.5:1"],
        ] {
            let failed = dialer.dial(addresses(list)).await.unwrap_err();
            assert!(is_local(&failed), "{list:?}: {failed}");
        }
        dialer.dial(addresses(&["8.8.8.5:1", "8.8.8.1:1"])).await.unwrap();
        let failed = dialer.dial(addresses(&["8.8.8.3:1"])).await.unwrap_err();
        assert!(!is_local(&failed));
    }

    #[test]
    fn what_runs_out_on_this_machine_is_local() {
        const ENOMEM: i32 = 12;
        for number in [EMFILE, ENFILE, ENOMEM] {
            assert!(is_local(&io::Error::from_raw_os_error(number)), "{number}");
        }
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::TimedOut,
            io::ErrorKind::NetworkUnreachable,
        ] {
            assert!(!is_local(&kind.into()), "{kind}");
        }
        // All ports are in use if there is a route; without one there is no source address.
        let taken = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        assert!(is_local(&classified(taken(), addresses(&["127.0.0.1:80"])[0])));
        assert!(!is_local(&classified(taken(), addresses(&["255.255.255.255:80"])[0])));
    }
}
