//! Something that happened to an organization.

use sea_orm::entity::prelude::*;

use crate::domain::{event_id::EventId, id::OrganizationId, timestamp::Timestamp};

/// One row of `events`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: EventId,
    pub event_type: String,
    /// The exact bytes that every attempt signs and sends.
    pub payload: Vec<u8>,
    pub created_at: Timestamp,
    /// The trace that the publisher's request belongs to (W3C Trace Context, `traceparent`).
    pub traceparent: Option<String>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
