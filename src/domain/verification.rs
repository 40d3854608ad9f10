//! How a receiver checks a signature, and why it refuses one: what our documentation recommends, as code.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::domain::{
    secret::Secret,
    signature::{kallima_digest, kallima_key, standard_digest, standard_webhooks_key},
};

/// How far a timestamp may be from the receiver's clock, in seconds: Standard Webhooks' usual tolerance.
pub const TOLERANCE_S: u64 = 300;

/// One of the two ways in which every delivery is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Kallima-Signature`.
    Kallima,
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks,
}

impl Scheme {
    /// Both, ours first.
    pub const ALL: [Self; 2] = [Self::Kallima, Self::StandardWebhooks];
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kallima => "Kallima-Signature",
            Self::StandardWebhooks => "Standard Webhooks",
        })
    }
}

/// The headers that a signature is checked by, as they arrived; `None` for one that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedHeaders {
    /// `Kallima-Signature`.
    pub kallima_signature: Option<String>,
    /// `webhook-id`.
    pub webhook_id: Option<String>,
    /// `webhook-timestamp`.
    pub webhook_timestamp: Option<String>,
    /// `webhook-signature`.
    pub webhook_signature: Option<String>,
}

/// The names of the headers that a signature is checked by, in lower case.
pub const HEADER_NAMES: [&str; 4] = [
    "kallima-signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

impl SignedHeaders {
    /// The headers as `get` finds them, by their names in lower case.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let [kallima_signature, webhook_id, webhook_timestamp, webhook_signature] = HEADER_NAMES.map(get);
        Self {
            kallima_signature,
            webhook_id,
            webhook_timestamp,
            webhook_signature,
        }
    }
}

/// Why a receiver refuses a request. The first reason that applies, in this order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header that the scheme needs is missing.
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    /// A header is not of the form that the service sends.
    #[error("the header {name} is not {form}")]
    MalformedHeader {
        /// The header.
        name: &'static str,
        /// What it should look like.
        form: &'static str,
    },
    /// Another secret, another body or another time was signed.
    #[error("the signature does not match: another secret was used, or the body was changed on the way")]
    Mismatch {
        /// The value that the header should have had for this secret and body.
        expected: String,
    },
    /// The signature is right but old: the request may be a recorded one.
    #[error("the timestamp is {age_s} seconds old, more than is tolerated")]
    TooOld {
        /// Seconds since the timestamp.
        age_s: u64,
    },
    /// The signature is right but its time is still to come: one of the two clocks is wrong.
    #[error("the timestamp is {ahead_s} seconds in the future, more than is tolerated")]
    InFuture {
        /// Seconds until the timestamp.
        ahead_s: u64,
    },
}

/// The word for a refusal in `signing-vectors.json` and in `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SignatureRefusal)]
pub enum Reason {
    /// A header that the scheme needs is missing.
    MissingHeader,
    /// A header is not of the form that the service sends.
    MalformedHeader,
    /// Another secret, another body or another time was signed.
    SignatureMismatch,
    /// The timestamp is older than is tolerated.
    TimestampTooOld,
    /// The timestamp is further ahead than is tolerated.
    TimestampInFuture,
}

impl Refusal {
    /// Its word.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::MissingHeader(_) => Reason::MissingHeader,
            Self::MalformedHeader { .. } => Reason::MalformedHeader,
            Self::Mismatch { .. } => Reason::SignatureMismatch,
            Self::TooOld { .. } => Reason::TimestampTooOld,
            Self::InFuture { .. } => Reason::TimestampInFuture,
        }
    }
}

/// Checks a request as a receiver should: the signature in constant time, and then that it was made within
/// `tolerance_s` seconds of `now_s` (unix seconds), in either direction.
///
/// # Errors
/// Why the request must be refused.
pub fn verify(
    scheme: Scheme,
    secret: &Secret,
    headers: &SignedHeaders,
    body: &[u8],
    now_s: i64,
    tolerance_s: u64,
) -> Result<(), Refusal> {
    let claim = Claim::read(scheme, headers)?;
    let expected = claim.digest(&key(scheme, secret), body);
    let is_match = |given: &&str| bool::from(expected.as_bytes().ct_eq(given.as_bytes()));
    // The time is checked only once it is known to be the sender's word.
    if !claim.digests.iter().any(is_match) {
        return Err(Refusal::Mismatch {
            expected: claim.header(&expected),
        });
    }
    let distance_s = now_s.abs_diff(claim.timestamp_s);
    if distance_s <= tolerance_s {
        Ok(())
    } else if claim.timestamp_s < now_s {
        Err(Refusal::TooOld { age_s: distance_s })
    } else {
        Err(Refusal::InFuture { ahead_s: distance_s })
    }
}

