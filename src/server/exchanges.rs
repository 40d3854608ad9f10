//! The requests of one connection: how many are in progress, and how far their responses have got.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use axum::body::Body as RouterBody;
use bytes::{Buf as _, Bytes};
use hyper::{
    Version,
    body::{Body, Frame, SizeHint},
};
use tokio::time::Instant;

/// How much of a response is passed to hyper at a time.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The same for HTTP/2, where a connection has many responses at once and hyper buffers at least one piece of each.
pub(super) const HTTP2_PIECE_BYTES_MAX: usize = 4 * 1024;

/// How much of a response has one write timeout: as much as hyper buffers for HTTP/1.
const STRETCH_BYTES: usize = 48 * 1024;

/// What the two sides of hyper, bytes and requests, know about each other.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// How many requests had a head that says where they end.
    understood: AtomicU64,
    /// How many requests hyper has handed over.
    begun: AtomicU64,
    /// How many of them are over: responded to, or canceled.
    ended: AtomicU64,
    /// How many of them have been answered to the last byte.
    answered: AtomicU64,
    /// How many pieces of responses hyper has taken.
    pieces: AtomicU64,
    streams: Mutex<Streams>,
}

/// The responses of an HTTP/2 connection. Each has its own deadline, because a client can read one and leave another.
#[derive(Debug, Default)]
struct Streams {
    /// When the current stretch of a response began, by the number of its request.
    waiting: BTreeMap<u64, Instant>,
    /// Wakes the task that reads the connection once no request is in progress.
    reader: Option<Waker>,
}

impl Exchanges {
    /// So many requests had a head that says where they end.
    pub(super) fn set_understood(&self, understood: u64) {
        self.understood.store(understood, Ordering::Relaxed);
    }

    /// Whether a request is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Acquire) != self.ended.load(Ordering::Acquire)
    }

    /// How many requests are over.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many requests have been answered to the last byte.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Work done for the client: requests and pieces of responses.
    pub(super) fn work(&self) -> u64 {
        self.begun.load(Ordering::Relaxed) + self.pieces.load(Ordering::Relaxed)
    }

    /// When the oldest current stretch of an HTTP/2 connection's responses began. Wakes the caller's task once no request is
    /// in progress.
    pub(super) fn slowest(&self, context: &Context<'_>) -> Option<Instant> {
        let mut streams = self.streams();
        streams.reader = Some(context.waker().clone());
        streams.waiting.values().min().copied()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in progress, until hyper has the last byte of its response.
#[derive(Debug)]
pub(super) struct Exchange {
    exchanges: Arc<Exchanges>,
    number: u64,
    is_http2: bool,
}

impl Exchange {
    /// One more request of the connection.
    pub(super) fn begin(exchanges: &Arc<Exchanges>, version: Version) -> Self {
        Self {
            exchanges: Arc::clone(exchanges),
            number: exchanges.begun.fetch_add(1, Ordering::AcqRel) + 1,
            is_http2: version == Version::HTTP_2,
        }
    }

    /// Whether its head says where it ends.
    pub(super) fn is_understood(&self) -> bool {
        self.number <= self.exchanges.understood.load(Ordering::Relaxed)
    }

    /// Starts the write timeout of the next stretch of the response.
    fn begin_stretch(&self) {
        if self.is_http2 {
            let waiting = &mut self.exchanges.streams().waiting;
            waiting.insert(self.number, Instant::now());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.exchanges.ended.fetch_add(1, Ordering::AcqRel);
        if self.is_http2 {
            let mut streams = self.exchanges.streams();
            streams.waiting.remove(&self.number);
            if let Some(reader) = streams.reader.take_if(|_| !self.exchanges.is_busy()) {
                drop(streams);
                reader.wake();
            }
        }
    }
}

/// The body of a response, piece by piece. hyper would take a large one as a whole and drop its source, and the response
/// would be in memory without counting as a request in progress. The pieces are copies, so that the last one does not keep
/// the whole alive.
#[derive(Debug)]
pub(super) struct Pieces {
    body: RouterBody,
    rest: Bytes,
    piece_bytes_max: usize,
    /// Bytes of the present stretch that hyper has.
    stretch: usize,
    exchange: Exchange,
}

impl Pieces {
    /// The response to a request, of which nothing has been sent yet.
    pub(super) fn new(body: RouterBody, exchange: Exchange) -> Self {
        exchange.begin_stretch();
        Self {
            body,
            rest: Bytes::new(),
            piece_bytes_max: if exchange.is_http2 {
                HTTP2_PIECE_BYTES_MAX
            } else {
                PIECE_BYTES_MAX
            },
            stretch: 0,
            exchange,
        }
    }

    fn next_piece(&mut self) -> Bytes {
        let piece = Bytes::copy_from_slice(&self.rest[..self.rest.len().min(self.piece_bytes_max)]);
        self.rest.advance(piece.len());
        if self.rest.is_empty() {
            // Even an empty rest would keep the whole alive.
            self.rest = Bytes::new();
        }
        piece
    }

    /// Accounts for a piece that hyper takes.
    fn give(&mut self, piece: Bytes) -> Frame<Bytes> {
        self.exchange.exchanges.pieces.fetch_add(1, Ordering::Relaxed);
        self.stretch += piece.len();
        if self.stretch >= STRETCH_BYTES {
            self.stretch = 0;
            self.exchange.begin_stretch();
        }
        Frame::data(piece)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.exchange.exchanges.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) if data.len() > this.piece_bytes_max => this.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(this.give(data)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.next_piece();
        Poll::Ready(Some(Ok(this.give(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
