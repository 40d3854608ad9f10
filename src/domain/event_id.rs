//! Event ids: `evt_` and a ULID, the same in every attempt of every delivery, so that receivers can deduplicate by it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use ulid::Ulid;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::timestamp::Timestamp;

/// The prefix of every event id.
const PREFIX: &str = "evt_";

/// An event id: `evt_` and 26 characters of Crockford's base 32 in upper case (a ULID).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[schema(pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
pub struct EventId(String);

impl EventId {
    /// A new id from the time in milliseconds since the Unix epoch and 80 random bits.
    #[must_use]
    pub fn from_parts(time_ms: u64, random: u128) -> Self {
        Self(format!("{PREFIX}{}", Ulid::from_parts(time_ms, random)))
    }

    /// The id that corresponds to a `UUIDv7`: the same 128 bits, starting with the same 48 bits of time. One UUID has
    /// one event id, so repeating an operation finds what it created the first time.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(format!("{PREFIX}{}", Ulid::from(uuid.as_u128())))
    }

    /// Parses an id. Only the canonical spelling (upper case) is accepted, since receivers compare ids as text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ulid = Ulid::from_string(text.strip_prefix(PREFIX)?).ok()?;
        let canonical = format!("{PREFIX}{ulid}");
        (canonical == text).then_some(Self(canonical))
    }

    /// An id as stored: it was validated when it arrived.
    #[must_use]
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// When the id was generated: the time it contains.
    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        let time_ms = self
            .0
            .strip_prefix(PREFIX)
            .and_then(|ulid| Ulid::from_string(ulid).ok())
            .map(|ulid| ulid.timestamp_ms());
        Timestamp::from_millis(
            time_ms
                .and_then(|millis| i64::try_from(millis).ok())
                .unwrap_or_default(),
        )
    }

    /// The id as written on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.0
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
    fn an_id_contains_the_time_it_was_generated() {
        assert_eq!(
            EventId::from_parts(1_776_938_400_007, 5).made_at(),
            Timestamp::from_millis(1_776_938_400_007)
        );
    }

    #[test]
    fn a_uuid_has_one_id_of_its_own_time() {
        let at = uuid::Timestamp::from_unix(uuid::NoContext, 1_776_938_400, 7_000_000);
        let id = EventId::from_uuid(Uuid::new_v7(at));
        assert_eq!(id.made_at(), Timestamp::from_millis(1_776_938_400_007));
        assert_eq!(EventId::parse(id.as_str()), Some(id));
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        assert!(EventId::from_parts(1, u128::MAX).as_str() < EventId::from_parts(2, 0).as_str());
    }
}
