//! A registered endpoint.

use sea_orm::entity::prelude::*;

/// One row of `webhooks`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhooks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    #[sea_orm(column_type = "String(StringLen::N(2048))")]
    pub url: String,
    pub enabled: bool,
    /// Filter entries as a JSON array; NULL means all events.
    pub events: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(256))", nullable)]
    pub description: Option<String>,
    /// The signing secret, sealed (see `domain::keyring`).
    pub secret: Vec<u8>,
    pub disabled_reason: Option<String>,
    /// Time of the first failure since the last success.
    pub failing_since: Option<i64>,
    /// Failures since the last success.
    pub consecutive_failures: i32,
    /// How many times the organization was told of them.
    pub failing_notices: i32,
    /// Whether it was told of trouble, and is to be told of its end.
    pub recovery_owed: bool,
    /// No automatic attempt starts before this.
    pub resume_at: i64,
    /// Deliveries that may start each second; NULL means no limit.
    pub rate_limit: Option<i32>,
    /// The rate limiter's state, in nanoseconds since the Unix epoch.
    pub rate_state: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// No joins are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
