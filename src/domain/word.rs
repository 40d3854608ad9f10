//! Words of a closed list that are stored and shown: a status, a reason, a trigger.
//!
//! `strum` derives the words and their list from the variants. This adds what it cannot say: that a list ends with a word
//! that is read, and never written.

use strum::VariantArray;

/// A word of a closed list. Its text is the same on the wire, in the database, in metrics and in the log.
pub trait Word: Copy + Into<&'static str> + PartialEq + VariantArray {
    /// Replaces a word that a newer version wrote. Read only, never written, and never accepted in a request.
    const UNKNOWN: Self;

    /// The text of the word.
    #[must_use]
    fn as_str(self) -> &'static str {
        self.into()
    }

    /// The word with this text; `None` if this version does not write it.
    #[must_use]
    fn parse(text: &str) -> Option<Self> {
        Self::written().find(|word| word.as_str() == text)
    }

    /// Every word that this version writes: all but [`Self::UNKNOWN`].
    fn written() -> impl Iterator<Item = Self> {
        Self::VARIANTS.iter().copied().filter(|word| *word != Self::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::Serialize;

    use super::Word;
    use crate::domain::{
        audit::{AuditAction, AuditActor},
        delivery::{AttemptTrigger, DeliveryStatus, DisabledReason},
        outcome::ErrorWord,
    };

    fn is_one_text_everywhere<W: Word + Serialize + Debug>() {
        assert!(W::written().count() >= 2);
        for word in W::written() {
            let text = word.as_str();
            assert_eq!(W::parse(text), Some(word));
            assert_eq!(serde_json::to_value(word).unwrap(), text);
            assert!(
                text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{text}"
            );
            assert_eq!(W::parse(&text.to_uppercase()), None);
        }
        assert_eq!(W::UNKNOWN.as_str(), "unknown");
        assert_eq!(W::parse("unknown"), None);
    }

    #[test]
    fn a_word_is_the_same_on_the_wire_and_in_the_database() {
        is_one_text_everywhere::<AttemptTrigger>();
        is_one_text_everywhere::<AuditAction>();
        is_one_text_everywhere::<AuditActor>();
        is_one_text_everywhere::<DeliveryStatus>();
        is_one_text_everywhere::<DisabledReason>();
        is_one_text_everywhere::<ErrorWord>();
        assert_eq!(ErrorWord::written().count(), 11);
    }
}
