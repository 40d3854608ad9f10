//! A connection's bytes, with deadlines for its client.
//!
//! | the client | may take | then |
//! |---|---|---|
//! | sends a request's head | `head_read`, from its first byte (of the first head: from the connection's start) | cut off |
//! | sends nothing between two requests | `idle` | closed |
//! | does not read its response | `write` for what hyper has buffered: 48 KiB, by HTTP/2 20 KiB | cut off, what was not read is discarded |
//! | grants an HTTP/2 response no window | `write` for each 48 KiB of it | cut off |
//! | still sends a body that its response did not wait for | `LINGER`, and 16 MiB | cut off |
//! | cancels HTTP/2 requests, or sends frames that belong to none | only so many, in proportion to the responses that it read | cut off |
//!
//! A request's body and the time to answer it have deadlines of their own, in the API.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, futures::OwnedNotified},
    time::{Instant, Sleep, sleep_until},
};

use super::{exchanges::Exchanges, stream::ClientStream};
use crate::domain::{
    frames::{Frames, PREFACE},
    framing::Framing,
};

/// How long a connection is idle before it may be closed to make room for another.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(1);

/// How many requests an HTTP/2 client may cancel, in addition to as many as were answered (rapid reset).
const RESETS_MAX: u64 = 100;

/// How many frames that belong to no request an HTTP/2 client may send, and how many more for each request and each piece
/// of a response. A client that opens the window of stream and connection for every piece sends two.
const IDLE_FRAMES_MAX: u64 = 1000;
const IDLE_FRAMES_PER_WORK: u64 = 10;

/// How long a client may go on sending the body of a request that was refused before it was read, and how many bytes. If
/// the connection were closed at once, the client would see that and not the response.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the client of a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// To send a request's head.
    pub(super) head_read: Duration,
    /// To begin the next request.
    pub(super) idle: Duration,
    /// To read what is buffered of a response.
    pub(super) write: Duration,
}

/// A time that a task waits for. It is moved often and reached seldom, so the timer stays at an earlier time and is moved
/// once that comes.
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

/// What the client speaks.
#[derive(Debug)]
enum Protocol {
    /// Not known yet: this many bytes of HTTP/2's preface have arrived.
    Unknown(usize),
    Http1,
    Http2(Frames),
}

/// What the server waits for while no request is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first byte of the connection.
    Greeting,
    /// The rest of a head.
    Head,
    /// The first byte of the next head, after this many requests.
    Next(u64),
}

/// A connection's bytes.
pub(super) struct Wire {
    stream: ClientStream,
    protocol: Protocol,
    framing: Framing,
    exchanges: Arc<Exchanges>,
    timeouts: Timeouts,
    room_wanted: Arc<Notify>,
    /// What the server is waiting for, and since when.
    wait: (Wait, Instant),
    /// The number of requests after which the connection became idle, and when.
    idle: (u64, Instant),
    reading: Alarm,
    /// The position of an idle connection in the queue of those that may be closed.
    eviction: Option<Pin<Box<OwnedNotified>>>,
    /// Since when the client has not read what hyper has for it.
    stalled: Option<Instant>,
    writing: Alarm,
    /// Since when the rest of a body has been discarded, and how much of it.
    lingering: Option<(Instant, usize)>,
}

