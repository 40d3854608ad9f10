//! The signatures that every delivery carries: Kallima's own, and that of Standard Webhooks.
//!
//! Both are HMAC-SHA256 (RFC 2104, FIPS 180-4) of the time of the attempt and the exact bytes of the body.
//! They differ in the key (the secret's characters as they are, or base64-decoded), in the message and
//! in how the result is written.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use crate::domain::secret::Secret;

/// The values of the two signature headers of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// `Kallima-Signature`: `t=<unix seconds>,v1=<lowercase hex>`.
    pub kallima_signature: String,
    /// `webhook-signature` of Standard Webhooks: `v1,<base64>`. It belongs with the headers `webhook-id`
    /// (the event id) and `webhook-timestamp` (the same time).
    pub webhook_signature: String,
}

/// Signs `body`, the exact bytes that are sent, for an attempt made at `timestamp_s` (Unix seconds).
#[must_use]
pub fn sign(secret: &Secret, event_id: &str, timestamp_s: i64, body: &[u8]) -> SignatureHeaders {
    let time = timestamp_s.to_string();
    SignatureHeaders {
        kallima_signature: format!("t={time},v1={}", kallima_digest(&kallima_key(secret), &time, body)),
        webhook_signature: format!(
            "v1,{}",
            standard_digest(&standard_webhooks_key(secret), event_id, &time, body)
        ),
    }
}

/// The key of `Kallima-Signature`: the secret without its prefix, as it is, not base64-decoded.
pub(super) fn kallima_key(secret: &Secret) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(secret.expose_key().as_bytes().to_vec())
}

/// The key of `webhook-signature`: Standard Webhooks takes what follows the prefix as base64 (RFC 4648) of the key.
pub(super) fn standard_webhooks_key(secret: &Secret) -> Zeroizing<Vec<u8>> {
    let key = secret.expose_key();
    // Forty letters and digits always decode. Were that ever to change, a key that nobody can guess is
    // the safe fallback: receivers would refuse the signature, and an empty key would let anyone sign.
    Zeroizing::new(STANDARD.decode(key).unwrap_or_else(|_| key.as_bytes().to_vec()))
}

/// What follows `v1=` in `Kallima-Signature`, in lowercase hex.
pub(super) fn kallima_digest(key: &[u8], time: &str, body: &[u8]) -> String {
    hex::encode(hmac_sha256(key, &[time.as_bytes(), b".", body]))
}

/// What follows `v1,` in `webhook-signature`, in base64.
pub(super) fn standard_digest(key: &[u8], id: &str, time: &str, body: &[u8]) -> String {
    STANDARD.encode(hmac_sha256(key, &[id.as_bytes(), b".", time.as_bytes(), b".", body]))
}

/// The length of SHA-256's input block, to which HMAC pads its key with zeros (RFC 2104, section 2).
const BLOCK_LENGTH: usize = 64;

fn hmac_sha256(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    // Padding the key here, as HMAC would, makes a constructor usable that cannot fail.
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
    use super::*;
    use crate::domain::signing_vectors::{SIGNING_VECTORS, SigningVectors};

    const BODY: &[u8] = br#"{"hello":"kallima"}"#;
    const NOW_S: i64 = 1_776_938_400;

    fn secret() -> Secret {
        Secret::parse("whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF").unwrap()
    }

    #[test]
    fn all_known_answers_hold() {
        let vectors: SigningVectors = serde_json::from_str(SIGNING_VECTORS).unwrap();
        assert_eq!(vectors.known_answers.len(), 3);
        for vector in vectors.known_answers {
            let secret = Secret::parse(&vector.secret).unwrap();
            let expected = SignatureHeaders {
                kallima_signature: vector.kallima_signature,
                webhook_signature: vector.webhook_signature,
            };
            let signed = sign(&secret, &vector.id, vector.timestamp, vector.body.as_bytes());
            assert_eq!(signed, expected);
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
    fn the_event_id_is_signed_by_standard_webhooks_alone() {
        let (one, other) = (
            sign(&secret(), "evt_1", NOW_S, BODY),
            sign(&secret(), "evt_2", NOW_S, BODY),
        );
        assert_eq!(one.kallima_signature, other.kallima_signature);
        assert_ne!(one.webhook_signature, other.webhook_signature);
    }
}
