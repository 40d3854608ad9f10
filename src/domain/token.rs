//! API tokens and their scopes.

use std::{collections::BTreeSet, fmt, str::FromStr};

use rand::CryptoRng;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};

use super::credential;

/// The prefix of every token.
const PREFIX: &str = "ab_";

/// How many base62 characters follow the prefix: about 285 random bits.
const RANDOM_LENGTH: usize = 48;

/// An API token: `ab_` and 48 base62 characters, sent as a bearer token (RFC 6750).
///
/// `Debug` shows no part of it, so that no log can; there is no `Display`. [`Token::expose`] is the only way to read
/// it. Its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Token(SecretString);

impl Token {
    /// A new token, each character drawn uniformly from the 62.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(credential::generate(PREFIX, RANDOM_LENGTH, rng))
    }

    /// Parses a token; `None` if the text is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        credential::parse(PREFIX, RANDOM_LENGTH, text).map(Self)
    }

    /// The whole token, for the one time that it is shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The SHA-256 digest (FIPS 180-4) of the whole token: the only thing stored, and what it is looked up by.
    ///
    /// A plain digest is enough, without salt or stretching: nobody can guess 285 random bits.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.expose().as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(redacted)")
    }
}

/// A permission of a token.
///
/// Its text is the same on the wire, on the command line and in the database.
#[derive(
    Clone, Copy, Debug, Display, EnumString, IntoStaticStr, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray,
)]
#[strum(parse_err_ty = UnknownScope, parse_err_fn = unknown_scope)]
pub enum Scope {
    /// Read webhooks, deliveries and events.
    #[strum(serialize = "webhooks:read")]
    WebhooksRead,
    /// Create, change, test and delete webhooks; retry and replay deliveries.
    #[strum(serialize = "webhooks:write")]
    WebhooksWrite,
    /// Publish events.
    #[strum(serialize = "events:publish")]
    EventsPublish,
}

impl Scope {
    /// Every scope, in the order in which they are written.
    pub const ALL: &[Self] = Self::VARIANTS;
}

/// A word that is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; the scopes are webhooks:read, webhooks:write and events:publish")]
pub struct UnknownScope(pub String);

fn unknown_scope(word: &str) -> UnknownScope {
    UnknownScope(word.to_owned())
}

/// What a token may do: a set of scopes, always in the order of [`Scope::ALL`].
///
/// As text it is the words joined by spaces (RFC 6749, section 3.3). The empty text is the empty set, so that every set
/// can be parsed from its own text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether `scope` is one of them.
    #[must_use]
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Those that `others` has as well.
    #[must_use]
    pub fn within(&self, others: &Self) -> Self {
        Self(self.0.intersection(&others.0).copied().collect())
    }

    /// Whether there are none: such a token may do nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_whitespace().map(str::parse).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            formatter.write_str(if index == 0 { "" } else { " " })?;
            formatter.write_str(scope.into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ab_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL";

    #[test]
    fn generated_tokens_are_well_formed_and_differ() {
        let mut rng = rand::rng();
        let tokens: Vec<Token> = (0..100).map(|_| Token::generate(&mut rng)).collect();
        assert!(
            tokens
                .iter()
                .all(|token| token.expose().len() == 51 && Token::parse(token.expose()).is_some())
        );
        assert_eq!(tokens.iter().map(Token::expose).collect::<BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn only_the_exact_form_is_a_token() {
        assert_eq!(Token::parse(TEXT).unwrap().expose(), TEXT);
        for text in [
            "",
            "ab_",
            "AB_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL",
            "ab-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL",
            "ab_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJK",
            "ab_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM",
            "ab_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJK_",
            "ab_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ\u{e9}",
            "Bearer ab_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL",
        ] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_dropped_token_is_wiped() {
        fn is_wiped(_: &impl secrecy::zeroize::ZeroizeOnDrop) {}
        is_wiped(&Token::generate(&mut rand::rng()).0);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Token::parse(TEXT)), "Some(Token(redacted))");
    }

    #[test]
    fn the_digest_is_sha_256_of_the_whole_token() {
        // Computed by sha256sum.
        let expected = [
            0x0d, 0xa9, 0x92, 0x07, 0xf9, 0x01, 0xbc, 0x7e, 0x81, 0xbb, 0xa5, 0x7f, 0x9a, 0xda, 0x16, 0xfc, 0xd8, 0xb0,
            0x5a, 0xb4, 0x65, 0x60, 0x8d, 0x08, 0x18, 0xf1, 0xde, 0x90, 0x89, 0xf7, 0x22, 0x0a,
        ];
        assert_eq!(Token::parse(TEXT).unwrap().digest(), expected);
    }

    #[test]
    fn scopes_are_written_in_one_order_and_read_in_any() {
        let scopes: Scopes = "events:publish webhooks:read events:publish".parse().unwrap();
        assert_eq!(scopes.to_string(), "webhooks:read events:publish");
        assert!(scopes.contains(Scope::EventsPublish));
        assert!(!scopes.contains(Scope::WebhooksWrite));
        assert_eq!(Scopes::all().to_string(), "webhooks:read webhooks:write events:publish");
        for scopes in [Scopes::default(), scopes, Scopes::all()] {
            assert_eq!(scopes.to_string().parse(), Ok(scopes));
        }
        assert!(Scopes::default().is_empty());
    }

    #[test]
    fn an_unknown_scope_is_named() {
        for text in ["webhooks:*", "webhooks:read,webhooks:write", "Webhooks:Read"] {
            assert_eq!(
                format!("webhooks:read {text}").parse::<Scopes>(),
                Err(UnknownScope(text.to_owned()))
            );
        }
    }
}
