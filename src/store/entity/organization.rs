//! A customer of the Kallima API: the tenant that webhooks, events and tokens belong to.

use sea_orm::entity::prelude::*;

use crate::domain::{id::OrganizationId, timestamp::Timestamp};

/// One row of `organizations`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "organizations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: OrganizationId,
    #[sea_orm(column_type = "String(StringLen::N(100))")]
    pub name: String,
    pub created_at: Timestamp,
    /// NULL is unlimited, here and in the column below.
    pub requests_per_minute_max: Option<i32>,
    pub writes_per_month_max: Option<i32>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
