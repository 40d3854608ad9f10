//! The events that the service itself makes: what an organization is told about its webhooks.
//!
//! They go to the organization's *other* webhooks whose filters name them (one that fails is no way to say so), and not to
//! those that have no filter: a failure of one webhook would otherwise be a delivery to every other.

use serde_json::{Value, json};

use crate::domain::{
    delivery::DisabledReason,
    event_id::EventId,
    health::FAILING_MAX,
    id::{DeliveryId, WebhookId},
    outcome::ErrorWord,
    timestamp::Timestamp,
};

/// An event that the service makes. Its types and their payloads stand in the `webhooks` section of openapi.yaml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationalEvent {
    /// A webhook has been failing for a day, and again for three.
    WebhookFailing {
        /// The webhook.
        webhook_id: WebhookId,
        /// The first failure since the last success.
        failing_since: Timestamp,
    },
    /// The service switched a webhook off.
    WebhookDisabled {
        /// The webhook.
        webhook_id: WebhookId,
        /// Why.
        reason: DisabledReason,
        /// The first failure since the last success, where there was one before.
        failing_since: Option<Timestamp>,
    },
    /// A webhook that was failing or switched off works again.
    WebhookRecovered {
        /// The webhook.
        webhook_id: WebhookId,
    },
    /// The last attempt that a delivery's schedule has was made, and failed; with those since the last such event.
    DeliveryExhausted {
        /// How many deliveries of the webhook failed so since the last such event, this one included.
        exhausted_count: u32,
        /// The delivery.
        delivery_id: DeliveryId,
        /// The webhook it was owed to.
        webhook_id: WebhookId,
        /// The event it carries.
        event_id: EventId,
        /// That event's type.
        event_type: String,
        /// Attempts made.
        attempt_count: u32,
        /// Why the last one failed.
        error: Option<ErrorWord>,
        /// The status of the last answer.
        response_status: Option<u16>,
    },
}

/// The types of these events.
pub const OPERATIONAL_TYPES: [&str; 4] = [
    "webhook.failing",
    "webhook.disabled",
    "webhook.recovered",
    "webhook_delivery.exhausted",
];

/// Whether the service alone makes events of this type.
#[must_use]
pub fn is_operational(event_type: &str) -> bool {
    OPERATIONAL_TYPES.contains(&event_type)
}

impl OperationalEvent {
    /// Its type.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        let [failing, disabled, recovered, exhausted] = OPERATIONAL_TYPES;
        match self {
            Self::WebhookFailing { .. } => failing,
            Self::WebhookDisabled { .. } => disabled,
            Self::WebhookRecovered { .. } => recovered,
            Self::DeliveryExhausted { .. } => exhausted,
        }
    }

    /// The webhook that it is about, and that does not get it.
    #[must_use]
    pub const fn about(&self) -> WebhookId {
        match self {
            Self::WebhookFailing { webhook_id, .. }
            | Self::WebhookDisabled { webhook_id, .. }
            | Self::WebhookRecovered { webhook_id }
            | Self::DeliveryExhausted { webhook_id, .. } => *webhook_id,
        }
    }

    /// What it says: the `data` of its envelope.
    #[must_use]
    pub fn data(&self) -> Value {
        match self {
            Self::WebhookFailing {
                webhook_id,
                failing_since,
            } => json!({
                "webhook_id": webhook_id,
                "failing_since": failing_since,
                "disabled_after": failing_since.plus(FAILING_MAX),
            }),
            Self::WebhookDisabled {
                webhook_id,
                reason,
                failing_since,
            } => json!({
                "webhook_id": webhook_id,
                "disabled_reason": reason,
                "failing_since": failing_since,
            }),
            Self::WebhookRecovered { webhook_id } => json!({ "webhook_id": webhook_id }),
            Self::DeliveryExhausted {
                exhausted_count,
                delivery_id,
                webhook_id,
                event_id,
                event_type,
                attempt_count,
                error,
                response_status,
            } => json!({
                "exhausted_count": exhausted_count,
                "delivery_id": delivery_id,
                "webhook_id": webhook_id,
                "event_id": event_id,
                "event_type": event_type,
                "attempt_count": attempt_count,
                "error": error,
                "response_status": response_status,
            }),
        }
    }
}
