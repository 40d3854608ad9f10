//! `listen`: a receiver on this machine that prints what arrives, for trying out deliveries.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use clap::Args;

use super::{CommandResult, serve::LISTEN_PORT};
use crate::{
    clock::Clock,
    domain::{
        secret::Secret,
        signature::{self, SignatureError},
    },
};

/// How old a signature may be, in seconds (Standard Webhooks' usual tolerance).
const TOLERANCE_S: u64 = 300;

#[derive(Args, Debug)]
pub(super) struct ListenOptions {
    /// Port to receive on, on 127.0.0.1.
    #[arg(long, default_value_t = LISTEN_PORT)]
    port: u16,

    /// The webhook's signing secret (`whsec_…`), to verify what arrives.
    #[arg(long, env = "KALLIMA_WEBHOOK_SECRET", hide_env_values = true, value_parser = parse_secret)]
    secret: Option<Secret>,

    /// Answer with this status.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
}

#[derive(Clone)]
struct Listener {
    secret: Option<Secret>,
    status: StatusCode,
    clock: Clock,
}

fn parse_secret(text: &str) -> Result<Secret, &'static str> {
    Secret::parse(text).ok_or("must be whsec_ and 40 letters and digits")
}

pub(super) async fn run(options: ListenOptions, clock: Clock) -> CommandResult {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let socket = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|cause| format!("cannot listen on {address}: {cause}"))?;
    println!("Receiving on http://{}/ (stop with Ctrl-C)", socket.local_addr()?);
    let listener = Listener {
        secret: options.secret,
        status: StatusCode::from_u16(options.status)?,
        clock,
    };
    Ok(axum::serve(socket, Router::new().fallback(receive).with_state(listener)).await?)
}

async fn receive(State(listener): State<Listener>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    println!(
        "\n{}  {}  attempt {}  delivery {}",
        listener.clock.now(),
        header("kallima-event"),
        header("kallima-attempt"),
        header("kallima-delivery")
    );
    println!("  Kallima-Signature: {}", header("kallima-signature"));
    println!("  {}", verdict(&listener, header("kallima-signature"), &body));
    println!("  {}", String::from_utf8_lossy(&body));
    listener.status
}

fn verdict(listener: &Listener, header: &str, body: &[u8]) -> String {
    let Some(secret) = &listener.secret else {
        return "signature not checked: give --secret".to_owned();
    };
    let now_s = listener.clock.now().as_unix_seconds();
    match signature::verify_kallima(secret, header, body, now_s, TOLERANCE_S) {
        Ok(()) => "signature verifies".to_owned(),
        Err(
            error @ (SignatureError::Malformed | SignatureError::Mismatch | SignatureError::OutsideTolerance { .. }),
        ) => {
            format!("SIGNATURE DOES NOT VERIFY: {error}")
        }
    }
}
