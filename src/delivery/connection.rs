//! One HTTP/1.1 connection to a receiver, driven by the attempt that uses it.
//!
//! hyper's usual client gives each connection a task of its own, so that every request and every piece of a response
//! passes between two tasks, often between two threads. Here the attempt itself polls the connection: a request costs
//! no change of thread, and a dropped connection is closed at once. An idle connection is not polled; whether the
//! receiver has closed it meanwhile is found out when it is reused.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Body as _, Frame, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::connector::{Stream, word_of};
use crate::domain::outcome::ErrorWord;

/// The largest head of a response, in bytes.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// How many interim responses (1xx; RFC 9110, section 15.2) may precede the response: more than any server needs, and a
/// flood of them would keep a core busy until the deadline.
const INTERIM_RESPONSES_MAX: usize = 64;

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The error word of the attempt's outcome.
    pub(super) word: ErrorWord,
    /// Whether the connection broke before the first byte of the response.
    pub(super) before_response: bool,
}

/// How the names of headers are written. To HTTP it is all the same (RFC 9110, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderSpelling {
    /// `webhook-id`, as deliveries are sent.
    LowerCase,
    /// `Webhook-Id`, as some proxies pass them on.
    TitleCase,
}

/// A connection to a receiver.
pub(super) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Reads and writes; `None` once it has ended.
    driver: Option<http1::Connection<TokioIo<Watched>, Full<Bytes>>>,
    progress: Arc<Progress>,
    opened_at: Instant,
}

impl Connection {
    /// Speaks HTTP/1.1 over `stream`.
    pub(super) async fn open(stream: Box<dyn Stream>, spelling: HeaderSpelling) -> hyper::Result<Self> {
        let progress = Arc::<Progress>::default();
        let watched = Watched {
            stream,
            progress: Arc::clone(&progress),
        };
        let (requests, driver) = http1::Builder::new()
            .max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .title_case_headers(spelling == HeaderSpelling::TitleCase)
            .handshake(TokioIo::new(watched))
            .await?;
        Ok(Self {
            requests,
            driver: Some(driver),
            progress,
            opened_at: Instant::now(),
        })
    }

    /// When it was opened.
    pub(super) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Whether another request can be sent: the last response was read to its end, and neither side has closed.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut unheard());
        self.driver.is_some() && self.requests.is_ready()
    }

    /// Sends a request and returns the response, whose body is yet to be [read](Self::frame).
    pub(super) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Broken> {
        self.progress.begin();
        let progress = Arc::clone(&self.progress);
        hyper::ext::on_informational(&mut request, move |_| progress.interim());
        let mut response = pin!(self.requests.send_request(request));
        let response = poll_fn(|context| self.poll(context, |unheard| response.as_mut().poll(unheard))).await;
        if self.progress.is_flooded() {
            return Err(Broken {
                word: ErrorWord::InvalidResponse,
                before_response: false,
            });
        }
        response.map_err(|error| Broken {
            word: word_of(&error),
            before_response: self.progress.is_silent(),
        })
    }

    /// The next piece of a response's body; `None` at its end.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<hyper::Result<Frame<Bytes>>> {
        // It may have come with the head.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut unheard()) {
            return frame;
        }
        poll_fn(|context| self.poll(context, |unheard| Pin::new(&mut *body).poll_frame(unheard))).await
    }

    /// Whether a response's body has ended, as far as can be known without waiting.
    pub(super) fn has_ended(&mut self, body: &mut Incoming) -> bool {
        let mut next = || Pin::new(&mut *body).poll_frame(&mut unheard());
        if next().is_pending() {
            self.drive(&mut unheard());
        }
        matches!(next(), Poll::Ready(None))
    }

    /// Polls for something that only the driver makes ready.
    ///
    /// The driver gets the task's waker only if there is nothing left to do but wait. It wakes its last poller whenever
    /// something is passed to it or taken from it, and that is this very task, which would be scheduled again for
    /// nothing: once per request, often on another thread.
    fn poll<T>(&mut self, context: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.drive(&mut unheard());
        if let ready @ Poll::Ready(_) = poll(&mut unheard()) {
            return ready;
        }
        self.drive(context);
        poll(&mut unheard())
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        let ended = self
            .driver
            .as_mut()
            .is_some_and(|driver| Pin::new(driver).poll(context).is_ready());
        if ended {
            // Its error went to the response or to the body, whichever is awaited; a request that it has not begun to
            // write gets an error when the driver is dropped.
            self.driver = None;
        }
    }
}

/// A context with a no-op waker.
fn unheard() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What has arrived of the awaited response.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicUsize,
    interim_responses: AtomicUsize,
}

impl Progress {
    fn begin(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.interim_responses.store(0, Ordering::Relaxed);
    }

    fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn interim(&self) {
        self.interim_responses.fetch_add(1, Ordering::Relaxed);
    }

    fn is_silent(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0
    }

    fn is_flooded(&self) -> bool {
        self.interim_responses.load(Ordering::Relaxed) > INTERIM_RESPONSES_MAX
    }
}

/// A stream that notes what is read from it, and stops reading a flood.
struct Watched {
    stream: Box<dyn Stream>,
    progress: Arc<Progress>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.progress.is_flooded() {
            return Poll::Ready(Err(io::Error::other("too many interim responses")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.progress.read(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
