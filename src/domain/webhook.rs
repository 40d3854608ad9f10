//! Webhooks: registered endpoints.

use crate::domain::{
    audit::Origin,
    delivery::DisabledReason,
    destination::Destination,
    event_filter::EventFilter,
    id::{OrganizationId, WebhookId},
    precondition::{EntityTag, IfMatch},
    rate::RateLimit,
    secret::Secret,
    timestamp::Timestamp,
};

/// How many webhooks one organization may have.
pub const WEBHOOKS_MAX: u64 = 100;

/// A registered endpoint, without its secret.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where deliveries go.
    pub url: Destination,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Which events it wants.
    pub events: EventFilter,
    /// What the customer wrote about it.
    pub description: Option<String>,
    /// How many deliveries may start each second, if there is a limit.
    pub rate_limit: Option<RateLimit>,
    /// Why the service switched it off, if it did.
    pub disabled_reason: Option<DisabledReason>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

impl Webhook {
    /// The tag of this version of it.
    #[must_use]
    pub fn tag(&self) -> EntityTag {
        EntityTag::of_version(self.updated_at)
    }
}

/// What came of changing a webhook that the client may have known in another version.
#[derive(Clone, Debug)]
pub enum Changed<T> {
    /// It is done.
    Done(T),
    /// There is no such webhook.
    NotFound,
    /// It is not what the client has seen; nothing was changed.
    Stale,
}

/// A webhook to register.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Its id.
    pub id: WebhookId,
    /// Where deliveries go.
    pub url: Destination,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Which events it wants.
    pub events: EventFilter,
    /// What the customer wrote about it.
    pub description: Option<String>,
    /// How many deliveries may start each second, if there is to be a limit.
    pub rate_limit: Option<RateLimit>,
    /// What its deliveries are signed with.
    pub secret: Secret,
}

/// What a PATCH changes; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default)]
pub struct WebhookChanges {
    /// Where deliveries go from now on.
    pub url: Option<Destination>,
    /// Which events it wants from now on.
    pub events: Option<EventFilter>,
    /// Whether deliveries are attempted from now on.
    pub enabled: Option<bool>,
    /// What the customer writes about it; the inner `None` clears it.
    pub description: Option<Option<String>>,
    /// How many deliveries may start each second from now on; the inner `None` takes the limit away.
    pub rate_limit: Option<Option<RateLimit>>,
    /// The secret that replaces the one before, which is invalid at once.
    pub secret: Option<Secret>,
}

/// A change to one webhook.
#[derive(Clone, Debug)]
pub struct WebhookChange {
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// The webhook.
    pub id: WebhookId,
    /// What changes.
    pub changes: WebhookChanges,
    /// The versions that may be changed, if the client says.
    pub if_match: Option<IfMatch>,
    /// The request.
    pub origin: Origin,
    /// When.
    pub now: Timestamp,
}
