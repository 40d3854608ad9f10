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
    fn name(self, is_https: bool) -> &'static str {
        match (self, is_https) {
            (Self::Session, true) => "__Host-kallima_session",
            (Self::Session, false) => "kallima_session",
            (Self::Visitor, true) => "__Host-kallima_visitor",
            (Self::Visitor, false) => "kallima_visitor",
        }
    }

    /// Its value in a request.
    pub(super) fn of<'a>(self, headers: &'a HeaderMap, address: &PublicAddress) -> Option<&'a str> {
        let name = self.name(address.is_https());
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'));
        let mut values = pairs.filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
        values.find(|value| !value.is_empty() && value.len() <= VALUE_BYTES_MAX)
    }

    /// `Set-Cookie` with a value that lasts for so long. A value without time deletes it.
    pub(super) fn set(self, value: &str, lasts: Duration, address: &PublicAddress) -> Option<HeaderValue> {
        let is_https = address.is_https();
        let (path, secure) = if is_https {
            ("/", "; Secure")
        } else {
            ("/dashboard", "")
        };
        let text = format!(
            "{}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Strict{secure}",
            self.name(is_https),
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
