//! Recording what came of an attempt: the attempt, the delivery's new state and the webhook's health, in one
//! transaction shared with other attempts.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseConnection, EntityTrait as _, QueryFilter as _, Set,
    sea_query::{Expr, ExprTrait as _},
};
use uuid::Uuid;

use super::{
    Database, StoreError, database,
    entity::{attempt, delivery, webhook},
    queue::Lease,
};
use crate::domain::{
    delivery::{AttemptTrigger, DeliveryStatus, DisabledReason},
    outcome::{ErrorWord, Outcome},
    timestamp::Timestamp,
};

/// How long a webhook may fail without a success before it is switched off.
const FAILING_MAX: Duration = Duration::from_hours(5 * 24);

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The lease it was made under.
    pub lease: Lease,
    /// Why it was made.
    pub trigger: AttemptTrigger,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What it came to.
    pub outcome: Outcome,
    /// Where the delivery stands now.
    pub status: DeliveryStatus,
    /// When the next attempt is due, while one is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the receiver said that it is gone for good.
    pub disable: bool,
}

/// Records a finished attempt. False where its lease was lost meanwhile: then nothing changes.
pub async fn finish(db: &Database, finished: Finished) -> Result<bool, StoreError> {
    db.finisher.submit(finished).await
}

/// Records a batch in one transaction.
pub(super) async fn finish_batch(write: DatabaseConnection, batch: Arc<[Finished]>) -> Result<Vec<bool>, StoreError> {
    let tx = database::begin(&write).await?;
    let mut applied = Vec::with_capacity(batch.len());
    for finished in batch.iter() {
        let held = update_delivery(&tx, finished).await?;
        if held {
            insert_attempt(&tx, finished).await?;
        }
        applied.push(held);
    }
    // In the order of the webhooks' ids, so that two nodes that finish at once never wait for each other in a ring.
    let mut by_webhook: Vec<&Finished> = batch
        .iter()
        .zip(&applied)
        .filter_map(|(finished, held)| held.then_some(finished))
        .collect();
    by_webhook.sort_by_key(|finished| finished.lease.webhook_id);
    for finished in by_webhook {
        update_health(&tx, finished).await?;
    }
    tx.commit().await?;
    Ok(applied)
}

async fn update_delivery(tx: &impl ConnectionTrait, finished: &Finished) -> Result<bool, StoreError> {
    let Finished {
        lease,
        outcome,
        status,
        next_attempt_at,
        ended_at,
        ..
    } = finished;
    let mut update = delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, Expr::value(status.as_str()))
        .col_expr(delivery::Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(
            delivery::Column::DueAt,
            Expr::value(next_attempt_at.map(Timestamp::as_millis)),
        )
        .col_expr(
            delivery::Column::ResponseStatus,
            Expr::value(outcome.response_status.map(i32::from)),
        )
        .col_expr(
            delivery::Column::ResponseBody,
            Expr::value(outcome.response_body.clone()),
        )
        .col_expr(
            delivery::Column::Error,
            Expr::value(outcome.error.map(ErrorWord::as_str)),
        );
    if *status == DeliveryStatus::Delivered {
        // The first success is the one that counts; a later retry does not move it.
        let first = Expr::col(delivery::Column::DeliveredAt).if_null(ended_at.as_millis());
        update = update.col_expr(delivery::Column::DeliveredAt, first);
    }
    let result = update
        .filter(delivery::Column::OrganizationId.eq(lease.organization_id))
        .filter(delivery::Column::Id.eq(lease.delivery_id))
        .filter(delivery::Column::LeaseToken.eq(lease.token))
        .exec(tx)
        .await?;
    Ok(result.rows_affected == 1)
}

async fn insert_attempt(tx: &impl ConnectionTrait, finished: &Finished) -> Result<(), StoreError> {
    let Finished {
        lease,
        trigger,
        started_at,
        ended_at,
        outcome,
        ..
    } = finished;
    let row = attempt::ActiveModel {
        organization_id: Set(lease.organization_id),
        delivery_id: Set(lease.delivery_id),
        number: Set(i32::try_from(lease.number).unwrap_or(i32::MAX)),
        trigger: Set(trigger.as_str().to_owned()),
        started_at: Set(started_at.as_millis()),
        duration_ms: Set(i64::try_from(ended_at.since(*started_at).as_millis()).unwrap_or(i64::MAX)),
        response_status: Set(outcome.response_status.map(i32::from)),
        response_body: Set(outcome.response_body.clone()),
        error: Set(outcome.error.map(|word| word.as_str().to_owned())),
    };
    attempt::Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

/// A success ends a time of failing; a failure begins one, or ends the webhook's service after [`FAILING_MAX`].
/// Each statement touches the webhook's row only when there is something to change.
async fn update_health(tx: &impl ConnectionTrait, finished: &Finished) -> Result<(), StoreError> {
    let Lease {
        organization_id,
        webhook_id,
        ..
    } = finished.lease;
    let of_webhook = || {
        webhook::Entity::update_many()
            .filter(webhook::Column::OrganizationId.eq(organization_id))
            .filter(webhook::Column::Id.eq(webhook_id))
    };
    let ended_at = finished.ended_at;
    if finished.outcome.delivered() {
        of_webhook()
            .col_expr(webhook::Column::FailingSince, Expr::value(None::<i64>))
            .filter(webhook::Column::FailingSince.is_not_null())
            .exec(tx)
            .await?;
        return Ok(());
    }
    if finished.disable {
        disable(tx, finished, DisabledReason::Gone, ended_at).await?;
        return Ok(());
    }
    // A test is the customer's own question; its failure says nothing about the service of deliveries.
    if finished.trigger == AttemptTrigger::Test {
        return Ok(());
    }
    of_webhook()
        .col_expr(webhook::Column::FailingSince, Expr::value(ended_at.as_millis()))
        .filter(webhook::Column::FailingSince.is_null())
        .exec(tx)
        .await?;
    disable(tx, finished, DisabledReason::Failing, ended_at.minus(FAILING_MAX)).await
}

/// Switches the webhook off, if it is on and has been failing since `failing_before` or longer, or is gone.
async fn disable(
    tx: &impl ConnectionTrait,
    finished: &Finished,
    reason: DisabledReason,
    failing_before: Timestamp,
) -> Result<(), StoreError> {
    let mut update = webhook::Entity::update_many()
        .col_expr(webhook::Column::Enabled, Expr::value(false))
        .col_expr(webhook::Column::DisabledReason, Expr::value(reason.as_str()))
        .col_expr(webhook::Column::UpdatedAt, Expr::value(finished.ended_at.as_millis()))
        .filter(webhook::Column::OrganizationId.eq(finished.lease.organization_id))
        .filter(webhook::Column::Id.eq(finished.lease.webhook_id))
        .filter(webhook::Column::Enabled.eq(true));
    if reason == DisabledReason::Failing {
        update = update.filter(webhook::Column::FailingSince.lte(failing_before.as_millis()));
    }
    update.exec(tx).await?;
    Ok(())
}
