//! Limits of connections and requests of the API, and which web pages may use it.

use std::{path::PathBuf, time::Duration};

use axum::http::HeaderValue;
use clap::Args;
use url::Url;

/// Limits of connections and requests of the API, and which web pages may use it.
#[derive(Args, Clone, Debug)]
pub struct HttpOptions {
    /// PEM file with the certificate chain to serve the API over TLS with (default: plaintext). It is reloaded when it
    /// changes.
    #[arg(long, env = "KALLIMA_TLS_CERT", value_name = "FILE", help_heading = "API")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key.
    #[arg(long, env = "KALLIMA_TLS_KEY", value_name = "FILE", help_heading = "API")]
    pub tls_key: Option<PathBuf>,

    /// Maximum number of open connections to the API. Others wait to be accepted, and the one idle longest is closed for them.
    #[arg(long, env = "KALLIMA_CONNECTIONS_MAX", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "API")]
    pub connections_max: u32,

    /// Maximum number of open connections per peer (an IPv4 address, or an IPv6 /64); others are closed at once. 0 means no
    /// limit (default: 256, or 0 with --trusted-proxy).
    #[arg(long, env = "KALLIMA_CONNECTIONS_PER_PEER_MAX", value_parser = clap::value_parser!(u32).range(0..=1_000_000), help_heading = "API")]
    pub connections_per_peer_max: Option<u32>,

    /// Maximum number of API requests in progress on this node, plus an eighth for organizations that have less than their
    /// fair share. Others are answered 503 at once.
    #[arg(long, env = "KALLIMA_REQUESTS_MAX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "API")]
    pub requests_max: u32,

    /// Maximum size of a page of a list, in bytes: a longer page ends early and links to the next one. A single item is shown
    /// however large it is.
    #[arg(long, env = "KALLIMA_PAGE_BYTES_MAX", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=64 * 1024 * 1024), help_heading = "API")]
    pub page_bytes_max: u32,

    /// How long a client may take to send the head of a request, counted from its first byte; then its connection is closed.
    #[arg(long, env = "KALLIMA_HEAD_READ_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..=120_000), help_heading = "API")]
    pub head_read_timeout_ms: u64,

    /// How long a client may take to send the body of a request; then the response is 400, and the connection is closed.
    #[arg(long, env = "KALLIMA_BODY_READ_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(10..=120_000), help_heading = "API")]
    pub body_read_timeout_ms: u64,

    /// How long a client may take to read each 48 KiB of a response; then its connection is closed.
    #[arg(long, env = "KALLIMA_WRITE_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(10..=600_000), help_heading = "API")]
    pub write_timeout_ms: u64,

    /// How long a connection may stay open between two requests. A load balancer in front needs a shorter timeout.
    #[arg(long, env = "KALLIMA_IDLE_TIMEOUT_MS", default_value_t = 75_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000), help_heading = "API")]
    pub idle_timeout_ms: u64,

    /// Address under which clients reach this server, such as `https://api.example.com`: links begin with it, and the pages of
    /// its origin may send forms. If it has a path, a proxy must take that away (default: the host that a request names, or
    /// what a trusted proxy says in `X-Forwarded-Host` and `X-Forwarded-Proto`).
    #[arg(long, env = "KALLIMA_PUBLIC_URL", value_name = "URL", value_parser = parse_public_url, help_heading = "API")]
    pub public_url: Option<String>,

    /// Address of the pages about errors: it begins the `type` of every problem, and the code follows. Each server has these
    /// pages at `/errors`.
    #[arg(long, env = "KALLIMA_ERROR_PAGES_URL", value_name = "URL", default_value = "https://docs.kallima.bio/errors", value_parser = parse_public_url, help_heading = "API")]
    pub error_pages_url: String,

    /// Let web pages from this origin use the API (`https://HOST[:PORT]`; may be repeated).
    #[arg(
        long = "cors-allow-origin",
        env = "KALLIMA_CORS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = parse_origin,
        help_heading = "API"
    )]
    pub cors_origins: Vec<HeaderValue>,
}

impl HttpOptions {
    /// How the addresses of the API begin.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Maximum number of open connections to the API.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        usize::try_from(self.connections_max).unwrap_or(usize::MAX)
    }

    /// Maximum number of API requests in progress.
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

    /// How long a client may take to read what the server has buffered for it.
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

/// An address that paths can be put behind, without the slash at its end.
pub(crate) fn parse_public_url(text: &str) -> Result<String, String> {
    // It is quoted in pages, code, cookies and headers, and must not be able to end the quotation.
    let can_be_quoted = |url: &Url| {
        let is_plain = |text: &str, others: &[u8]| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
        };
        let path = url.path().trim_end_matches('/');
        is_plain(url.authority(), b":.-_[]") && is_plain(path, b"/.-_") && !path.contains("//")
    };
    let url = Url::parse(text).ok().filter(|url| {
        let is_web = ["http", "https"].contains(&url.scheme()) && url.has_host();
        let is_bare = url.username().is_empty() && url.password().is_none();
        is_web && is_bare && can_be_quoted(url) && url.query().is_none() && url.fragment().is_none()
    });
    url.map(|url| url.as_str().trim_end_matches('/').to_owned())
        .ok_or_else(|| "must be an address such as https://api.example.com or https://example.com/webhooks: its path can have letters, digits and /.-_".to_owned())
}

/// An origin as browsers spell it (RFC 6454, section 6.2): they compare it character by character.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || "must be an origin, such as https://app.example.com, without a path".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !["http", "https"].contains(&url.scheme()) || url.origin().ascii_serialization() != text {
        return Err(wrong());
    }
    HeaderValue::try_from(text).map_err(|_| wrong())
}

#[test]
fn a_public_url_can_be_quoted_anywhere() {
    for (text, expected) in [
        ("https://api.example.com", Some("https://api.example.com")),
        ("https://example.com/a-b/c_d.e//", Some("https://example.com/a-b/c_d.e")),
        ("http://[::1]:8080/", Some("http://[::1]:8080")),
        ("https://b\u{fc}cher.example/", Some("https://xn--bcher-kva.example")),
        ("https://example.com//evil.example", None),
        ("https://example.com/a;b", None),
        ("https://example.com/a'b", None),
        ("https://example.com/a b", None),
        ("https://a'b.example/", None),
        ("https://user@example.com/", None),
        ("https://example.com/?a", None),
        ("https://example.com/#a", None),
        ("ftp://example.com/", None),
        ("example.com", None),
    ] {
        assert_eq!(parse_public_url(text).ok().as_deref(), expected, "{text}");
    }
}
