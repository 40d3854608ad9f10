//! One connection: what its client may take its time for, and what it may make us hold in memory.
//!
//! hyper reads and writes through [`Wire`], which closes the connection where the client is too slow:
//!
//! | the client | may take | then |
//! |---|---|---|
//! | sends a request's head | `head_read_timeout`, from its first byte (of the first head: from the connection's start) | cut off |
//! | sends nothing between two requests | `idle_timeout` | closed |
//! | does not read its answer | `write_timeout` for what hyper has buffered, 48 KiB | cut off, what was not read is discarded |
//!
//! A request's body and the time to answer it have deadlines of their own, in the API.

use std::{
    convert::Infallible,
    future::Future,
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body as RouterBody};
use bytes::{Buf as _, Bytes};
use hyper::{
    Request,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulConnection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, futures::OwnedNotified},
    time::{Instant, Sleep, sleep_until},
};
use tower_service::Service as _;

use crate::{
    api::PeerAddress,
    domain::framing::{Framing, UnclearFraming},
};

/// How large a request's head may be. hyper refuses more, and more than 100 headers, with 431 and no body: there is no
/// request yet that a problem could speak of. It buffers as much of an answer.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// How much of an answer is handed to hyper at a time.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// How long a connection is idle before it may be closed to make room for another.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// How long the client of a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// To send a request's head.
    pub(super) head_read: Duration,
    /// To begin the next request.
    pub(super) idle: Duration,
    /// To read what is buffered of an answer.
    pub(super) write: Duration,
}

/// Serves the requests of a connection until it ends. `room_wanted` closes one idle connection each time it is notified:
/// the one that has been idle the longest.
pub(super) fn serve(
    stream: TcpStream,
    peer: IpAddr,
    router: Router,
    timeouts: Timeouts,
    room_wanted: Arc<Notify>,
) -> impl GracefulConnection<Error = hyper::Error> + Send + 'static {
    let exchanges = Arc::new(Exchanges::default());
    let wire = Wire::new(stream, Arc::clone(&exchanges), timeouts, room_wanted);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let exchange = Exchange::begin(&exchanges);
        let is_refused = !exchange.is_understood();
        request.extensions_mut().insert(PeerAddress(peer));
        if is_refused {
            request.extensions_mut().insert(UnclearFraming);
        }
        let answering = router.clone().call(request);
        async move {
            let Ok(mut response) = answering.await;
            if is_refused {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| Pieces::new(body, exchange)))
        }
    });
    http1::Builder::new()
        // The wire has deadlines of its own; hyper's would run while the connection is idle, too.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), service)
}

/// What the two ends of hyper, its bytes and its requests, know of each other.
#[derive(Debug, Default)]
struct Exchanges {
    /// How many requests had a head that says where they end.
    understood: AtomicU64,
    /// How many requests hyper has handed over.
    begun: AtomicU64,
    /// How many of them have been answered to the last byte.
    ended: AtomicU64,
}

impl Exchanges {
    fn is_under_way(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }
}

/// A request under way, until hyper has the last byte of its answer.
#[derive(Debug)]
struct Exchange {
    exchanges: Arc<Exchanges>,
    number: u64,
}

impl Exchange {
    fn begin(exchanges: &Arc<Exchanges>) -> Self {
        Self {
            exchanges: Arc::clone(exchanges),
            number: exchanges.begun.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }

    fn is_understood(&self) -> bool {
        self.number <= self.exchanges.understood.load(Ordering::Relaxed)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.exchanges.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer, piece by piece. hyper would take a large one as a whole and drop its source, and the answer
/// would be in memory without anyone who answers for it. The pieces are copies, so that the last one holds nothing.
#[derive(Debug)]
struct Pieces {
    body: RouterBody,
    rest: Bytes,
    _exchange: Exchange,
}

impl Pieces {
    fn new(body: RouterBody, exchange: Exchange) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            _exchange: exchange,
        }
    }

    fn next_piece(&mut self) -> Bytes {
        let piece = Bytes::copy_from_slice(&self.rest[..self.rest.len().min(PIECE_BYTES_MAX)]);
        self.rest.advance(piece.len());
        if self.rest.is_empty() {
            // Even an empty rest holds the whole.
            self.rest = Bytes::new();
        }
        piece
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
                Ok(data) if data.len() > PIECE_BYTES_MAX => this.rest = data,
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.next_piece()))))
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

