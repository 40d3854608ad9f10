//! An entry of the audit log: one write to a webhook.

use sea_orm::entity::prelude::*;

use crate::domain::{
    audit::{AuditAction, AuditActor},
    id::{AuditEntryId, OrganizationId, TokenId, WebhookId},
    timestamp::Timestamp,
};

/// One row of `audit_entries`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_entries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AuditEntryId,
    pub webhook_id: WebhookId,
    pub action: AuditAction,
    pub actor: AuditActor,
    pub token_id: Option<TokenId>,
    /// The client's IP address.
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub secret_rotated: bool,
    /// `domain::audit::FieldChanges` as JSON.
    pub changes: String,
    pub created_at: Timestamp,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
