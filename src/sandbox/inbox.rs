//! A receiver on this machine that accepts whatever arrives: where the example webhooks deliver to.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use axum::{Router, body::Bytes, http::StatusCode};
use tokio::{net::TcpListener, task::JoinSet};

use crate::domain::destination::Destination;

/// What the inbox answers with.
const ANSWER: &str = "ok";

/// An inbox, open until it is dropped.
#[derive(Debug)]
pub struct Inbox {
    /// The URL that webhooks deliver to.
    pub url: Destination,
    _serving: JoinSet<()>,
}

impl Inbox {
    /// Opens an inbox at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Where nothing can be listened to.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let url = format!("http://{}/inbox", listener.local_addr()?);
        let url = Destination::from_stored(&url).map_err(io::Error::other)?;
        let router = Router::new().fallback(receive);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(exception.message = %error, "the inbox of the example webhooks is closed");
            }
        });
        Ok(Self { url, _serving: serving })
    }
}

/// Reads the whole request, so that its sender is not cut off.
async fn receive(_body: Bytes) -> (StatusCode, &'static str) {
    (StatusCode::OK, ANSWER)
}
