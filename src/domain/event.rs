//! Events: what happened to an organization, and the one envelope that every event stands in on the wire.

use bytes::Bytes;

use crate::domain::{event_id::EventId, id::OrganizationId, timestamp::Timestamp, trace::TraceParent};

/// An event to record.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Whom it happened to.
    pub organization_id: OrganizationId,
    /// Its id.
    pub event_id: EventId,
    /// Its type.
    pub event_type: String,
    /// The exact bytes that every attempt signs and sends.
    pub payload: Bytes,
    /// When it was published.
    pub created_at: Timestamp,
    /// The trace that the publisher named.
    pub traceparent: Option<TraceParent>,
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

/// What came of a publication.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// It is durable, and so are its deliveries.
    New,
    /// An event of the same id, type and data was recorded before; here it is.
    Before(Event),
    /// An event of the same id says something else.
    Conflict,
}
