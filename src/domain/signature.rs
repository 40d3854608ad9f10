//! The two signatures of every delivery: Kallima's own, and that of Standard Webhooks.
//!
//! Both are HMAC-SHA256 (RFC 2104, FIPS 180-4) over the time of the attempt and the exact bytes of the body. They
//! differ in the key (the secret's characters as they are, or base64-decoded), in the message and in the encoding of
//! the result.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::domain::secret::Secret;

/// The values of the two signature headers of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// `Kallima-Signature`: `t=<Unix seconds>,v1=<lowercase hex>`.
    pub kallima_signature: String,
    /// `webhook-signature` of Standard Webhooks: `v1,<base64>`. It goes with the headers `webhook-id` (the event id)
    /// and `webhook-timestamp` (the same time).
    pub webhook_signature: String,
}

/// Why a signature was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not of the form `t=<Unix seconds>,v1=<64 lowercase hex digits>`.
    #[error("the Kallima-Signature header is not of the form t=<unix seconds>,v1=<hex>")]
    Malformed,
    /// It was made with another secret, body or time.
    #[error("the signature does not match: it was made with another secret, or the body was changed in transit")]
    Mismatch,
    /// The signature is correct, but too old (possibly a replayed request) or from the future.
    #[error("the signature is {age_s} seconds from now, outside the tolerance")]
    OutsideTolerance {
        /// Seconds between the signature and now, in either direction.
        age_s: u64,
    },
}

/// Signs `body`, the exact bytes that are sent, for an attempt made at `timestamp_s` (Unix seconds).
#[must_use]
pub fn sign(secret: &Secret, event_id: &str, timestamp_s: i64, body: &[u8]) -> SignatureHeaders {
    let time = timestamp_s.to_string();
    let standard = hmac_sha256(
        &standard_webhooks_key(secret),
        &[event_id.as_bytes(), b".", time.as_bytes(), b".", body],
    );
    SignatureHeaders {
        kallima_signature: format!("t={time},v1={}", kallima_digest(secret, &time, body)),
        webhook_signature: format!("v1,{}", STANDARD.encode(standard)),
    }
}

/// Verifies a `Kallima-Signature` header as a receiver should: first the signature, in constant time, then that it was
/// made within `tolerance_s` seconds of `now_s`, in either direction.
pub fn verify_kallima(
    secret: &Secret,
    header: &str,
    body: &[u8],
    now_s: i64,
    tolerance_s: u64,
) -> Result<(), SignatureError> {
    let (time, digest) = split_header(header).ok_or(SignatureError::Malformed)?;
    let timestamp_s: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    let expected = kallima_digest(secret, time, body);
    // The time is checked only once it is known to come from the sender.
    if !bool::from(expected.as_bytes().ct_eq(digest.as_bytes())) {
        return Err(SignatureError::Mismatch);
    }
    let age_s = now_s.abs_diff(timestamp_s);
    if age_s > tolerance_s {
        Err(SignatureError::OutsideTolerance { age_s })
    } else {
        Ok(())
    }
}

/// How many hex digits a SHA-256 digest has.
const DIGEST_HEX_LENGTH: usize = 64;

/// The length of SHA-256's input block, to which HMAC pads its key with zeros (RFC 2104, section 2).
const BLOCK_LENGTH: usize = 64;

/// The time and the digest of a header. There is only one spelling: this service sends no spaces, one `t` and one `v1`,
/// so anything else is not from this service.
fn split_header(header: &str) -> Option<(&str, &str)> {
    let (time, digest) = header.strip_prefix("t=")?.split_once(",v1=")?;
    let time_digits = time.strip_prefix('-').unwrap_or(time);
    let well_formed = !time_digits.is_empty()
        && time_digits.bytes().all(|byte| byte.is_ascii_digit())
        && digest.len() == DIGEST_HEX_LENGTH
        && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then_some((time, digest))
}

/// The key is the secret without its prefix, as it is: not base64-decoded.
fn kallima_digest(secret: &Secret, time: &str, body: &[u8]) -> String {
    let digest = hmac_sha256(secret.expose_key().as_bytes(), &[time.as_bytes(), b".", body]);
    hex::encode(digest)
}

/// Standard Webhooks takes what follows the prefix as base64 (RFC 4648) of the key.
fn standard_webhooks_key(secret: &Secret) -> Zeroizing<Vec<u8>> {
    let key = secret.expose_key();
    // Forty letters and digits always decode. Should that ever change, a key that nobody can guess is the safe
    // fallback: receivers would refuse the signature, whereas an empty key would let anyone sign.
    Zeroizing::new(STANDARD.decode(key).unwrap_or_else(|_| key.as_bytes().to_vec()))
}

