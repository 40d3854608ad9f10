//! Idempotency keys: a client's name for a request, so that sending it twice does it once.

/// The longest key, in characters.
const LENGTH_MAX: usize = 255;

/// An idempotency key: 1 to 255 printable ASCII characters, with no space at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Parses the value of an `Idempotency-Key` header.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let well_formed = printable && (1..=LENGTH_MAX).contains(&text.len()) && text.trim_matches(' ') == text;
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The key as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[test]
fn a_key_is_printable_and_of_bounded_length() {
    for text in [
        "a",
        "~",
        "a b",
        "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
        &"x".repeat(255),
    ] {
        assert_eq!(IdempotencyKey::parse(text).unwrap().as_str(), text);
    }
    for text in ["", " ", " a", "a ", "a\tb", "\u{e4}", "a\u{7f}", &"x".repeat(256)] {
        assert_eq!(IdempotencyKey::parse(text), None, "{text:?}");
    }
}
