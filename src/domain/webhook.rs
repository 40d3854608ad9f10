//! Webhooks: registered endpoints.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    audit::Origin,
    delivery::DisabledReason,
    id::{OrganizationId, WebhookId},
    precondition::{EntityTag, IfMatch},
    secret::Secret,
    timestamp::Timestamp,
    webhook_settings::{SettingChanges, WebhookSettings},
};

/// How many webhooks one organization may have.
pub const WEBHOOKS_MAX: u64 = 100;

/// A registered endpoint, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Identifies the object as a webhook.
    #[schema(required = false, default = "webhook")]
    pub object: WebhookObject,
    /// What its customer can set.
    #[serde(flatten)]
    pub settings: WebhookSettings,
    /// Why the service disabled it, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<DisabledReason>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

/// The type discriminator of a webhook.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookObject {
    /// The only value.
    Webhook,
}

impl Webhook {
    /// The entity tag of this version.
    #[must_use]
    pub fn tag(&self) -> EntityTag {
        EntityTag::of_version(self.updated_at)
    }
}

/// The result of a conditional change to a webhook.
#[derive(Clone, Debug)]
pub enum Changed<T> {
    /// The change was made.
    Done(T),
    /// The webhook does not exist.
    NotFound,
    /// The client has not seen the current version; nothing was changed.
    Stale,
}

/// A webhook to register.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Its id.
    pub id: WebhookId,
    /// What its customer can set.
    pub settings: WebhookSettings,
    /// The secret that signs its deliveries.
    pub secret: Secret,
}

/// The changes that a PATCH makes.
#[derive(Clone, Debug, Default)]
pub struct WebhookChanges {
    /// The settings that change.
    pub settings: SettingChanges,
    /// The new secret; the old one is invalid at once.
    pub secret: Option<Secret>,
}

/// A change to one webhook.
#[derive(Clone, Debug)]
pub struct WebhookChange {
    /// The organization that owns it.
    pub organization_id: OrganizationId,
    /// The webhook.
    pub id: WebhookId,
    /// The changes.
    pub changes: WebhookChanges,
    /// The versions that may be changed, if the client names them.
    pub if_match: Option<IfMatch>,
    /// The request that makes the change.
    pub origin: Origin,
    /// When it is made.
    pub now: Timestamp,
}
