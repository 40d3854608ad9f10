//! The audit log: what is kept about each write to a webhook.

use std::net::IpAddr;

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use crate::domain::{
    id::{AuditEntryId, TokenId, WebhookId},
    timestamp::Timestamp,
    webhook_settings::FieldChanges,
    word::Word,
};

/// An entry of the audit log: one write to a webhook.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditEntryId,
    /// Identifies the object as an audit entry.
    pub object: AuditEntryObject,
    /// The webhook, which may have been deleted since.
    pub webhook_id: WebhookId,
    /// What was done.
    pub action: AuditAction,
    /// Who did it.
    pub actor: AuditActor,
    /// The token it was done with, if any.
    #[schema(required)]
    pub token_id: Option<TokenId>,
    /// The IP address it was done from.
    #[schema(required)]
    pub address: Option<String>,
    /// The request it was done in.
    #[schema(required, pattern = "^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    pub request_id: Option<String>,
    /// Whether the signing secret was replaced.
    pub secret_rotated: bool,
    /// Which fields changed, with their values before and after.
    pub changes: FieldChanges,
    /// When it was done.
    pub created_at: Timestamp,
}

/// The type discriminator of an audit entry.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditEntryObject {
    /// The only value.
    AuditEntry,
}

/// The request that causes a write.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The id of the entry to write: ids created one after another sort in that order.
    pub entry_id: AuditEntryId,
    /// The token that authenticated the request.
    pub token_id: TokenId,
    /// The client's IP address.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// What was done to the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AuditAction {
    /// It was registered.
    Created,
    /// Something about it was changed, possibly its secret.
    Updated,
    /// It was deleted.
    Deleted,
    /// The service disabled it.
    Disabled,
    /// An action of a newer version. Only read, never written.
    Unknown,
}

impl Word for AuditAction {
    const UNKNOWN: Self = Self::Unknown;
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AuditActor {
    /// The holder of a token.
    Token,
    /// The service itself.
    Service,
    /// An actor of a newer version. Only read, never written.
    Unknown,
}

impl Word for AuditActor {
    const UNKNOWN: Self = Self::Unknown;
}
