//! The cookies of the dashboard. Both are for this server's pages alone (`HttpOnly`, `SameSite=Strict`); over https they are
//! `Secure`, and their names begin with `__Host-`, so that no other host can set them (RFC 6265bis, section 4.1.3).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};

use crate::api::public_address::PublicAddress;

/// A cookie of the dashboard.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cookie {
    /// Holds the sealed pass of whoever is signed in.
    Session,
    /// Random, for the forms of whoever is not signed in.
    Visitor,
}

/// The longest value that is read.
const VALUE_BYTES_MAX: usize = 256;

impl Cookie {
    /// Servers under several prefixes of one host have cookies of their own.
    fn name(self, address: &PublicAddress) -> String {
        let host = if address.is_https() { "__Host-" } else { "" };
        let name = match self {
            Self::Session => "kallima_session",
            Self::Visitor => "kallima_visitor",
        };
        format!("{host}{name}{}", address.prefix().replace('/', "."))
    }

    /// Its value in a request. Beside it can be those of other services of the host, which may hold any bytes.
    pub(super) fn of<'a>(self, headers: &'a HeaderMap, address: &PublicAddress) -> Option<&'a str> {
        let name = self.name(address);
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let values = pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        let mut values = values.filter_map(|value| str::from_utf8(value).ok());
        values.find(|value| !value.is_empty() && value.len() <= VALUE_BYTES_MAX)
    }

    /// `Set-Cookie` with a value that lasts for so long. A value without time deletes it.
    pub(super) fn set(self, value: &str, lasts: Duration, address: &PublicAddress) -> Option<HeaderValue> {
        let (path, secure) = if address.is_https() {
            ("/".to_owned(), "; Secure")
        } else {
            (format!("{}/dashboard", address.prefix()), "")
        };
        let text = format!(
            "{}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Strict{secure}",
            self.name(address),
            lasts.as_secs()
        );
        HeaderValue::try_from(text).ok()
    }
}

/// What a form must hold to be from a page of the browser that has this cookie: nobody else can know it, since nobody else
/// knows the cookie.
pub(super) fn form_token(cookie: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(b"dashboard form\0");
    digest.update(cookie.as_bytes());
    hex::encode(digest.finalize())
}