fn hmac_sha256(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    // Padding the key here, as HMAC would, allows a constructor that cannot fail.
    debug_assert!(key.len() <= BLOCK_LENGTH, "a longer key would have to be hashed first");
    let mut block = Zeroizing::new([0; BLOCK_LENGTH]);
    for (padded, byte) in block.iter_mut().zip(key) {
        *padded = *byte;
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in message {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Known results, computed independently of this code.
    const VECTORS: &str = include_str!("../../tests/signing-vectors.json");
    const BODY: &[u8] = br#"{"hello":"kallima"}"#;
    const NOW_S: i64 = 1_776_938_400;

    fn secret() -> Secret {
        Secret::parse("whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF").unwrap()
    }

    fn header() -> String {
        sign(&secret(), "evt_01JBAAAA000000000000000000", NOW_S, BODY).kallima_signature
    }

    #[test]
    fn all_known_vectors_hold() {
        let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
        assert_eq!(vectors.len(), 3);
        for vector in vectors {
            let text = |key: &str| vector[key].as_str().unwrap();
            let secret = Secret::parse(text("secret")).unwrap();
            let (time, body) = (vector["timestamp"].as_i64().unwrap(), text("body").as_bytes());
            let expected = SignatureHeaders {
                kallima_signature: text("kallima_signature").to_owned(),
                webhook_signature: text("webhook_signature").to_owned(),
            };
            assert_eq!(sign(&secret, text("id"), time, body), expected);
            assert_eq!(
                verify_kallima(&secret, &expected.kallima_signature, body, time, 0),
                Ok(())
            );
        }
    }

    /// RFC 4231, test cases 1 and 2.
    #[test]
    fn hmac_agrees_with_its_rfc() {
        for (key, message, expected) in [
            (
                &[0x0b; 20][..],
                "Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
        ] {
            assert_eq!(hex::encode(hmac_sha256(key, &[message.as_bytes()])), expected);
        }
    }

    #[test]
    fn only_standard_webhooks_signs_the_event_id() {
        let (one, other) = (
            sign(&secret(), "evt_1", NOW_S, BODY),
            sign(&secret(), "evt_2", NOW_S, BODY),
        );
        assert_eq!(one.kallima_signature, other.kallima_signature);
        assert_ne!(one.webhook_signature, other.webhook_signature);
    }

    #[test]
    fn another_secret_body_or_time_does_not_match() {
        let other = Secret::parse("whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEf").unwrap();
        let moved = header().replace("t=1776938400", "t=1776938401");
        let zero_padded = header().replace("t=", "t=0");
        let flipped = format!("{}0", header().strip_suffix('b').unwrap());
        for (secret, header, body) in [
            (other, header(), BODY),
            (secret(), header(), br#"{"hello":"Kallima"}"#),
            (secret(), header(), b""),
            (secret(), moved, BODY),
            (secret(), zero_padded, BODY),
            (secret(), flipped, BODY),
        ] {
            assert_eq!(
                verify_kallima(&secret, &header, body, NOW_S, 300),
                Err(SignatureError::Mismatch),
                "{header}"
            );
        }
    }

    #[test]
    fn a_header_of_another_form_is_malformed() {
        let good = header();
        let digest = good.split_once("v1=").unwrap().1;
        for header in [
            String::new(),
            "t=,v1=".to_owned(),
            format!("t=,v1={digest}"),
            format!("t=-,v1={digest}"),
            format!("t=+1776938400,v1={digest}"),
            format!("t=99999999999999999999,v1={digest}"),
            format!("t=1776938400, v1={digest}"),
            format!(" t=1776938400,v1={digest}"),
            format!("v1={digest},t=1776938400"),
            format!("t=1776938400,v0={digest}"),
            format!("t=1776938400,v1={digest},v1={digest}"),
            format!("t=1776938400,v1={}", digest.to_uppercase()),
            format!("t=1776938400,v1={}", &digest[1..]),
        ] {
            assert_eq!(
                verify_kallima(&secret(), &header, BODY, NOW_S, 300),
                Err(SignatureError::Malformed),
                "{header}"
            );
        }
    }

    #[test]
    fn the_time_is_tolerated_in_either_direction() {
        for (now_s, age_s) in [
            (NOW_S - 301, 301),
            (NOW_S - 300, 300),
            (NOW_S, 0),
            (NOW_S + 300, 300),
            (NOW_S + 301, 301),
        ] {
            let expected = if age_s > 300 {
                Err(SignatureError::OutsideTolerance { age_s })
            } else {
                Ok(())
            };
            assert_eq!(
                verify_kallima(&secret(), &header(), BODY, now_s, 300),
                expected,
                "{now_s}"
            );
        }
        assert!(verify_kallima(&secret(), &header(), BODY, i64::MIN, 300).is_err());
        assert!(verify_kallima(&secret(), &header(), BODY, i64::MAX, 300).is_err());
    }
}
