//! `listen`: a receiver on this machine that prints what arrives, verifies it, and answers as configured.

mod answers;
mod arrival;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use self::{
    answers::{Answer, AnswerOptions, Answers},
    arrival::{Arrival, History},
};
use super::{CommandResult, kit, serve::LISTEN_PORT};
use crate::{clock::Clock, domain::secret::Secret};

/// How much of a body is taken, in bytes: four times what the largest delivery has.
const BODY_BYTES_MAX: usize = 1024 * 1024;

#[derive(Args, Debug)]
pub(super) struct ListenOptions {
    /// Port to receive on, on 127.0.0.1.
    #[arg(long, default_value_t = LISTEN_PORT)]
    port: u16,

    /// The webhook's signing secret (`whsec_…`): deliveries that do not verify are answered 401.
    #[arg(long, env = "KALLIMA_WEBHOOK_SECRET", hide_env_values = true, value_parser = kit::parse_secret)]
    secret: Option<Secret>,

    #[command(flatten)]
    answers: AnswerOptions,

    /// Print one JSON object per delivery.
    #[arg(long)]
    json: bool,
}

/// What every connection shares.
struct Listener {
    secret: Option<Secret>,
    answers: Answers,
    history: History,
    json: bool,
    clock: Clock,
}

pub(super) async fn run(options: ListenOptions, clock: Clock) -> CommandResult {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let socket = TcpListener::bind(address)
        .await
        .map_err(|cause| format!("cannot listen on {address}: {cause}"))?;
    let listener = Arc::new(Listener {
        answers: Answers::new(&options.answers)?,
        secret: options.secret,
        history: History::default(),
        json: options.json,
        clock,
    });
    eprintln!("Receiving on http://{}/ (stop with Ctrl-C)", socket.local_addr()?);
    if listener.secret.is_none() {
        eprintln!("Signatures are not checked: give --secret.");
    }
    loop {
        let (stream, _) = socket.accept().await?;
        tokio::spawn(serve(stream, Arc::clone(&listener)));
    }
}

/// Serves one connection until it ends. However it ends is its client's affair.
async fn serve(stream: TcpStream, listener: Arc<Listener>) {
    let service = service_fn(move |request| {
        let listener = Arc::clone(&listener);
        async move { listener.receive(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    drop(connection.await);
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
struct Closed;

impl Listener {
    async fn receive(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()));
        };
        let now = self.clock.now();
        let mut arrival = Arrival::new(now, parts.headers, body.to_bytes(), self.secret.as_ref());
        arrival.is_duplicate = self.history.is_known(&arrival);
        let (answer, note) = self.answers.give(&arrival).await;
        if let Answer::Status(status, _) = &answer
            && status.is_success()
        {
            self.history.remember(&arrival);
        }
        arrival.print(self.json, answer.status(), note.as_deref());
        match answer {
            Answer::Status(status, body) => Ok(response(status, body)),
            Answer::Close => Err(Closed),
        }
    }
}

fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}
