//! Operational events, which the service itself publishes: notices to an organization about its webhooks.
//!
//! They go to the organization's *other* webhooks whose filters name them (a failing webhook is no way to report the
//! failure), and not to those without a filter: otherwise a failure of one webhook would become a delivery to every
//! other.

use serde_json::{Value, json};

use crate::domain::{
    delivery::DisabledReason,
    event_id::EventId,
    health::FAILING_MAX,
    id::{DeliveryId, WebhookId},
    outcome::ErrorWord,
    timestamp::Timestamp,
};

/// An event that the service publishes. Types and payloads are defined in the `webhooks` section of openapi.yaml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationalEvent {
    /// A webhook has been failing for one day, and again after three.
    WebhookFailing {
        /// The webhook.
        webhook_id: WebhookId,
        /// The first failure since the last success.
        failing_since: Timestamp,
    },
    /// The service disabled a webhook.
    WebhookDisabled {
        /// The webhook.
        webhook_id: WebhookId,
        /// The reason.
        reason: DisabledReason,
        /// The first failure since the last success; `None` if the 410 was the first.
        failing_since: Option<Timestamp>,
    },
    /// A webhook that was failing or disabled works again.
    WebhookRecovered {
        /// The webhook.
        webhook_id: WebhookId,
    },
    /// The last attempt of a delivery's schedule failed; counts those since the previous such event.
    DeliveryExhausted {
        /// How many deliveries of the webhook were exhausted since the previous such event, this one included.
        exhausted_count: u32,
        /// The delivery.
        delivery_id: DeliveryId,
        /// The webhook it was owed to.
        webhook_id: WebhookId,
        /// The event it delivers.
        event_id: EventId,
        /// That event's type.
        event_type: String,
        /// Attempts made.
        attempt_count: u32,
        /// Why the last one failed.
        error: Option<ErrorWord>,
        /// The status code of the last response.
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

/// Whether only the service publishes events of this type.
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

    /// The webhook it is about, which does not receive it.
    #[must_use]
    pub const fn about(&self) -> WebhookId {
        match self {
            Self::WebhookFailing { webhook_id, .. }
            | Self::WebhookDisabled { webhook_id, .. }
            | Self::WebhookRecovered { webhook_id }
            | Self::DeliveryExhausted { webhook_id, .. } => *webhook_id,
        }
    }

    /// The `data` of its envelope.
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
