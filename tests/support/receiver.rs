//! A receiver on this machine, which gives the configured answers and keeps what it got.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use kallima_webhooks::domain::{secret::Secret, signature};
use serde_json::Value;
use tokio::{net::TcpSocket, sync::watch};

use super::{app::eventually, validate::ResponseValidator};

static VALIDATOR: LazyLock<ResponseValidator> = LazyLock::new(ResponseValidator::new);

/// How a receiver answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    gate: Option<watch::Receiver<bool>>,
}

/// Holds answers back until it is opened or dropped, so that what happens during an attempt does not depend on the
/// machine's speed. An attempt that may be held for long needs [`Builder::patient`](super::app::Builder::patient).
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
            gate: None,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub(crate) fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.0.subscribe());
        self
    }
}

/// An address that refuses connections as long as the socket is held: bound, but not listening. A port that was merely free
/// a moment ago may become another test's.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A delivery as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Arrival {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn payload(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether both signatures are valid for this secret and the bytes that arrived.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        let signed = signature::sign(
            &Secret::parse(secret).unwrap(),
            self.header("webhook-id"),
            timestamp,
            &self.body,
        );
        signed.kallima_signature == self.header("kallima-signature")
            && signed.webhook_signature == self.header("webhook-signature")
    }
}

/// A listening receiver.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// What to answer next; 200 when nothing is left.
    script: VecDeque<Reply>,
    arrivals: Vec<Arrival>,
}

impl Receiver {
    /// Starts a receiver that gives these answers, then always 200.
    pub(crate) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", socket.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared {
            script: script.into_iter().collect(),
            ..Shared::default()
        }));
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
        Self { url, shared }
    }

    /// Sets the next answer.
    pub(crate) fn then(&self, reply: Reply) {
        self.shared.lock().unwrap().script.push_back(reply);
    }

    /// Gives 200 from now on.
    pub(crate) fn forget(&self) {
        self.shared.lock().unwrap().script.clear();
    }

    /// What arrived so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.lock().unwrap().arrivals.clone()
    }

    /// The deliveries that arrived, once there are this many.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> impl Future<Output = Vec<Arrival>> {
        eventually(async move || Some(self.arrivals()).filter(|arrivals| arrivals.len() >= count))
    }
}

async fn receive(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, body: Bytes) -> Response {
    VALIDATOR.check_delivery(&headers, &body);
    let reply = {
        let mut shared = shared.lock().unwrap();
        shared.arrivals.push(Arrival { headers, body });
        shared.script.pop_front().unwrap_or_else(|| Reply::status(200))
    };
    if let Some(mut gate) = reply.gate {
        drop(gate.wait_for(|open| *open).await);
    }
    let mut response = (StatusCode::from_u16(reply.status).unwrap(), Body::from(reply.body)).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
