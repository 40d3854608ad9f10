//! The clients: HTTP/1.1 over plain sockets, so that measuring takes as little as possible of the machine.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::http;

/// How long a run may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_mins(3);

/// Writes the request with this number.
pub(crate) type Writer = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// Requests of one kind.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// The status that each response must have.
    pub(crate) status: u16,
    pub(crate) write: Writer,
}

/// A keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: Vec::with_capacity(1024),
            response: Vec::with_capacity(8 * 1024),
        })
    }

    /// Sends a request and reads the whole response: its status and its body.
    pub(crate) async fn exchange(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u16, &[u8]) {
        self.request.clear();
        self.response.clear();
        write(&mut self.request);
        self.stream.write_all(&self.request).await.unwrap();
        let message = loop {
            if let Some(message) = http::message(&self.response)
                && self.response.len() >= message.whole
            {
                break message;
            }
            self.response.reserve(4 * 1024);
            let read = self.stream.read_buf(&mut self.response).await.unwrap();
            assert!(read > 0, "the connection was closed before the response");
        };
        let status = std::str::from_utf8(&self.response[9..12]).unwrap().parse().unwrap();
        (status, &self.response[message.head..message.whole])
    }

    async fn send(&mut self, load: &Load, number: u64) {
        let (status, body) = self.exchange(|request| (load.write)(number, request)).await;
        assert!(
            status == load.status,
            "request {number} got {status} instead of {}: {}",
            load.status,
            String::from_utf8_lossy(body)
        );
    }
}

/// When busy clients stop.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this many requests.
    Count(u64),
    /// After this much time.
    Time(Duration),
}

/// What busy clients did.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// When the first request was sent.
    pub(crate) started: Instant,
    /// The time until the last response.
    pub(crate) elapsed: Duration,
    /// Responses.
    pub(crate) count: u64,
}

impl Work {
    /// Responses per second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs this many connections, each sending the next request as soon as it has the response to the previous one.
/// Numbers start at zero.
pub(crate) async fn keep_busy(load: &Load, connections: usize, until: Until) -> Work {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(load.address).await.unwrap());
    }
    let (count, time) = match until {
        Until::Count(count) => (count, Duration::MAX),
        Until::Time(time) => (u64::MAX, time),
    };
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut busy = JoinSet::new();
    for mut connection in open {
        let (load, next) = (load.clone(), Arc::clone(&next));
        busy.spawn(async move {
            let mut responses = 0;
            while started.elapsed() < time {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                connection.send(&load, number).await;
                responses += 1;
            }
            responses
        });
    }
    let responses = tokio::time::timeout(PATIENCE.max(time.saturating_mul(2)), busy.join_all());
    let count = responses.await.unwrap_or_else(|_| panic!("requests hang")).iter().sum();
    Work {
        started,
        elapsed: started.elapsed(),
        count,
    }
}

/// Connections that are borrowed for one request each.
pub(crate) struct Pool {
    load: Load,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A pool with a few open connections, so that none of the first requests waits for one.
    pub(crate) async fn open(load: Load) -> Self {
        let mut idle = Vec::new();
        for _ in 0..16 {
            idle.push(Connection::open(load.address).await.unwrap());
        }
        let idle = Mutex::new(idle);
        Self { load, idle }
    }

    pub(crate) async fn send(&self, number: u64) {
        let idle = self.idle.lock().unwrap().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.load.address).await.unwrap(),
        };
        connection.send(&self.load, number).await;
        self.idle.lock().unwrap().push(connection);
    }
}

/// Starts `each` this many times per second, however long each takes, and waits until all have ended.
pub(crate) async fn pace<F>(rate: u32, count: u64, each: impl Fn(u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let start = tokio::time::Instant::now();
    let mut in_flight = JoinSet::new();
    for number in 0..count {
        tokio::time::sleep_until(start + Duration::from_secs_f64(number as f64 / f64::from(rate))).await;
        in_flight.spawn(each(number));
        while let Some(ended) = in_flight.try_join_next() {
            ended.unwrap();
        }
    }
    tokio::time::timeout(PATIENCE, in_flight.join_all())
        .await
        .unwrap_or_else(|_| panic!("requests hang"));
}
