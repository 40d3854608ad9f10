//! The address at which clients reach this server: what the operator configured, otherwise what the request was sent to.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, OriginalUri},
    http::{HeaderMap, HeaderName, Uri, header::HOST, request::Parts, uri::Authority},
};

use super::{ApiState, context::PeerAddress, state::path_of};

/// The headers in which a proxy says what the client sent its request to.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A host name has at most 253 characters, and a port five (RFC 1035, section 2.3.4).
const HOST_LENGTH_MAX: usize = 260;

/// The address of a request, on which links to other resources are based.
#[derive(Clone, Debug)]
pub(super) struct PublicAddress {
    /// Scheme, host, and the path prefix if there is one, without a slash at the end. Empty if the request names no valid
    /// host: then links are relative.
    base: String,
    uri: Uri,
}

impl PublicAddress {
    #[cfg(test)]
    pub(super) fn new(base: &str, uri: &str) -> Self {
        Self {
            base: base.to_owned(),
            uri: uri.parse().unwrap(),
        }
    }

    /// The address of a path and query of this server.
    pub(super) fn of(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.base)
    }

    /// Whether clients reach this server by `https`.
    pub(super) fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// Scheme, host and port, as a browser names the origin of this server's pages; `None` if it is not known.
    pub(super) fn origin(&self) -> Option<String> {
        let url = url::Url::parse(&self.base).ok()?;
        Some(url.origin().ascii_serialization())
    }

    /// The path prefix, without a slash at the end; empty if there is none.
    pub(super) fn prefix(&self) -> &str {
        path_of(&self.base)
    }

    /// The request's own path, and its query.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromRequestParts<ApiState> for PublicAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Infallible> {
        let OriginalUri(uri) = OriginalUri::from_request_parts(parts, state).await?;
        let base = if let Some(url) = &state.public_url {
            url.to_string()
        } else {
            let own = Sent::of(&uri, &parts.headers, state.scheme);
            own.address(&parts.headers, is_by_proxy(parts, state))
                .unwrap_or_default()
        };
        Ok(Self { base, uri })
    }
}

/// Whether the connection comes from a proxy that the operator trusts.
fn is_by_proxy(parts: &Parts, state: &ApiState) -> bool {
    parts.extensions.get().is_some_and(|PeerAddress(peer)| {
        let peer = peer.to_canonical();
        state.trusted_proxies.iter().any(|network| network.contains(&peer))
    })
}

/// What a request was sent to, as this server sees it.
struct Sent<'a> {
    scheme: &'static str,
    host: Option<&'a str>,
}

impl<'a> Sent<'a> {
    /// With HTTP/2 the host is a part of the target (RFC 9113, section 8.3.1), with HTTP/1.1 it may be.
    fn of(uri: &'a Uri, headers: &'a HeaderMap, scheme: &'static str) -> Self {
        let header = || headers.get(HOST)?.to_str().ok();
        let host = uri.authority().map(Authority::as_str).or_else(header);
        Self { scheme, host }
    }

    /// The address that the client used: this server's, unless a trusted proxy names another.
    fn address(&self, headers: &HeaderMap, is_by_proxy: bool) -> Option<String> {
        // Of several values, the last one is from the nearest proxy.
        let forwarded = |name: &HeaderName| {
            let value = headers.get_all(name).iter().next_back().filter(|_| is_by_proxy)?;
            value.to_str().ok()?.rsplit(',').next().map(str::trim)
        };
        let scheme = forwarded(&FORWARDED_PROTO).filter(|scheme| ["http", "https"].contains(scheme));
        let host = forwarded(&FORWARDED_HOST).or(self.host)?;
        let is_valid = host.len() <= HOST_LENGTH_MAX && !host.contains('@');
        let authority: Authority = host.parse().ok().filter(|_| is_valid)?;
        Some(format!("{}://{authority}", scheme.unwrap_or(self.scheme)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in of.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    fn asked(headers: &HeaderMap, is_by_proxy: bool) -> Option<String> {
        Sent::of(&Uri::from_static("/v1/events"), headers, "http").address(headers, is_by_proxy)
    }

    #[test]
    fn a_request_says_where_it_was_sent_to() {
        for (host, expected) in [
            ("api.example.com", Some("http://api.example.com")),
            ("127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("[::1]:8080", Some("http://[::1]:8080")),
            ("user@api.example.com", None),
            ("a b", None),
            ("a>; rel=\"prev\"", None),
            ("a/b", None),
            ("", None),
            (&"a".repeat(HOST_LENGTH_MAX + 1), None),
        ] {
            assert_eq!(asked(&headers(&[("host", host)]), false).as_deref(), expected, "{host}");
        }
        assert_eq!(asked(&HeaderMap::new(), false), None);
        // With HTTP/2, and in the absolute form of HTTP/1.1, the target counts.
        let (uri, headers) = (
            Uri::from_static("https://b.example/v1/events"),
            headers(&[("host", "a.example")]),
        );
        let sent = Sent::of(&uri, &headers, "https");
        assert_eq!(sent.address(&headers, false).unwrap(), "https://b.example");
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let forwarded = headers(&[
            ("host", "10.0.0.7:8080"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-host", "evil.example, api.example.com"),
        ]);
        assert_eq!(asked(&forwarded, false).unwrap(), "http://10.0.0.7:8080");
        assert_eq!(asked(&forwarded, true).unwrap(), "https://api.example.com");
        let other = headers(&[("host", "api.example.com"), ("x-forwarded-proto", "gopher")]);
        assert_eq!(asked(&other, true).unwrap(), "http://api.example.com");
    }
}
