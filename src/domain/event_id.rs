//! What an event is called: `evt_` and a ULID, the same on every attempt of every delivery, so that
//! receivers can deduplicate on it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use ulid::Ulid;

/// The prefix of every event id.
const PREFIX: &str = "evt_";

/// An event id: `evt_` and 26 characters of Crockford's base 32 in upper case (a ULID).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct EventId(String);

impl EventId {
    /// A new id from the time in milliseconds since the Unix epoch and 80 random bits.
    #[must_use]
    pub fn from_parts(time_ms: u64, random: u128) -> Self {
        Self(format!("{PREFIX}{}", Ulid::from_parts(time_ms, random)))
    }

    /// Reads an id. Only the canonical spelling (upper case) is one, since receivers compare ids as text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ulid = Ulid::from_string(text.strip_prefix(PREFIX)?).ok()?;
        let canonical = format!("{PREFIX}{ulid}");
        (canonical == text).then_some(Self(canonical))
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("must be evt_ and a ULID, such as evt_01JBX6Y6ZK6N8Q7YJ0F5VX2C3D"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        assert!(EventId::parse("evt_01JBAAAA000000000000000000").is_some());
        for text in [
            "",
            "evt_",
            "01JBAAAA000000000000000000",
            "evt_01jbaaaa000000000000000000",
            "evt_01JBAAAA00000000000000000",
            "evt_01JBAAAA0000000000000000000",
            "evt_01JBAAAA00000000000000000U",
            "evt_8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "req_01JBAAAA000000000000000000",
        ] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        assert!(EventId::from_parts(1, u128::MAX).as_str() < EventId::from_parts(2, 0).as_str());
    }
}
