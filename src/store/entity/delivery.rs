//! One event owed to one webhook.

use sea_orm::entity::prelude::*;

use crate::domain::{
    delivery::DeliveryStatus,
    event_id::EventId,
    id::{DeliveryId, OrganizationId, WebhookId},
    outcome::ErrorWord,
    timestamp::Timestamp,
};

/// One row of `deliveries`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DeliveryId,
    pub webhook_id: WebhookId,
    pub event_id: EventId,
    pub event_type: String,
    pub status: DeliveryStatus,
    /// The number of the last attempt that ended; while the delivery is queued, more may have started since.
    pub attempt_count: i32,
    /// Attempts made before its current schedule began.
    pub schedule_start: i32,
    pub response_status: Option<i32>,
    #[sea_orm(column_type = "Text", nullable)]
    pub response_body: Option<String>,
    pub error: Option<ErrorWord>,
    pub created_at: Timestamp,
    pub delivered_at: Option<Timestamp>,
    /// When it ended without success.
    pub undelivered_at: Option<Timestamp>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
