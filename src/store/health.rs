//! The health of webhooks, as their rows keep it.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set, Unchanged, sea_query::LockType,
};
use uuid::Uuid;

use super::{StoreError, audit, entity::webhook, finish::Finished, webhooks::read_reason};
use crate::{
    clock::Clock,
    domain::{
        health::{Health, Notice, Sign},
        operational::{OperationalEvent, is_operational},
        timestamp::Timestamp,
    },
};

/// The health of the webhooks that a batch of attempts may change, by their ids.
pub(super) type Healths = HashMap<Uuid, Known>;

/// The health of a webhook, and what of its row goes with it.
#[derive(Clone)]
pub(super) struct Known {
    organization_id: Uuid,
    updated_at: i64,
    health: Health,
}

/// Reads and locks the health of each webhook that the batch may change: those that failed, and those that succeeded
/// where there is something to clear.
///
/// In the order of their ids, and before any delivery is touched: so two nodes that finish at once, and a deletion,
/// never wait for each other in a ring.
pub(super) async fn lock(
    tx: &impl ConnectionTrait,
    engine: DbBackend,
    batch: &[&Finished],
) -> Result<Healths, StoreError> {
    let of = |wanted: fn(Sign) -> bool| {
        let signs = batch
            .iter()
            .filter_map(|finished| Some((finished.sign?, finished.lease.webhook_id)));
        let mut ids: Vec<Uuid> = signs.filter(|(sign, _)| wanted(*sign)).map(|(_, id)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let unwell = Condition::any()
        .add(webhook::Column::FailingSince.is_not_null())
        .add(webhook::Column::RecoveryOwed.eq(true));
    let concerned = Condition::any()
        .add(webhook::Column::Id.is_in(of(|sign| sign != Sign::Success)))
        .add(
            Condition::all()
                .add(webhook::Column::Id.is_in(of(|sign| sign == Sign::Success)))
                .add(unwell),
        );
    let mut query = webhook::Entity::find()
        .filter(concerned)
        .order_by_asc(webhook::Column::Id);
    if engine == DbBackend::Postgres {
        query = query.lock(LockType::NoKeyUpdate);
    }
    let rows = query.all(tx).await?;
    let known = |row: webhook::Model| {
        let health = read(&row)?;
        let known = Known {
            organization_id: row.organization_id,
            updated_at: row.updated_at,
            health,
        };
        Ok((row.id, known))
    };
    rows.into_iter().map(known).collect()
}

/// What the attempts do to the health of their webhooks, and what their organizations are to be told.
pub(super) fn fold(before: &Healths, attempts: &[&Finished]) -> (Healths, Vec<(Uuid, OperationalEvent)>) {
    let mut after = before.clone();
    let mut told = Vec::new();
    for finished in attempts {
        let Finished {
            lease, sign, ended_at, ..
        } = finished;
        let (organization_id, webhook_id) = (lease.organization_id, lease.webhook_id);
        let notice = sign
            .zip(after.get_mut(&webhook_id))
            .and_then(|(sign, known)| known.health.take_in(sign, *ended_at));
        told.extend(notice.map(|notice| (organization_id, event(webhook_id, notice))));
        // A delivery of the service's own news ends in silence: two webhooks that both fail would otherwise tell each
        // other of it for ever.
        if finished.exhausted && !is_operational(&finished.event_type) {
            told.push((organization_id, exhausted(finished)));
        }
    }
    (after, told)
}

fn event(webhook_id: Uuid, notice: Notice) -> OperationalEvent {
    match notice {
        Notice::Failing { failing_since } => OperationalEvent::WebhookFailing {
            webhook_id,
            failing_since,
        },
        Notice::Disabled { reason, failing_since } => OperationalEvent::WebhookDisabled {
            webhook_id,
            reason,
            failing_since,
        },
        Notice::Recovered => OperationalEvent::WebhookRecovered { webhook_id },
    }
}

fn exhausted(finished: &Finished) -> OperationalEvent {
    OperationalEvent::DeliveryExhausted {
        delivery_id: finished.lease.delivery_id,
        webhook_id: finished.lease.webhook_id,
        event_id: finished.event_id.clone(),
        event_type: finished.event_type.clone(),
        attempt_count: finished.lease.number,
        error: finished.outcome.error,
        response_status: finished.outcome.response_status,
    }
}

/// Writes the health of the webhooks that changed.
pub(super) async fn write(
    tx: &impl ConnectionTrait,
    clock: &Clock,
    before: &Healths,
    after: Healths,
) -> Result<(), StoreError> {
    for (id, known) in after {
        let Known {
            organization_id,
            updated_at,
            health,
        } = known;
        let Some(before) = before.get(&id).filter(|before| before.health != health) else {
            continue;
        };
        let mut row = webhook::ActiveModel {
            organization_id: Unchanged(organization_id),
            id: Unchanged(id),
            ..Default::default()
        };
        // What the customer sees of it is a change like another (and two within one millisecond are two changes); the
        // rest is the engine's own.
        if before.health.enabled != health.enabled {
            row.updated_at = Set(clock.now().as_millis().max(updated_at + 1));
        }
        if let Some(reason) = health.disabled_reason.filter(|_| before.health.enabled) {
            audit::record_disabling(tx, clock, organization_id, id, reason).await?;
        }
        set(&mut row, health);
        webhook::Entity::update(row).exec_without_returning(tx).await?;
    }
    Ok(())
}

/// The health that a row keeps.
pub(super) fn read(row: &webhook::Model) -> Result<Health, StoreError> {
    Ok(Health {
        enabled: row.enabled,
        disabled_reason: read_reason(row.disabled_reason.as_deref())?,
        failing_since: row.failing_since.map(Timestamp::from_millis),
        consecutive_failures: u32::try_from(row.consecutive_failures).unwrap_or_default(),
        resume_at: Timestamp::from_millis(row.resume_at),
        failing_notices: u32::try_from(row.failing_notices).unwrap_or_default(),
        recovery_owed: row.recovery_owed,
    })
}

/// Writes a health into a row.
pub(super) fn set(row: &mut webhook::ActiveModel, health: Health) {
    let Health {
        enabled,
        disabled_reason,
        failing_since,
        consecutive_failures,
        resume_at,
        failing_notices,
        recovery_owed,
    } = health;
    row.enabled = Set(enabled);
    row.disabled_reason = Set(disabled_reason.map(|reason| reason.as_str().to_owned()));
    row.failing_since = Set(failing_since.map(Timestamp::as_millis));
    row.consecutive_failures = Set(i32::try_from(consecutive_failures).unwrap_or(i32::MAX));
    row.resume_at = Set(resume_at.as_millis());
    row.failing_notices = Set(i32::try_from(failing_notices).unwrap_or(i32::MAX));
    row.recovery_owed = Set(recovery_owed);
}
