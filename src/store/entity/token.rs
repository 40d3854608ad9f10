//! A bearer token, known only by its digest.

use sea_orm::entity::prelude::*;

use crate::domain::{
    id::{OrganizationId, TokenId},
    timestamp::Timestamp,
    token::Scopes,
};

/// One row of `tokens`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TokenId,
    /// NULL for a platform token, which may act for any organization when it publishes.
    pub organization_id: Option<OrganizationId>,
    #[sea_orm(column_type = "String(StringLen::N(100))")]
    pub name: String,
    /// SHA-256 of the token.
    #[sea_orm(unique)]
    pub digest: Vec<u8>,
    /// Scopes, joined by spaces.
    pub scopes: Scopes,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// Accurate to a minute: a use is recorded at most once per minute.
    pub last_used_at: Option<Timestamp>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
