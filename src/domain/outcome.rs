//! The outcome of an attempt. A receiver's failure is data here, not an error of ours.

use std::time::SystemTime;

use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::domain::word::Word;

/// Why an attempt failed, in one word.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, Hash, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schema(as = DeliveryError)]
pub enum ErrorWord {
    /// None of the host's addresses may be delivered to, or its scheme or port is not allowed; nothing was sent.
    AddressBlocked,
    /// The receiver closed the connection before its response was complete.
    ConnectionClosed,
    /// The receiver refused the connection.
    ConnectionRefused,
    /// The receiver reset the connection.
    ConnectionReset,
    /// The host name did not resolve.
    Dns,
    /// The response was not HTTP, or exceeded a limit on headers or interim responses.
    InvalidResponse,
    /// The network failed in another way: no route, unreachable host.
    Network,
    /// The receiver responded with 3xx; redirects are never followed.
    Redirect,
    /// The receiver responded with a status that is neither 2xx nor 3xx.
    ResponseStatus,
    /// The attempt, up to the last byte of the response, was not finished at its deadline.
    Timeout,
    /// The TLS handshake failed, possibly over the certificate.
    Tls,
    /// A word of a newer version. Only read, never written.
    Unknown,
}

impl Word for ErrorWord {
    const UNKNOWN: Self = Self::Unknown;
}

/// The result of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status code of the response, if one came.
    pub response_status: Option<u16>,
    /// The beginning of the response's body, if one came.
    pub response_body: Option<String>,
    /// Why the attempt failed; `None` if it succeeded.
    pub error: Option<ErrorWord>,
    /// When the receiver wants the next attempt, if it said so.
    pub retry_after: Option<RetryAfter>,
}

impl Outcome {
    /// Whether the receiver took the event: it responded with 2xx (RFC 9110, section 15.3), and nothing went wrong
    /// before the end of the response.
    #[must_use]
    pub const fn delivered(&self) -> bool {
        matches!(self.response_status, Some(200..=299)) && self.error.is_none()
    }
}

/// A `Retry-After` header (RFC 9110, section 10.2.3), as the receiver meant it. It is only a wish and may be absurd:
/// clamp it before following it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// This many seconds from now.
    Seconds(u64),
    /// At this time, in Unix seconds.
    At(i64),
}

impl RetryAfter {
    /// Parses the header's value: whole seconds, or a date in any of HTTP's three formats.
    ///
    /// `None` if it is neither, negative numbers included. A number that overflows is taken as the largest one (as in
    /// RFC 9111, section 1.2.2), since it clearly asks to wait.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let text = header.trim_matches([' ', '\t']);
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Seconds(text.parse().unwrap_or(u64::MAX)));
        }
        let since_epoch = httpdate::parse_http_date(text)
            .ok()?
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        i64::try_from(since_epoch.as_secs()).ok().map(Self::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivered_is_a_whole_2xx() {
        for (response_status, error, delivered) in [
            (Some(200), None, true),
            (Some(204), None, true),
            (Some(299), None, true),
            (Some(199), None, false),
            (Some(300), None, false),
            (Some(302), Some(ErrorWord::Redirect), false),
            (Some(500), Some(ErrorWord::ResponseStatus), false),
            (Some(200), Some(ErrorWord::Timeout), false),
            (None, Some(ErrorWord::Dns), false),
            (None, None, false),
        ] {
            let outcome = Outcome {
                response_status,
                error,
                ..Outcome::default()
            };
            assert_eq!(outcome.delivered(), delivered, "{outcome:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        const DATE_S: i64 = 784_111_777;
        for (header, expected) in [
            ("0", Some(RetryAfter::Seconds(0))),
            ("120", Some(RetryAfter::Seconds(120))),
            (" 007\t", Some(RetryAfter::Seconds(7))),
            ("18446744073709551615", Some(RetryAfter::Seconds(u64::MAX))),
            ("99999999999999999999999999", Some(RetryAfter::Seconds(u64::MAX))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(RetryAfter::At(DATE_S))),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(RetryAfter::At(DATE_S))),
            ("Sun Nov  6 08:49:37 1994", Some(RetryAfter::At(DATE_S))),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(RetryAfter::At(253_402_300_799))),
            ("", None),
            (" ", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1e3", None),
            ("٣", None),
            ("soon", None),
            ("120, 240", None),
            ("1994-11-06T08:49:37Z", None),
            ("Sun, 06 Nov 1969 08:49:37 GMT", None),
        ] {
            assert_eq!(RetryAfter::parse(header), expected, "{header:?}");
        }
    }
}
