//! One connection: how long its client may take, and how much memory it may occupy.
//!
//! hyper reads and writes through [`Wire`], which closes the connection if the client is too slow. The first bytes show
//! whether it speaks HTTP/1.1 or HTTP/2, with TLS and without (prior knowledge).

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::sync::Notify;
use tower_service::Service as _;

use super::{
    exchanges::{Exchange, Exchanges, HTTP2_PIECE_BYTES_MAX, Pieces},
    stream::ClientStream,
    wire::{Timeouts, Wire},
};
use crate::{api::PeerAddress, domain::framing::UnclearFraming};

/// The maximum size of a request's head. hyper refuses larger ones, and more than 100 headers, with 431 and no body: there
/// is no request yet that a problem could refer to. It buffers as much of a response.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// The same for HTTP/2, counted as in RFC 9113: with 32 bytes more per header. Each stream may have as much.
const HTTP2_HEAD_BYTES_MAX: u32 = 16 * 1024;

/// The maximum number of concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;

/// Unread bytes of request bodies that an HTTP/2 client may send, per connection and per request: the smallest window that
/// HTTP/2 allows for a connection.
const WINDOW_BYTES: u32 = 65_535;

/// Streams that are reset before the service has seen them, by the client or for its errors; beyond that, the connection is
/// closed.
const UNSEEN_RESETS_MAX: usize = 20;

/// How often an HTTP/2 client is pinged, and how long its response may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the requests of a connection until it ends. Each notification of `room_wanted` closes one idle connection: the
/// one that has been idle longest.
pub(super) fn serve(
    stream: ClientStream,
    peer: IpAddr,
    router: Router,
    timeouts: Timeouts,
    room_wanted: Arc<Notify>,
) -> impl GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static {
    let exchanges = Arc::new(Exchanges::default());
    let wire = Wire::new(stream, Arc::clone(&exchanges), timeouts, room_wanted);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let exchange = Exchange::begin(&exchanges, request.version());
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
    builder().serve_connection(TokioIo::new(wire), service).into_owned()
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The wire has deadlines of its own; hyper's would run while the connection is idle, too.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HTTP2_HEAD_BYTES_MAX)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_send_buf_size(HTTP2_PIECE_BYTES_MAX)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(UNSEEN_RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
