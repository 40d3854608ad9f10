//! One HTTP attempt at a delivery.

use sea_orm::entity::prelude::*;

use crate::domain::{
    delivery::AttemptTrigger,
    id::{DeliveryId, OrganizationId},
    outcome::ErrorWord,
    timestamp::Timestamp,
};

/// One row of `attempts`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "attempts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub delivery_id: DeliveryId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    pub trigger: AttemptTrigger,
    pub started_at: Timestamp,
    pub duration_ms: i64,
    pub response_status: Option<i32>,
    #[sea_orm(column_type = "Text", nullable)]
    pub response_body: Option<String>,
    pub error: Option<ErrorWord>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