/// What most likely went wrong where a signature does not match: the mistake that would explain it. `None` if none of
/// the usual ones does.
#[must_use]
pub fn likely_cause(scheme: Scheme, secret: &Secret, headers: &SignedHeaders, body: &[u8]) -> Option<&'static str> {
    let claim = Claim::read(scheme, headers).ok()?;
    let is_made_by = |key: &[u8], body: &[u8]| claim.digests.contains(&claim.digest(key, body).as_str());
    let key = key(scheme, secret);
    let is_other_body = |other: &[u8]| other != body && is_made_by(&key, other);
    if is_other_body(body.trim_ascii_end()) {
        return Some("it matches without the line break at the end of the body: an editor or the shell added it");
    }
    if is_other_body(&[body, b"\n"].concat()) {
        return Some("it matches with a line break at the end of the body: something cut it off");
    }
    let value = serde_json::from_slice::<serde_json::Value>(body);
    let compact = value.ok().and_then(|value| serde_json::to_vec(&value).ok());
    if compact.is_some_and(|compact| is_other_body(&compact)) {
        return Some(
            "it matches the same JSON without spaces: the body was parsed and written again; sign the raw bytes",
        );
    }
    let wrong_keys: [(&[u8], &'static str); 3] = [
        (
            secret.expose().as_bytes(),
            "it was made with whsec_ as part of the key: leave the prefix out",
        ),
        (
            &standard_webhooks_key(secret),
            "it was made with the base64-decoded secret: Kallima-Signature takes its characters as they are",
        ),
        (
            &kallima_key(secret),
            "it was made with the secret's characters: Standard Webhooks decodes them as base64 first",
        ),
    ];
    let mut causes = wrong_keys.into_iter().filter(|(wrong, _)| *wrong != key.as_slice());
    causes
        .find(|(wrong, _)| is_made_by(wrong, body))
        .map(|(_, cause)| cause)
}

fn key(scheme: Scheme, secret: &Secret) -> impl std::ops::Deref<Target = Vec<u8>> {
    match scheme {
        Scheme::Kallima => kallima_key(secret),
        Scheme::StandardWebhooks => standard_webhooks_key(secret),
    }
}

/// How many hex digits a SHA-256 digest has.
const DIGEST_HEX_LENGTH: usize = 64;

/// What the headers of a request claim.
struct Claim<'a> {
    /// What is signed besides the body: `webhook-id`; `None` for Kallima's own scheme.
    id: Option<&'a str>,
    /// The time as it is written and signed.
    time: &'a str,
    timestamp_s: i64,
    /// The digests, of which one must be right. Kallima's own scheme has exactly one.
    digests: Vec<&'a str>,
}

impl<'a> Claim<'a> {
    fn read(scheme: Scheme, headers: &'a SignedHeaders) -> Result<Self, Refusal> {
        match scheme {
            Scheme::Kallima => Self::kallima(headers),
            Scheme::StandardWebhooks => Self::standard(headers),
        }
    }

    /// One spelling only: what this service sends has no spaces, one `t` and one `v1`, so that anything else is not from
    /// this service.
    fn kallima(headers: &'a SignedHeaders) -> Result<Self, Refusal> {
        const NAME: &str = "Kallima-Signature";
        let malformed = || Refusal::MalformedHeader {
            name: NAME,
            form: "t=<unix seconds>,v1=<64 lowercase hex digits>",
        };
        let header = required(NAME, headers.kallima_signature.as_deref())?;
        let (time, digest) = header
            .strip_prefix("t=")
            .and_then(|rest| rest.split_once(",v1="))
            .ok_or_else(malformed)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digest.len() != DIGEST_HEX_LENGTH || !digest.bytes().all(is_hex) {
            return Err(malformed());
        }
        Ok(Self {
            id: None,
            time,
            timestamp_s: unix_seconds(time).ok_or_else(malformed)?,
            digests: vec![digest],
        })
    }

    /// `webhook-signature` is a list of signatures, separated by spaces; those of another version are skipped.
    fn standard(headers: &'a SignedHeaders) -> Result<Self, Refusal> {
        let id = required("webhook-id", headers.webhook_id.as_deref())?;
        let time = required("webhook-timestamp", headers.webhook_timestamp.as_deref())?;
        let signatures = required("webhook-signature", headers.webhook_signature.as_deref())?;
        if id.is_empty() {
            return Err(Refusal::MalformedHeader {
                name: "webhook-id",
                form: "the id of an event",
            });
        }
        let timestamp_s = unix_seconds(time).ok_or(Refusal::MalformedHeader {
            name: "webhook-timestamp",
            form: "a time in unix seconds",
        })?;
        let digests: Vec<&str> = signatures
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter(|digest| !digest.is_empty())
            .collect();
        if digests.is_empty() {
            return Err(Refusal::MalformedHeader {
                name: "webhook-signature",
                form: "v1,<base64>",
            });
        }
        Ok(Self {
            id: Some(id),
            time,
            timestamp_s,
            digests,
        })
    }

    fn digest(&self, key: &[u8], body: &[u8]) -> String {
        match self.id {
            None => kallima_digest(key, self.time, body),
            Some(id) => standard_digest(key, id, self.time, body),
        }
    }

    /// The value of the signature's header with this digest.
    fn header(&self, digest: &str) -> String {
        match self.id {
            None => format!("t={},v1={digest}", self.time),
            Some(_) => format!("v1,{digest}"),
        }
    }
}

fn required<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, Refusal> {
    value.ok_or(Refusal::MissingHeader(name))
}

fn unix_seconds(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
