//! What the machine does without the service and without a database.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, http::header, response::IntoResponse as _, routing::get};
use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{
    driver::{Load, Until, keep_busy},
    event, http,
    receiver::Receiver,
};

/// Axum and a constant: a server that only responds, with a runtime like the service's.
pub(crate) struct Constant {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Constant {
    /// Serves a body at the path of a webhook.
    pub(crate) fn start(body: Vec<u8>) -> Self {
        let runtime = Runtime::new().unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let body = Bytes::from(body);
        let respond = move || {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::ETAG, "\"1a20cea4ac0\""),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (
                    header::HeaderName::from_static("x-request-id"),
                    "req_01M86EMJPWXQEY856DBCSRSYQM",
                ),
            ];
            std::future::ready((headers, body.clone()).into_response())
        };
        let router = Router::new().route("/v1/webhooks/{webhook_id}", get(respond));
        runtime.spawn(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            axum::serve(socket, router).await.unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Constant {
    fn drop(&mut self) {
        // Dropped in place, it would block inside the benchmark's own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Posts what the service would send straight to this receiver: how many per second.
pub(crate) async fn posts(receiver: &Receiver, connections: usize, time: Duration) -> f64 {
    let load = deliveries(receiver, 0);
    keep_busy(&load, connections, Until::Time(time)).await.rate()
}

/// Requests like those of deliveries, of events from this number on.
pub(crate) fn deliveries(receiver: &Receiver, first: u64) -> Load {
    const HEADERS: &str = "user-agent: Kallima-Webhooks/1.0\r\n\
        kallima-event: humanization.failed\r\n\
        kallima-delivery: 01a20cea-4ac0-702c-838b-805767f300a7\r\n\
        kallima-attempt: 1\r\n\
        webhook-id: evt_01M86EMJQ7E3JRXNNT6G8QDYDB\r\n\
        webhook-timestamp: 1795513010\r\n\
        webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=\r\n\
        kallima-signature: t=1795513010,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd\r\n";
    Load {
        address: receiver.address,
        status: 200,
        write: std::sync::Arc::new(move |number, to| {
            http::write(to, "POST", "/0", HEADERS, &event::payload(first + number));
        }),
    }
}