/// A point in time that a task waits for. It is moved often and reached seldom, so the timer is left at an earlier one
/// and moved when that comes.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// What the server waits for, where nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first byte of all.
    Greeting,
    /// The rest of a head.
    Head,
    /// The first byte of the head after so many.
    Next(u64),
}

/// A connection's bytes.
struct Wire {
    stream: TcpStream,
    framing: Framing,
    exchanges: Arc<Exchanges>,
    timeouts: Timeouts,
    room_wanted: Arc<Notify>,
    /// What is waited for, and since when.
    wait: (Wait, Instant),
    reading: Alarm,
    /// The place of an idle connection among those that may be closed.
    eviction: Option<Pin<Box<OwnedNotified>>>,
    /// Since when the client has not taken what hyper has for it.
    stalled: Option<Instant>,
    writing: Alarm,
}

impl Wire {
    fn new(stream: TcpStream, exchanges: Arc<Exchanges>, timeouts: Timeouts, room_wanted: Arc<Notify>) -> Self {
        Self {
            stream,
            framing: Framing::default(),
            exchanges,
            timeouts,
            room_wanted,
            wait: (Wait::Greeting, Instant::now()),
            reading: Alarm::default(),
            eviction: None,
            stalled: None,
            writing: Alarm::default(),
        }
    }

    /// What is waited for now; nothing while a request is under way or its answer is not read, which have other
    /// deadlines.
    fn waits_for(&self) -> Option<Wait> {
        if self.exchanges.is_under_way() || self.stalled.is_some() {
            None
        } else if self.framing.is_in_head() {
            Some(Wait::Head)
        } else if self.framing.understood() == 0 {
            Some(Wait::Greeting)
        } else {
            Some(Wait::Next(self.framing.understood()))
        }
    }

    /// Ready once the client has been too slow: without an error where it is merely idle.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(wait) = self.waits_for() else {
            self.eviction = None;
            return Poll::Pending;
        };
        if self.wait.0 != wait {
            // The first head has its time from the connection's start on.
            let since = match (self.wait, wait) {
                ((Wait::Greeting, since), Wait::Head) => since,
                _ => Instant::now(),
            };
            self.wait = (wait, since);
            self.eviction = None;
        }
        let since = self.wait.1;
        if wait == Wait::Head {
            ready!(self.reading.poll(context, since + self.timeouts.head_read));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let patience = match wait {
            Wait::Greeting => self.timeouts.head_read,
            _ => self.timeouts.idle,
        };
        if self.eviction.is_none() {
            ready!(self.reading.poll(context, since + patience.min(IDLE_MIN)));
            let notified = Arc::clone(&self.room_wanted).notified_owned();
            self.eviction = Some(Box::pin(notified));
        }
        if let Some(eviction) = &mut self.eviction
            && eviction.as_mut().poll(context).is_pending()
        {
            ready!(self.reading.poll(context, since + patience));
        }
        // As if the client had hung up.
        Poll::Ready(Ok(()))
    }

    /// Ready once the client has not taken for too long what hyper has for it.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.writing.poll(context, since + self.timeouts.write));
        // What it has not read is discarded at once; otherwise the kernel would go on offering it for minutes.
        drop(self.stream.set_zero_linger());
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if Pin::new(&mut this.stream).poll_read(context, buffer)?.is_pending() {
            return this.poll_patience(context);
        }
        this.eviction = None;
        this.framing.feed(&buffer.filled()[before..]);
        let understood = this.framing.understood();
        this.exchanges.understood.store(understood, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Pending => this.poll_stalled(context).map(Err),
            written @ Poll::Ready(_) => written,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write_vectored(context, slices) {
            Poll::Pending => this.poll_stalled(context).map(Err),
            written @ Poll::Ready(_) => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper flushes once its buffer is empty. A byte now and then does not reset the deadline: whoever reads that
        // slowly would hold a request for hours.
        this.stalled = None;
        // After an answer hyper does not read again by itself, so that this is where the wait for the next request begins.
        if this.poll_patience(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
