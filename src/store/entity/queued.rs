//! A queue entry: a delivery with an attempt that is owed or in progress.

use sea_orm::entity::prelude::*;

use crate::domain::{
    id::{DeliveryId, LeaseToken, NodeId, OrganizationId, WebhookId},
    timestamp::Timestamp,
};

/// One row of `queue`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "queue")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub delivery_id: DeliveryId,
    pub webhook_id: WebhookId,
    /// Whether the delivery is pending; false if the row is only the lease of a manual retry of one that has ended.
    pub owed: bool,
    /// When a node may take it: the time of the next attempt or, while leased, the end of the lease.
    pub due_at: Timestamp,
    /// Attempts started so far.
    pub attempt_count: i32,
    /// Set while an attempt is in progress.
    pub lease_token: Option<LeaseToken>,
    /// The node that makes the attempt.
    pub lease_node: Option<NodeId>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
