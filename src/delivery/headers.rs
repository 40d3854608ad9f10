//! The headers that every delivery carries, both signatures among them.

use hyper::header::HeaderName;

use super::sender::DeliveryHeaders;
use crate::domain::{event_id::EventId, id::DeliveryId, secret::Secret, signature};

/// What the headers of a delivery are made from.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// Signs.
    pub secret: &'a Secret,
    /// The event's id, the same on every attempt.
    pub event_id: &'a EventId,
    /// The event's type.
    pub event_type: &'a str,
    /// The delivery's id.
    pub delivery_id: DeliveryId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The time of the attempt, in unix seconds.
    pub timestamp_s: i64,
    /// The exact bytes that are sent.
    pub body: &'a [u8],
}

/// The headers of a delivery, with both signatures over the bytes that are sent.
#[must_use]
pub fn signed(signing: &Signing<'_>) -> DeliveryHeaders {
    let Signing {
        secret,
        event_id,
        event_type,
        delivery_id,
        attempt,
        timestamp_s,
        body,
    } = *signing;
    let signed = signature::sign(secret, event_id.as_str(), timestamp_s, body);
    let name = HeaderName::from_static;
    vec![
        (name("kallima-signature"), signed.kallima_signature),
        (name("webhook-id"), event_id.to_string()),
        (name("webhook-timestamp"), timestamp_s.to_string()),
        (name("webhook-signature"), signed.webhook_signature),
        (name("kallima-event"), event_type.to_owned()),
        (name("kallima-delivery"), delivery_id.to_string()),
        (name("kallima-attempt"), attempt.to_string()),
    ]
}
