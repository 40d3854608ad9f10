//! Manual attempts, made on request: a retry of a delivery, or a test event.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait as _, EntityTrait as _, QuerySelect as _, Set, TryInsertResult, Unchanged, sea_query::LockType,
};
use uuid::Uuid;

use super::{lease::Lease, publish_rows};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::Publication,
        id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        engine::Connection,
        entity::{delivery, queued, webhook},
    },
};

/// The result of requesting one delivery by its id.
#[derive(Debug)]
pub enum ManualLease {
    /// It is leased to the caller.
    Leased(Lease),
    /// The delivery does not exist.
    NotFound,
    /// An attempt of it is in progress.
    InProgress,
    /// Its webhook was deleted, so there is nowhere to send it.
    WebhookDeleted,
}

/// Leases one delivery now, whatever its status, for a manual attempt.
pub async fn take(
    db: &Database,
    org: OrganizationId,
    id: DeliveryId,
    lease: Duration,
    now: Timestamp,
) -> Result<ManualLease, StoreError> {
    let inner = db.clone();
    let write = db.write_for(org, move |tx| {
        Box::pin(async move { lease_delivery(&inner, tx, (org, id), now.plus(lease), now).await })
    });
    write.await
}

async fn lease_delivery(
    db: &Database,
    tx: &Connection<'_>,
    key: (OrganizationId, DeliveryId),
    until: Timestamp,
    now: Timestamp,
) -> Result<ManualLease, StoreError> {
    let (org, id) = key;
    let Some(row) = delivery::Entity::find_by_id(key).one(tx).await? else {
        return Ok(ManualLease::NotFound);
    };
    if lock_webhook(tx, org, row.webhook_id).await?.is_none() {
        return Ok(ManualLease::WebhookDeleted);
    }
    let entry = queued::Entity::find_by_id(key).lock_exclusive().one(tx).await?;
    let Some(row) = delivery::Entity::find_by_id(key).lock_exclusive().one(tx).await? else {
        return Ok(ManualLease::NotFound);
    };
    let in_progress = |entry: &queued::Model| entry.lease_token.is_some() && entry.due_at > now;
    if entry.as_ref().is_some_and(in_progress) {
        return Ok(ManualLease::InProgress);
    }
    let (owed, begun) = entry
        .as_ref()
        .map_or((false, row.attempt_count), |entry| (entry.owed, entry.attempt_count));
    let mut leased = queued::ActiveModel {
        organization_id: Unchanged(org),
        delivery_id: Unchanged(id),
        webhook_id: Unchanged(row.webhook_id),
        owed: Unchanged(owed),
        ..Default::default()
    };
    let lease = hold(&mut leased, db, begun + 1, until);
    if entry.is_some() {
        queued::Entity::update(leased).exec_without_returning(tx).await?;
    } else if !insert_entry(tx, leased).await? {
        // A replay has queued it since we looked, and it is attempted at once.
        return Ok(ManualLease::InProgress);
    }
    if !owed {
        // If the lease is lost, nothing else remembers the number.
        let begun = delivery::ActiveModel {
            organization_id: Unchanged(org),
            id: Unchanged(id),
            attempt_count: Set(begun + 1),
            ..Default::default()
        };
        delivery::Entity::update(begun).exec_without_returning(tx).await?;
    }
    Ok(ManualLease::Leased(lease))
}

/// Locks a webhook against deletion. `None` if it does not exist or is being deleted.
pub(super) async fn lock_webhook(
    tx: &Connection<'_>,
    org: OrganizationId,
    id: WebhookId,
) -> Result<Option<webhook::Model>, StoreError> {
    let row = webhook::Entity::find_by_id((org, id))
        .lock(LockType::KeyShare)
        .one(tx)
        .await?;
    Ok(row.filter(|row| row.deleted_at.is_none()))
}

/// Queues a delivery; returns false if it is queued already.
async fn insert_entry(tx: &Connection<'_>, entry: queued::ActiveModel) -> Result<bool, StoreError> {
    let insert = queued::Entity::insert(entry.reset_all()).on_conflict_do_nothing();
    let inserted = insert.exec_without_returning(tx).await?;
    Ok(matches!(inserted, TryInsertResult::Inserted(1..)))
}

/// Leases a queue entry to the caller, for attempt `number`.
fn hold(entry: &mut queued::ActiveModel, db: &Database, number: i32, until: Timestamp) -> Lease {
    let token = LeaseToken::new(Uuid::new_v4());
    entry.attempt_count = Set(number);
    entry.due_at = Set(until);
    entry.lease_token = Set(Some(token));
    entry.lease_node = Set(Some(db.node));
    Lease {
        organization_id: *entry.organization_id.as_ref(),
        delivery_id: *entry.delivery_id.as_ref(),
        webhook_id: *entry.webhook_id.as_ref(),
        token,
        number: u32::try_from(number).unwrap_or(u32::MAX),
    }
}

/// The result of requesting a test.
#[derive(Debug)]
pub enum Tested {
    /// Its delivery is leased to the caller.
    Leased(Lease),
    /// The test with this id was recorded before: it is in progress, or done.
    Before,
    /// The webhook does not exist.
    NotFound,
}

/// Records a test event with a delivery to this webhook only, leased to the caller from the start.
pub async fn record_test(
    db: &Database,
    webhook_id: WebhookId,
    test: Publication,
    delivery_id: DeliveryId,
    lease: Duration,
) -> Result<Tested, StoreError> {
    let inner = db.clone();
    let write = db.write_for(test.organization_id, move |tx| {
        Box::pin(async move {
            if lock_webhook(tx, test.organization_id, webhook_id).await?.is_none() {
                return Ok(Tested::NotFound);
            }
            if !publish_rows::insert_event(tx, &test).await? {
                return Ok(Tested::Before);
            }
            delivery_row(&test, webhook_id, delivery_id).insert(tx).await?;
            let mut entry = queued::ActiveModel {
                organization_id: Set(test.organization_id),
                delivery_id: Set(delivery_id),
                webhook_id: Set(webhook_id),
                owed: Set(true),
                ..Default::default()
            };
            let lease = hold(&mut entry, &inner, 1, test.created_at.plus(lease));
            entry.insert(tx).await?;
            Ok::<_, StoreError>(Tested::Leased(lease))
        })
    });
    write.await
}

fn delivery_row(test: &Publication, webhook_id: WebhookId, id: DeliveryId) -> delivery::ActiveModel {
    delivery::ActiveModel {
        organization_id: Set(test.organization_id),
        id: Set(id),
        webhook_id: Set(webhook_id),
        event_id: Set(test.event_id.clone()),
        event_type: Set(test.event_type.clone()),
        status: Set(DeliveryStatus::Pending),
        attempt_count: Set(0),
        schedule_start: Set(0),
        created_at: Set(test.created_at),
        ..Default::default()
    }
}
