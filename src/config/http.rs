//! What connections and requests of the API may cost, and who may ask from a browser.

use std::{path::PathBuf, time::Duration};

use axum::http::HeaderValue;
use clap::Args;
use url::Url;

/// What connections and requests of the API may cost, and who may ask from a browser.
#[derive(Args, Clone, Debug)]
pub struct HttpOptions {
    /// PEM file with the certificate chain to serve the API over TLS with (default: plaintext). It is reloaded when it
    /// changes.
    #[arg(long, env = "KALLIMA_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key.
    #[arg(long, env = "KALLIMA_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Open connections to the API at most; more wait to be accepted, and the longest idle one is closed for them.
    #[arg(long, env = "KALLIMA_CONNECTIONS_MAX", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,

    /// Open connections of one peer at most (an IPv4 address, or an IPv6 /64); more are closed at once. 0 sets no limit
    /// (default: 256, or 0 where --trusted-proxy is given).
    #[arg(long, env = "KALLIMA_CONNECTIONS_PER_PEER_MAX", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub connections_per_peer_max: Option<u32>,

    /// Requests of the API under way at once on this node, and an eighth of them more for organizations that have less than
    /// their fair share; more are answered 503 at once.
    #[arg(long, env = "KALLIMA_REQUESTS_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests_max: u32,

    /// Bytes of a page of a list at most: it ends early and says where the next one is. One item is shown all the same,
    /// however large it is.
    #[arg(long, env = "KALLIMA_PAGE_BYTES_MAX", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=64 * 1024 * 1024))]
    pub page_bytes_max: u32,

    /// How long a client may take to send the head of a request, from its first byte on; then its connection is closed.
    #[arg(long, env = "KALLIMA_HEAD_READ_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..=120_000))]
    pub head_read_timeout_ms: u64,

    /// How long a client may take to send the body of a request; then it is answered 400, and its connection is closed.
    #[arg(long, env = "KALLIMA_BODY_READ_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(10..=120_000))]
    pub body_read_timeout_ms: u64,

    /// How long a client may take to read an answer, for each 48 KiB of it; then its connection is closed.
    #[arg(long, env = "KALLIMA_WRITE_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub write_timeout_ms: u64,

    /// How long a connection may stay open between two requests; a load balancer in front must give up sooner.
    #[arg(long, env = "KALLIMA_IDLE_TIMEOUT_MS", default_value_t = 75_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub idle_timeout_ms: u64,

    /// Let pages of this origin use the API from a browser (`https://HOST[:PORT]`; may be repeated).
    #[arg(
        long = "cors-allow-origin",
        env = "KALLIMA_CORS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = parse_origin
    )]
    pub cors_origins: Vec<HeaderValue>,
}

impl HttpOptions {
    /// How the addresses of the API begin.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Open connections to the API at most.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        usize::try_from(self.connections_max).unwrap_or(usize::MAX)
    }

    /// Requests of the API under way at once.
    #[must_use]
    pub fn requests_max(&self) -> usize {
        usize::try_from(self.requests_max).unwrap_or(usize::MAX)
    }

    /// How long a client may take to send the head of a request.
    #[must_use]
    pub fn head_read_timeout(&self) -> Duration {
        Duration::from_millis(self.head_read_timeout_ms)
    }

    /// How long a client may take to send the body of a request.
    #[must_use]
    pub fn body_read_timeout(&self) -> Duration {
        Duration::from_millis(self.body_read_timeout_ms)
    }

    /// How long a client may take to read what the server holds ready for it.
    #[must_use]
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    /// How long a connection may stay open between two requests.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }
}

/// An origin as browsers write it (RFC 6454, section 6.2): they compare it letter by letter.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || "must be an origin, such as https://app.example.com, without a path".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !["http", "https"].contains(&url.scheme()) || url.origin().ascii_serialization() != text {
        return Err(wrong());
    }
    HeaderValue::try_from(text).map_err(|_| wrong())
}
