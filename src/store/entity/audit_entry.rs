//! A write to a webhook, as it is remembered.

use sea_orm::entity::prelude::*;

/// One row of `audit_entries`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_entries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub webhook_id: Uuid,
    pub action: String,
    pub actor: String,
    pub token_id: Option<Uuid>,
    /// The IP address that the request came from.
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub secret_rotated: bool,
    /// `domain::audit::FieldChanges` as JSON.
    pub changes: String,
    pub created_at: i64,
}

/// No joins are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
