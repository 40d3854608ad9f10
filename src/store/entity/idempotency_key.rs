//! An idempotency key: which request it was used for, and its response.

use sea_orm::entity::prelude::*;

use crate::domain::{
    id::{LeaseToken, OrganizationId},
    timestamp::Timestamp,
};

/// One row of `idempotency_keys`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: Vec<u8>,
    /// The ids of everything that the request creates are derived from this; NULL if a single transaction creates it
    /// together with its response.
    pub seed: Option<Uuid>,
    /// Set while the request is running.
    pub lease_token: Option<LeaseToken>,
    /// When another run may take over from one that has died.
    pub leased_until: Option<Timestamp>,
    /// The response, sealed (see `domain::keyring`).
    pub response: Option<Vec<u8>>,
    pub expires_at: Timestamp,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
