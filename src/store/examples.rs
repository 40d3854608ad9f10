//! Example data: what a new database for development, or a sandbox, begins with.

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryTrait as _, Set, sea_query::Expr,
};

use super::{
    Database, StoreError,
    audit::{self, Entry},
    engine::Connection,
    entity::{attempt, delivery, event, webhook},
    webhooks,
};
use crate::domain::{
    audit::AuditEntry,
    delivery::{Attempt, Delivery, DeliveryStatus},
    destination::Destination,
    event::Publication,
    id::{OrganizationId, WebhookId},
    timestamp::Timestamp,
    webhook::NewWebhook,
};

/// The data of one organization, with its past. Nothing of it is still to be done.
#[derive(Clone, Debug)]
pub struct Examples {
    /// The webhooks, each with when it was made and when it last changed.
    pub webhooks: Vec<(NewWebhook, Timestamp, Timestamp)>,
    /// The events.
    pub events: Vec<Publication>,
    /// What they owed, each with its attempts.
    pub deliveries: Vec<(Delivery, Vec<Attempt>)>,
    /// The audit.
    pub audit: Vec<AuditEntry>,
}

/// Inserts the examples, in the transaction that makes their organization.
pub(super) async fn insert(
    db: &Database,
    tx: &Connection<'_>,
    org: OrganizationId,
    examples: Examples,
) -> Result<(), StoreError> {
    let Examples {
        webhooks,
        events,
        deliveries,
        audit,
    } = examples;
    for (new, created_at, updated_at) in webhooks {
        let mut row = webhooks::new_row(db, org, &new, created_at)?;
        row.updated_at = Set(updated_at);
        row.insert(tx).await?;
    }
    for event in events {
        let insert = event::Entity::insert(event_row(org, event));
        insert.exec_without_returning(tx).await?;
    }
    for (delivery, attempts) in deliveries {
        let ended_at = attempts.last().map(|last| last.started_at);
        let rows: Vec<_> = attempts
            .into_iter()
            .map(|one| attempt_row(org, &delivery, one))
            .collect();
        let insert = delivery::Entity::insert(delivery_row(org, delivery, ended_at));
        insert.exec_without_returning(tx).await?;
        attempt::Entity::insert_many(rows).exec_without_returning(tx).await?;
    }
    for entry in audit {
        let entry = Entry {
            organization_id: org,
            entry,
        };
        audit::insert(tx, entry).await?;
    }
    Ok(())
}

fn event_row(org: OrganizationId, event: Publication) -> event::ActiveModel {
    let Publication {
        organization_id: _,
        event_id,
        event_type,
        payload,
        created_at,
        traceparent,
    } = event;
    event::ActiveModel {
        organization_id: Set(org),
        id: Set(event_id),
        event_type: Set(event_type),
        payload: Set(payload.to_vec()),
        created_at: Set(created_at),
        traceparent: Set(traceparent.map(|parent| parent.to_string())),
    }
}

fn delivery_row(org: OrganizationId, delivery: Delivery, ended_at: Option<Timestamp>) -> delivery::ActiveModel {
    let Delivery {
        id,
        object: _,
        webhook_id,
        event_id,
        event_type,
        status,
        attempt_count,
        response_status,
        response_body,
        error,
        next_attempt_at: _,
        created_at,
        delivered_at,
    } = delivery;
    let is_undelivered = matches!(status, DeliveryStatus::Failed | DeliveryStatus::Canceled);
    delivery::ActiveModel {
        organization_id: Set(org),
        id: Set(id),
        webhook_id: Set(webhook_id),
        event_id: Set(event_id),
        event_type: Set(event_type),
        status: Set(status),
        attempt_count: Set(attempt_count),
        schedule_start: Set(0),
        response_status: Set(response_status),
        response_body: Set(response_body),
        error: Set(error),
        created_at: Set(created_at),
        delivered_at: Set(delivered_at),
        undelivered_at: Set(ended_at.filter(|_| is_undelivered)),
    }
}

fn attempt_row(org: OrganizationId, delivery: &Delivery, attempt: Attempt) -> attempt::ActiveModel {
    let Attempt {
        number,
        trigger,
        started_at,
        duration_ms,
        response_status,
        response_body,
        error,
    } = attempt;
    attempt::ActiveModel {
        organization_id: Set(org),
        delivery_id: Set(delivery.id),
        number: Set(number),
        trigger: Set(trigger),
        started_at: Set(started_at),
        duration_ms: Set(duration_ms),
        response_status: Set(response_status),
        response_body: Set(response_body),
        error: Set(error),
    }
}

/// Points the example webhooks that deliver to an inbox, which is at another port each time that it is started, to where
/// it is now. One that somebody has pointed elsewhere stays so.
pub async fn follow_inbox(db: &Database, ids: &[WebhookId], inbox: &Destination) -> Result<(), StoreError> {
    let (url, port) = (inbox.as_str(), inbox.port().to_string());
    let (host, path) = url.split_once(&port).unwrap_or((url, ""));
    let follow = webhook::Entity::update_many()
        .col_expr(webhook::Column::Url, Expr::value(url))
        .filter(webhook::Column::Id.is_in(ids.iter().copied()))
        .filter(webhook::Column::Url.like(format!("{host}%{path}")))
        .filter(webhook::Column::Url.ne(url));
    db.write_one(follow.build(db.backend())).await?;
    Ok(())
}
