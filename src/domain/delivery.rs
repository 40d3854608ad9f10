//! The states of a delivery, and why an attempt is made.
//!
//! ```text
//!             2xx                        410, or the schedule is used up
//! pending ──────────▶ delivered   pending ──────────▶ failed
//!    │                                                   │ manual retry: 2xx
//!    └──▶ canceled (webhook deleted)                     └──────────▶ delivered
//! ```
//! A manual retry of a delivery that is no longer pending changes its state only by succeeding.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use strum::{Display, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::domain::{
    event::Envelope,
    event_id::EventId,
    id::{DeliveryId, WebhookId},
    outcome::ErrorWord,
    retry::Decision,
    timestamp::Timestamp,
    word::Word,
};

/// One event owed to one webhook, without what it sends.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = EventDelivery)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Identifies the object as a delivery.
    pub object: DeliveryObject,
    /// The webhook it is owed to, which may have been deleted since.
    pub webhook_id: WebhookId,
    /// The event.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: String,
    /// Its current status.
    pub status: DeliveryStatus,
    /// Attempts started so far.
    #[schema(minimum = 0)]
    pub attempt_count: i32,
    /// The status code of the last response.
    #[schema(required, minimum = 100, maximum = 599)]
    pub response_status: Option<i32>,
    /// The beginning of the last response's body.
    #[schema(required, max_length = 4096)]
    pub response_body: Option<String>,
    /// Why the last attempt failed.
    #[schema(required)]
    pub error: Option<ErrorWord>,
    /// When the next attempt is due, if one is scheduled.
    #[schema(required)]
    pub next_attempt_at: Option<Timestamp>,
    /// When the event was published.
    pub created_at: Timestamp,
    /// When it first succeeded.
    #[schema(required)]
    pub delivered_at: Option<Timestamp>,
}

/// The type discriminator of a delivery.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryObject {
    /// The only value.
    WebhookDelivery,
}

/// A delivery with its payload.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryWithPayload {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The JSON text that every attempt sends, shared by all deliveries of an event.
    #[schema(value_type = Envelope)]
    #[serde(serialize_with = "serialize_raw")]
    pub payload: Arc<RawValue>,
}

/// Serializes shared JSON text as it is; serde has no support for it.
fn serialize_raw<S: Serializer>(payload: &Arc<RawValue>, serializer: S) -> Result<S::Ok, S::Error> {
    payload.as_ref().serialize(serializer)
}

/// One HTTP attempt at a delivery.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// Its number, from 1.
    #[schema(minimum = 1)]
    pub number: i32,
    /// Why it was made.
    pub trigger: AttemptTrigger,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    #[schema(minimum = 0)]
    pub duration_ms: i64,
    /// The status code of the response.
    #[schema(required, minimum = 100, maximum = 599)]
    pub response_status: Option<i32>,
    /// The beginning of the response's body.
    #[schema(required, max_length = 4096)]
    pub response_body: Option<String>,
    /// Why it failed.
    #[schema(required)]
    pub error: Option<ErrorWord>,
}

/// The status of a delivery.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryStatus {
    /// An attempt is scheduled or in progress.
    Pending,
    /// The receiver responded with 2xx.
    Delivered,
    /// The schedule is used up, or the receiver responded with 410.
    Failed,
    /// The webhook was deleted before the delivery succeeded.
    Canceled,
    /// A status of a newer version. Only read, never written.
    Unknown,
}

impl Word for DeliveryStatus {
    const UNKNOWN: Self = Self::Unknown;
}

impl DeliveryStatus {
    /// The status after an attempt with this decision, and when the next attempt is due.
    ///
    /// Only a pending delivery can be rescheduled or fail; any other changes only by succeeding.
    #[must_use]
    pub fn after(self, decision: Decision) -> (Self, Option<Timestamp>) {
        match (self, decision) {
            (_, Decision::Delivered) => (Self::Delivered, None),
            (Self::Pending, Decision::RetryAt(due_at)) => (Self::Pending, Some(due_at)),
            (Self::Pending, Decision::Failed | Decision::FailedAndDisable) => (Self::Failed, None),
            (unchanged, _) => (unchanged, None),
        }
    }
}

/// Why an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AttemptTrigger {
    /// The delivery engine's schedule.
    Automatic,
    /// A manual retry was requested.
    Manual,
    /// A test of the webhook was requested.
    Test,
    /// A trigger of a newer version. Only read, never written.
    Unknown,
}

impl Word for AttemptTrigger {
    const UNKNOWN: Self = Self::Unknown;
}

/// Why the service disabled a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DisabledReason {
    /// The receiver responded with 410 Gone.
    Gone,
    /// Attempts failed for days without a success in between.
    Failing,
    /// A reason of a newer version. Only read, never written.
    Unknown,
}

impl Word for DisabledReason {
    const UNKNOWN: Self = Self::Unknown;
}

impl DisabledReason {
    /// What it means, as a sentence for people.
    #[must_use]
    pub const fn said(self) -> &'static str {
        match self {
            Self::Gone => "the receiver answered 410 Gone.",
            Self::Failing => "attempts failed for days without a success.",
            Self::Unknown => "for a reason that a newer version knows.",
        }
    }
}

/// Reads what the audit log holds, which may be a word that a newer version wrote.
impl<'de> Deserialize<'de> for DisabledReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::parse(&word).unwrap_or(Self::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::{DeliveryStatus::*, *};

    #[test]
    fn a_reason_of_a_newer_version_is_unknown() {
        let read = |word: &str| serde_json::from_str::<DisabledReason>(word).unwrap();
        assert_eq!(read("\"gone\""), DisabledReason::Gone);
        assert_eq!(read("\"unpaid\""), DisabledReason::Unknown);
    }

    #[test]
    fn only_pending_deliveries_are_rescheduled_or_fail() {
        let later = Timestamp::from_millis(5);
        for (status, decision, expected) in [
            (Pending, Decision::Delivered, (Delivered, None)),
            (Pending, Decision::RetryAt(later), (Pending, Some(later))),
            (Pending, Decision::Failed, (Failed, None)),
            (Pending, Decision::FailedAndDisable, (Failed, None)),
            (Delivered, Decision::RetryAt(later), (Delivered, None)),
            (Delivered, Decision::Failed, (Delivered, None)),
            (Failed, Decision::Delivered, (Delivered, None)),
            (Failed, Decision::RetryAt(later), (Failed, None)),
            (Canceled, Decision::FailedAndDisable, (Canceled, None)),
        ] {
            assert_eq!(status.after(decision), expected, "{status:?} {decision:?}");
        }
    }
}
