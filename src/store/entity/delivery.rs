//! One event owed to one webhook.

use sea_orm::entity::prelude::*;

/// One row of `deliveries`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub webhook_id: Uuid,
    pub event_id: String,
    pub event_type: String,
    pub status: String,
    /// The number of the last attempt that ended; while it is queued, attempts may have begun since.
    pub attempt_count: i32,
    /// Attempts made before the present schedule began.
    pub schedule_start: i32,
    pub response_status: Option<i32>,
    #[sea_orm(column_type = "Text", nullable)]
    pub response_body: Option<String>,
    pub error: Option<String>,
    pub created_at: i64,
    pub delivered_at: Option<i64>,
    /// When it ended without success.
    pub undelivered_at: Option<i64>,
}

/// No joins are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
