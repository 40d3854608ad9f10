//! Accepting connections, within a limit for all of them and one per peer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};

use super::{
    connection,
    stream::ClientStream,
    tls::Tls,
    wire::{IDLE_MIN, Timeouts},
};

/// The pause after a failure to accept: most likely all file descriptors are in use, and some will be closed soon.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// The minimum interval between two log lines of the same complaint.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// How connections are accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenerLimits {
    /// Maximum number of open connections; others wait to be accepted.
    pub(super) connections_max: usize,
    /// Maximum number of open connections per peer; others are closed at once. 0 means no limit.
    pub(super) connections_per_peer_max: usize,
    /// How long clients may take.
    pub(super) timeouts: Timeouts,
    /// How long requests in progress may take to finish when the server stops.
    pub(super) grace: Duration,
}

/// Accepts connections, over TLS if that is given, until `stop` is set; then lets the requests in progress finish within
/// `grace`.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: ListenerLimits,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let peers = Peers::new(limits.connections_per_peer_max);
    let room_wanted = Arc::new(Notify::new());
    let (mut failures, mut refusals) = (Complaint::default(), Complaint::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(cause) => {
                if let Some(times) = failures.is_due() {
                    tracing::warn!(exception.message = %cause, kallima.times = times, "accepting connections failed; retrying");
                }
                tokio::time::sleep(FAILURE_PAUSE).await;
                continue;
            }
        };
        let Some(peer_permit) = peers.enter(peer) else {
            if let Some(times) = refusals.is_due() {
                let max = limits.connections_per_peer_max;
                tracing::warn!(network.peer.address = %peer, kallima.connections.max = max, kallima.times = times, "connection refused: its peer has too many; if it is a proxy, set --trusted-proxy");
            }
            continue;
        };
        let permit = tokio::select! {
            permit = permit(&permits, &room_wanted) => permit,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (router, room_wanted, watcher) = (router.clone(), Arc::clone(&room_wanted), graceful.watcher());
        let (tls, mut stop) = (tls.clone(), stop.clone());
        tokio::spawn(async move {
            let greeted = tokio::select! {
                greeted = greet(stream, tls.as_ref(), limits.timeouts, &room_wanted) => greeted,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            if let Some(stream) = greeted {
                let connection = connection::serve(stream, peer, router, limits.timeouts, room_wanted);
                // A client that hangs up or sends nonsense is not our concern.
                if let Err(cause) = watcher.watch(connection).await {
                    tracing::debug!(exception.message = %cause, "connection ended with an error");
                }
            }
            drop((permit, peer_permit));
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("stopped with requests in progress: they did not finish in time");
    }
}

/// Performs the TLS handshake, if any. Returns `None` if the client takes longer than for a request's head, if the
/// handshake fails, or if it has been going on for a while and another connection needs the room.
async fn greet(stream: TcpStream, tls: Option<&Tls>, timeouts: Timeouts, room_wanted: &Notify) -> Option<ClientStream> {
    // HTTP/2 frames and TLS records are small: none should wait until the previous one is acknowledged.
    stream.set_nodelay(true).ok()?;
    let Some(tls) = tls else {
        return Some(ClientStream::Plain(stream));
    };
    let give_way = async {
        sleep(timeouts.head_read.min(IDLE_MIN)).await;
        room_wanted.notified().await;
    };
    let cause = tokio::select! {
        accepted = tls.accept(stream) => match accepted {
            Ok(stream) => return Some(ClientStream::Tls(Box::new(stream))),
            Err(cause) => cause.to_string(),
        },
        () = sleep(timeouts.head_read) => "it took too long".to_owned(),
        () = give_way => "another connection needed the room".to_owned(),
    };
    tracing::debug!(exception.message = cause, "TLS handshake failed");
    None
}

/// A permit for one more connection. If there is none left, an idle connection is asked to make room. Never `None`, as the
/// semaphore is not closed.
async fn permit(permits: &Arc<Semaphore>, room_wanted: &Notify) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    room_wanted.notify_one();
    Arc::clone(permits).acquire_owned().await.ok()
}

/// The open connections of each peer.
#[derive(Clone, Debug)]
struct Peers {
    connections_max: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Counts as one connection of a peer until dropped.
#[derive(Debug)]
struct PeerPermit {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            open: Arc::default(),
        }
    }

    /// Counts one more connection of this peer; `None` if it has reached its limit.
    fn enter(&self, address: IpAddr) -> Option<PeerPermit> {
        let peer = peer_of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if self.connections_max > 0 && *count >= self.connections_max {
            return None;
        }
        *count += 1;
        let peers = self.clone();
        Some(PeerPermit { peers, peer })
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// The peer that a connection counts for: the IPv4 address, or the IPv6 /64, since one host has all its addresses.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Something that may happen many times per second, and is worth a log line now and then.
#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
    times: u64,
}

impl Complaint {
    /// Counts one more. If a line is due, returns how many there were since the last line.
    fn is_due(&mut self) -> Option<u64> {
        self.times += 1;
        if self.last.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_connections_and_no_more_until_one_ends() {
        let peers = Peers::new(2);
        let enter = |address: &str| peers.enter(address.parse().unwrap());
        let (first, _second) = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        let other = enter("192.0.2.2").unwrap();
        drop(first);
        let again = enter("192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none());
        drop((again, other));
        assert_eq!(
            peers.open.lock().unwrap().len(),
            1,
            "a peer without connections is forgotten"
        );
        let _six = (enter("2001:db8::1").unwrap(), enter("2001:db8::ffff:1").unwrap());
        assert!(enter("2001:db8:0:0:1::").is_none(), "it is the same network");
        assert!(enter("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn without_a_limit_a_peer_has_as_many_as_there_are() {
        let peers = Peers::new(0);
        let permits: Vec<_> = (0..1000).map(|_| peers.enter(Ipv6Addr::LOCALHOST.into())).collect();
        assert!(permits.iter().all(Option::is_some));
    }

    #[test]
    fn a_complaint_is_due_at_once_and_then_not_for_a_while() {
        let mut complaint = Complaint::default();
        assert_eq!(complaint.is_due(), Some(1));
        assert_eq!((complaint.is_due(), complaint.is_due()), (None, None));
        complaint.last = complaint.last.unwrap().checked_sub(COMPLAINT_INTERVAL);
        assert_eq!(complaint.is_due(), Some(3));
    }
}
