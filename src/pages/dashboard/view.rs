//! What the API says, as the pages read it: the members that they show.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::{
    id::{DeliveryId, WebhookId},
    timestamp::Timestamp,
};

/// A webhook.
#[derive(Debug, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where its deliveries go.
    pub url: String,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Its filter; `None` means all events.
    pub events: Option<Vec<String>>,
    /// Its customer's note.
    pub description: Option<String>,
    /// Deliveries that may start per second.
    pub rate_limit: Option<u32>,
    /// Why the service disabled it, if it did.
    pub disabled_reason: Option<String>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

/// A webhook whose secret was rotated.
#[derive(Debug, Deserialize)]
pub struct Rotated {
    /// Its id.
    pub id: WebhookId,
    /// Where its deliveries go.
    pub url: String,
    /// The new secret.
    pub secret: String,
}

/// A delivery.
#[derive(Debug, Deserialize)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The webhook it is owed to.
    pub webhook_id: WebhookId,
    /// The event.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// Its status.
    pub status: String,
    /// Attempts started so far.
    pub attempt_count: u32,
    /// The status code of the last response.
    pub response_status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When the next attempt is due.
    pub next_attempt_at: Option<Timestamp>,
    /// When the event was published.
    pub created_at: Timestamp,
    /// When it first succeeded.
    pub delivered_at: Option<Timestamp>,
}

/// What a delivery sends, character by character.
#[derive(Debug, Deserialize)]
pub struct Payload {
    /// The JSON.
    pub payload: Box<RawValue>,
}

/// One attempt.
#[derive(Debug, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// Why it was made.
    pub trigger: String,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The status code of the response.
    pub response_status: Option<u16>,
    /// The beginning of the response's body.
    pub response_body: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}