impl Wire {
    /// A connection that has just begun.
    pub(super) fn new(
        stream: ClientStream,
        exchanges: Arc<Exchanges>,
        timeouts: Timeouts,
        room_wanted: Arc<Notify>,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            protocol: Protocol::Unknown(0),
            framing: Framing::default(),
            exchanges,
            timeouts,
            room_wanted,
            wait: (Wait::Greeting, now),
            idle: (0, now),
            reading: Alarm::default(),
            eviction: None,
            stalled: None,
            writing: Alarm::default(),
            lingering: None,
        }
    }

    /// Follows bytes from the client. Fails if it has sent more useless frames than it may.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes;
        if let Protocol::Unknown(matched) = self.protocol {
            let expected = &PREFACE[matched..];
            let same = bytes.iter().zip(expected).take_while(|(a, b)| a == b).count();
            if same == expected.len() {
                self.protocol = Protocol::Http2(Frames::default());
                self.framing = Framing::default();
                // HTTP/2 frames every request, so its end is never ambiguous.
                self.exchanges.set_understood(u64::MAX);
                bytes = &bytes[same..];
            } else if same == bytes.len() {
                self.protocol = Protocol::Unknown(matched + same);
            } else {
                self.protocol = Protocol::Http1;
            }
        }
        if let Protocol::Http2(frames) = &mut self.protocol {
            frames.feed(bytes);
            let is_flood = frames.resets() > RESETS_MAX + self.exchanges.answered()
                || frames.idle() > IDLE_FRAMES_MAX + IDLE_FRAMES_PER_WORK * self.exchanges.work();
            return if is_flood {
                Err(io::Error::other("too many canceled requests or useless frames"))
            } else {
                Ok(())
            };
        }
        self.framing.feed(bytes);
        self.exchanges.set_understood(self.framing.understood());
        Ok(())
    }

    /// What the server is waiting for; `None` while a request is in progress or its response is unread, which have other
    /// deadlines.
    fn waits_for(&self) -> Option<Wait> {
        if self.exchanges.is_busy() || self.stalled.is_some() {
            return None;
        }
        Some(match &self.protocol {
            Protocol::Unknown(0) => Wait::Greeting,
            Protocol::Unknown(_) => Wait::Head,
            Protocol::Http1 if self.framing.is_in_head() => Wait::Head,
            // Blank lines before the first head.
            Protocol::Http1 if self.framing.understood() == 0 => Wait::Greeting,
            Protocol::Http1 => Wait::Next(self.framing.understood()),
            Protocol::Http2(frames) if frames.is_in_head() => Wait::Head,
            Protocol::Http2(_) => Wait::Next(self.exchanges.ended()),
        })
    }

    /// Returns since when the connection has been waiting for `wait`.
    fn since(&mut self, wait: Wait) -> Instant {
        if self.wait.0 != wait {
            let since = match (self.wait, wait) {
                // The first head is timed from the connection's start.
                ((Wait::Greeting, since), Wait::Head) => since,
                // Useless frames do not restart the idle timeout.
                (_, Wait::Next(number)) if self.idle.0 == number => self.idle.1,
                _ => Instant::now(),
            };
            if let Wait::Next(number) = wait {
                self.idle = (number, since);
            }
            self.wait = (wait, since);
            self.eviction = None;
        }
        self.wait.1
    }

    /// Ready once the client has been too slow; without an error if it is merely idle.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.protocol, Protocol::Http2(_))
            && let Some(since) = self.exchanges.slowest(context)
        {
            ready!(self.reading.poll(context, since + self.timeouts.write));
            self.stream.discard_unread();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let Some(wait) = self.waits_for() else {
            self.eviction = None;
            return Poll::Pending;
        };
        let since = self.since(wait);
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
        // Behave as if the client had hung up.
        Poll::Ready(Ok(()))
    }

    /// Ready once the client has for too long not read what hyper has for it.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.writing.poll(context, since + self.timeouts.write));
        self.stream.discard_unread();
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Ready once the rest of a body has been discarded, or takes too long.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (since, mut discarded) = *self.lingering.get_or_insert_with(|| (Instant::now(), 0));
        let mut space = [0; 4096];
        while matches!(self.protocol, Protocol::Http1) && self.framing.is_in_body() && discarded < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return self.reading.poll(context, since + LINGER),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => break,
            }
            self.framing.feed(buffer.filled());
            discarded += buffer.filled().len();
            self.lingering = Some((since, discarded));
        }
        Poll::Ready(())
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
        Poll::Ready(this.follow(&buffer.filled()[before..]))
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
        // TLS has a buffer of its own.
        if Pin::new(&mut this.stream).poll_flush(context)?.is_pending() {
            return this.poll_stalled(context).map(Err);
        }
        // hyper flushes once its buffer is empty. A byte now and then does not reset the deadline: a client that reads that
        // slowly would hold a request for hours.
        this.stalled = None;
        // After a response hyper does not read again by itself, so the wait for the next request starts here.
        if this.poll_patience(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            match Pin::new(&mut this.stream).poll_shutdown(context) {
                // TLS closes with a message, which needs room in the socket, too.
                Poll::Pending => return this.poll_stalled(context).map(Err),
                Poll::Ready(done) => done?,
            }
        }
        this.poll_linger(context).map(Ok)
    }
}
