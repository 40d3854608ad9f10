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
    /// Says that it is a webhook.
    #[schema(required = false, default = "webhook")]
    pub object: WebhookObject,
    /// What its customer says of it.
    #[serde(flatten)]
    pub settings: WebhookSettings,
    /// Why the service switched it off, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<DisabledReason>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When something about it last changed.
    pub updated_at: Timestamp,
}

/// The discriminator of a webhook.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookObject {
    /// The only one.
    Webhook,
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
    /// What its customer says of it.
    pub settings: WebhookSettings,
    /// What its deliveries are signed with.
    pub secret: Secret,
}

/// What a PATCH changes.
#[derive(Clone, Debug, Default)]
pub struct WebhookChanges {
    /// What its customer says of it from now on.
    pub settings: SettingChanges,
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
