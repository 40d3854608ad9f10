//! Signing secrets, with which a receiver verifies signatures.

use std::fmt;

use rand::CryptoRng;
use secrecy::{ExposeSecret as _, SecretString};

use super::credential;

/// The prefix of every secret, as in Standard Webhooks.
const PREFIX: &str = "whsec_";

/// How many characters follow the prefix: 40 of 62 possible ones, about 238 random bits. A multiple of four, so that
/// they are also well-formed base64 (RFC 4648), as Standard Webhooks reads them.
const KEY_LENGTH: usize = 40;

/// A webhook's signing secret: `whsec_` and 40 characters of `[A-Za-z0-9]`.
///
/// `Debug` shows no part of it, so that no log can; there is no `Display`. [`Secret::expose`] is the only way to read
/// it. Its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// A new secret, each character drawn uniformly from the 62.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(credential::generate(PREFIX, KEY_LENGTH, rng))
    }

    /// Parses a secret; `None` if the text is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        credential::parse(PREFIX, KEY_LENGTH, text).map(Self)
    }

    /// The whole secret, for the one response that issues it and for encryption at rest.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The characters after the prefix: what signing keys are derived from.
    #[must_use]
    pub fn expose_key(&self) -> &str {
        // Both constructors start with the ASCII prefix, so this is a character boundary.
        &self.expose()[PREFIX.len()..]
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TEXT: &str = "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF";

    #[test]
    fn generated_secrets_are_well_formed_and_differ() {
        let mut rng = rand::rng();
        let secrets: Vec<Secret> = (0..200).map(|_| Secret::generate(&mut rng)).collect();
        assert!(secrets.iter().all(|secret| Secret::parse(secret.expose()).is_some()));
        assert_eq!(secrets.iter().map(Secret::expose).collect::<BTreeSet<_>>().len(), 200);
        let characters: BTreeSet<u8> = secrets.iter().flat_map(|secret| secret.expose_key().bytes()).collect();
        assert_eq!(characters.len(), 62, "8000 draws leave out none of 62 characters");
    }

    #[test]
    fn only_the_exact_form_is_a_secret() {
        assert_eq!(Secret::parse(TEXT).unwrap().expose(), TEXT);
        assert_eq!(
            Secret::parse(TEXT).unwrap().expose_key(),
            "AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF"
        );
        for text in [
            "",
            "whsec_",
            "AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF",
            "WHSEC_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF",
            "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDE",
            "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEFG",
            "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDE+",
            "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDE\n",
            "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDé",
            " whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF",
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_dropped_secret_is_wiped() {
        fn is_wiped(_: &impl secrecy::zeroize::ZeroizeOnDrop) {}
        is_wiped(&Secret::generate(&mut rand::rng()).0);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::parse(TEXT)), "Some(Secret(redacted))");
    }
}
