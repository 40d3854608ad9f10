//! Events: what happened to an organization, and the one envelope that carries every event on the wire.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use crate::domain::{event_id::EventId, id::OrganizationId, timestamp::Timestamp, trace::TraceParent};

/// The envelope that carries every event on the wire, whoever publishes it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct Envelope {
    /// The event's id.
    pub id: EventId,
    /// Identifies the object as an event.
    pub object: EventObject,
    /// The event's type.
    pub r#type: String,
    /// When it was published.
    pub created_at: Timestamp,
    /// The event's data, exactly as it was written.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}

/// The type discriminator of an event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventObject {
    /// The only value.
    Event,
}

impl Envelope {
    /// The envelope of an event that the service itself publishes.
    pub fn new(
        id: EventId,
        event_type: &str,
        created_at: Timestamp,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            object: EventObject::Event,
            r#type: event_type.to_owned(),
            created_at,
            data: to_raw_value(data)?,
        })
    }
}

/// An event to record.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The organization it happened to.
    pub organization_id: OrganizationId,
    /// Its id.
    pub event_id: EventId,
    /// Its type.
    pub event_type: String,
    /// The exact bytes that every attempt signs and sends.
    pub payload: Bytes,
    /// When it was published.
    pub created_at: Timestamp,
    /// The trace that the publisher's request belongs to.
    pub traceparent: Option<TraceParent>,
}

impl Publication {
    /// The publication of an event: its envelope is serialized once, and those bytes are what every attempt signs and
    /// sends.
    pub fn new(organization_id: OrganizationId, event: Envelope) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(&event)?.into();
        Ok(Self {
            organization_id,
            event_id: event.id,
            event_type: event.r#type,
            payload,
            created_at: event.created_at,
            traceparent: None,
        })
    }
}

/// A recorded event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// The exact bytes that every attempt signs and sends.
    pub payload: Bytes,
    /// When it was published.
    pub created_at: Timestamp,
}

/// The position of an event in the list of its organization's events. It stays valid after the event is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPosition {
    /// When the event was published.
    pub created_at: Timestamp,
    /// Its id, the tie-breaker between events of the same time.
    pub id: EventId,
}

/// Formats a cursor: the id, a dot, and the time in milliseconds since the Unix epoch.
impl fmt::Display for EventPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.id, self.created_at.as_millis())
    }
}

/// Where a page of events continues: after a position, or after the event with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventCursor {
    /// A cursor from a `Link` header.
    Position(EventPosition),
    /// An id that the client supplied.
    Id(EventId),
}

impl EventCursor {
    /// Parses `<id>.<milliseconds>`, or an id alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some((id, millis)) = text.split_once('.') else {
            return EventId::parse(text).map(Self::Id);
        };
        let is_number =
            (1..=MILLIS_DIGITS_MAX).contains(&millis.len()) && millis.bytes().all(|byte| byte.is_ascii_digit());
        let created_at = is_number.then(|| millis.parse().ok())??;
        Some(Self::Position(EventPosition {
            created_at: Timestamp::from_millis(created_at),
            id: EventId::parse(id)?,
        }))
    }
}

impl<'de> Deserialize<'de> for EventCursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("must be an event id, or a cursor from a Link header"))
    }
}

/// The most digits that a time in a cursor may have: enough for any four-digit year.
const MILLIS_DIGITS_MAX: usize = 15;

impl Event {
    /// Its position in the list of the organization's events.
    #[must_use]
    pub fn position(&self) -> EventPosition {
        EventPosition {
            created_at: self.created_at,
            id: self.id.clone(),
        }
    }
}

/// The result of recording a publication.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// The event and its deliveries are durable.
    New,
    /// An event with the same id, type and data had been recorded before; this is it.
    Existing(Event),
    /// An event with the same id but other content exists.
    Conflict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_position_or_an_id() {
        let id = EventId::parse("evt_01JBAAAA000000000000000000").unwrap();
        let position = EventPosition {
            created_at: Timestamp::from_millis(1_776_938_400_007),
            id: id.clone(),
        };
        assert_eq!(position.to_string(), "evt_01JBAAAA000000000000000000.1776938400007");
        let read = EventCursor::parse(&position.to_string());
        assert_eq!(read, Some(EventCursor::Position(position)));
        assert_eq!(EventCursor::parse(id.as_str()), Some(EventCursor::Id(id)));
        for text in [
            "",
            ".",
            "evt_01JBAAAA000000000000000000.",
            "evt_01JBAAAA000000000000000000.-1",
            "evt_01JBAAAA000000000000000000.1.2",
            "evt_01JBAAAA000000000000000000.1234567890123456",
            "evt_x.1",
        ] {
            assert_eq!(EventCursor::parse(text), None, "{text}");
        }
    }
}
