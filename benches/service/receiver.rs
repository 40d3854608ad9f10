//! The receivers: one listener on a separate thread that responds 200 and notes which delivery arrived when.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::http;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What precedes the number of an event in its payload.
const MARK: &[u8] = b"\"job_id\":\"";

/// The listener. The path identifies the webhook: `/0`, `/1` and so on.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    rounds: Arc<Mutex<Arc<Round>>>,
    next: AtomicU64,
}

/// Events whose deliveries are waited for. Those of other rounds get a response and are not counted.
pub(crate) struct Round {
    /// The number of the first event.
    pub(crate) first: u64,
    events: u64,
    webhooks: u64,
    started: Instant,
    /// When each event was sent, in nanoseconds after `started`; zero until then.
    sent: Vec<AtomicU64>,
    /// When each delivery arrived first, in the same unit.
    arrived: Vec<AtomicU64>,
    count: AtomicU64,
    complete: Notify,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let rounds = Arc::new(Mutex::new(Arc::new(Round::new(0, 0, 1))));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn({
            let rounds = Arc::clone(&rounds);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let socket = TcpListener::from_std(socket).unwrap();
                    loop {
                        let (stream, _) = socket.accept().await.unwrap();
                        tokio::spawn(receive(stream, Arc::clone(&rounds)));
                    }
                });
            }
        });
        Self {
            address,
            rounds,
            next: AtomicU64::new(0),
        }
    }

    /// The URL of a webhook.
    pub(crate) fn url(&self, webhook: usize) -> String {
        format!("http://{}/{webhook}", self.address)
    }

    /// Numbers of events that no other round has.
    pub(crate) fn numbers(&self, count: u64) -> Range<u64> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    /// Begins a round of this many events, each owed to webhooks `0..webhooks`.
    pub(crate) fn expect(&self, events: u64, webhooks: usize) -> Arc<Round> {
        let numbers = self.numbers(events);
        let round = Arc::new(Round::new(numbers.start, events, webhooks as u64));
        *self.rounds.lock().unwrap() = Arc::clone(&round);
        round
    }
}

impl Round {
    fn new(first: u64, events: u64, webhooks: u64) -> Self {
        let slots = |count| std::iter::repeat_with(AtomicU64::default).take(usize::try_from(count).unwrap());
        Self {
            first,
            events,
            webhooks,
            started: Instant::now(),
            sent: slots(events).collect(),
            arrived: slots(events * webhooks).collect(),
            count: AtomicU64::new(0),
            complete: Notify::new(),
        }
    }

    /// Notes that an event, counted from zero, is being sent.
    pub(crate) fn sending(&self, event: u64) {
        self.sent[usize::try_from(event).unwrap()].store(self.now(), Ordering::Relaxed);
    }

    fn arrive(&self, number: u64, webhook: u64) {
        let Some(event) = number.checked_sub(self.first).filter(|event| *event < self.events) else {
            return;
        };
        if webhook >= self.webhooks {
            return;
        }
        let slot = &self.arrived[usize::try_from(event * self.webhooks + webhook).unwrap()];
        // A repeated delivery is not progress.
        let first = slot.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() && self.count.fetch_add(1, Ordering::Release) + 1 == self.events * self.webhooks {
            self.complete.notify_one();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap().max(1)
    }

    /// Deliveries that have arrived.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until every delivery has arrived; returns whether they did within that time.
    pub(crate) async fn completed(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.complete.notified()).await.is_ok()
    }

    /// Waits until every delivery has arrived, and returns how long that took since `start`.
    ///
    /// # Panics
    /// If that takes longer than five minutes.
    pub(crate) async fn elapsed_since(&self, start: Instant) -> Duration {
        assert!(
            self.completed(Duration::from_mins(5)).await,
            "{} of {} deliveries arrived",
            self.count(),
            self.arrived.len()
        );
        let last = self.arrived.iter().map(|slot| slot.load(Ordering::Relaxed)).max();
        self.started + Duration::from_nanos(last.unwrap_or(0)) - start
    }

    /// How long each delivery took since its event was sent, in milliseconds, sorted. A missing one counts with the
    /// time until now.
    pub(crate) fn latencies_ms(&self) -> Vec<f64> {
        let now = self.now();
        let mut latencies = Vec::with_capacity(self.arrived.len());
        for (index, slot) in (0..).zip(&self.arrived) {
            let sent = self.sent[usize::try_from(index / self.webhooks).unwrap()].load(Ordering::Relaxed);
            let arrived = match slot.load(Ordering::Relaxed) {
                0 => now,
                at => at,
            };
            latencies.push(arrived.saturating_sub(sent) as f64 / 1e6);
        }
        latencies.sort_unstable_by(f64::total_cmp);
        latencies
    }
}

async fn receive(mut stream: TcpStream, rounds: Arc<Mutex<Arc<Round>>>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::with_capacity(8 * 1024);
    loop {
        while let Some(message) = http::message(&bytes)
            && bytes.len() >= message.whole
        {
            let webhook = webhook(&bytes);
            if let Some(number) = number(&bytes[message.head..message.whole]) {
                let round = Arc::clone(&rounds.lock().unwrap());
                round.arrive(number, webhook);
            }
            bytes.drain(..message.whole);
            if stream.write_all(RESPONSE).await.is_err() {
                return;
            }
        }
        bytes.reserve(4 * 1024);
        // A sender that is killed or closes is not our failure.
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// The webhook in the path.
fn webhook(request: &[u8]) -> u64 {
    let digits = request["POST /".len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// The number of an event: the last group of its `job_id`.
fn number(payload: &[u8]) -> Option<u64> {
    let start = http::find(payload, MARK)? + MARK.len();
    let digits = payload.get(start + 24..start + 36)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
