//! A proxy between the service and PostgreSQL that counts statements, round trips and transactions.
//!
//! `pg_stat_statements` counts statements too, if it is loaded, but knows nothing about round trips.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// Codes of a first message that requests encryption: TLS, GSSAPI.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

/// What passed through.
#[derive(Default)]
pub(crate) struct Counters {
    /// Executed statements, including `BEGIN` and `COMMIT`.
    pub(crate) statements: AtomicU64,
    /// How often the service, with no response outstanding on a connection, sent something that has a response.
    pub(crate) round_trips: AtomicU64,
    /// Transactions that ended, including single statements.
    pub(crate) transactions: AtomicU64,
}

/// The proxy. It closes when this is dropped.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

/// One connection.
struct Line {
    counters: Arc<Counters>,
    /// Outstanding responses.
    outstanding: AtomicI64,
    /// Statements since the end of the last transaction.
    executed: AtomicU64,
}

impl Wire {
    /// Opens a proxy to the server at this host and port.
    pub(crate) async fn open(host: String, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::<Counters>::default();
        let accepting = tokio::spawn({
            let counters = Arc::clone(&counters);
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                    for stream in [&client, &server] {
                        stream.set_nodelay(true).unwrap();
                    }
                    let line = Arc::new(Line {
                        counters: Arc::clone(&counters),
                        // The startup ends with a response that was not requested.
                        outstanding: AtomicI64::new(1),
                        executed: AtomicU64::new(0),
                    });
                    tokio::spawn(connect(client, server, line));
                }
            }
        });
        Self {
            address,
            counters,
            accepting,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards both directions until one of them ends; a lost connection is the service's business.
async fn connect(mut client: TcpStream, mut server: TcpStream, line: Arc<Line>) {
    if begin(&mut client, &mut server).await.is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let back = Arc::clone(&line);
    tokio::select! {
        _ = pass(from_client, to_server, |kind, _| line.request(kind)) => {}
        _ = pass(from_server, to_client, |kind, first| back.response(kind, first)) => {}
    }
}

/// Forwards the first message, which has no type; encryption, which would be unreadable, is declined.
async fn begin(client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let (length, code) = (client.read_u32().await?, client.read_u32().await?);
        if ENCRYPTION.contains(&code) {
            client.write_all(b"N").await?;
            continue;
        }
        let mut rest = vec![0; usize::try_from(length).unwrap() - 8];
        client.read_exact(&mut rest).await?;
        server.write_u32(length).await?;
        server.write_u32(code).await?;
        return server.write_all(&rest).await;
    }
}

/// Forwards what is read, and reports each message's type and the first byte after its length.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut message: impl FnMut(u8, u8)) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(64 * 1024);
    // Bytes of the last message that have not arrived yet.
    let mut missing = 0;
    loop {
        bytes.reserve(16 * 1024);
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let mut read = missing.min(bytes.len());
        missing -= read;
        // One byte beyond the head; only `Sync` and its like have none, and theirs is not needed.
        while let Some(head) = bytes.get(read..read + 5) {
            let length = 1 + u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some(first) = bytes.get(read + 5).copied().or((length == 5).then_some(0)) else {
                break;
            };
            message(head[0], first);
            missing = length.saturating_sub(bytes.len() - read);
            read += length - missing;
        }
        to.write_all(&bytes[..read]).await?;
        bytes.drain(..read);
    }
}

impl Line {
    fn request(&self, kind: u8) {
        let executes = kind == b'E' || kind == b'Q';
        if executes {
            self.counters.statements.fetch_add(1, Ordering::Relaxed);
            self.executed.fetch_add(1, Ordering::Relaxed);
        }
        // The response to `Sync` and to a simple query is `ReadyForQuery`.
        if (kind == b'S' || kind == b'Q') && self.outstanding.fetch_add(1, Ordering::Relaxed) == 0 {
            self.counters.round_trips.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn response(&self, kind: u8, first: u8) {
        if kind != b'Z' {
            return;
        }
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        // Idle: no transaction is open any more.
        if first == b'I' && self.executed.swap(0, Ordering::Relaxed) > 0 {
            self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        }
    }
}
