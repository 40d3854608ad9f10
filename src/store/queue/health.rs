//! The health of webhooks, and how attempts change it.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set, Unchanged, sea_query::LockType,
};

use super::lease::Finished;
use crate::{
    domain::{
        delivery::DisabledReason,
        health::{Health, HealthSignal, Notice},
        id::{OrganizationId, WebhookId},
        operational::{OperationalEvent, is_operational},
        timestamp::Timestamp,
        word::Word as _,
    },
    store::{
        Database, StoreError,
        audit::{self, Entry},
        engine::{Connection, among::among_ids},
        entity::webhook,
        health::{read, set},
    },
};

/// The shortest time between two versions of a webhook.
const MILLISECOND: Duration = Duration::from_millis(1);

/// The health of the webhooks that a batch of attempts may change, by webhook id.
pub(super) type Healths = HashMap<WebhookId, LockedHealth>;

/// A webhook's health, with the related parts of its row.
#[derive(Clone)]
pub(super) struct LockedHealth {
    organization_id: OrganizationId,
    updated_at: Timestamp,
    health: Health,
}

/// Reads and locks the health of each webhook that the batch may change: those that failed, and those that succeeded
/// and have something to clear. A deleted webhook no longer has a health.
///
/// In the order of their ids, and before any queue entry is touched: so two nodes that finish at the same time, and a
/// deletion, cannot deadlock.
pub(super) async fn lock(tx: &Connection<'_>, batch: &[&Finished]) -> Result<Healths, StoreError> {
    let of = |wanted: fn(HealthSignal) -> bool| {
        let signals = batch
            .iter()
            .filter_map(|finished| Some((finished.signal?, finished.lease.webhook_id)));
        let ids = signals.filter(|(signal, _)| wanted(*signal)).map(|(_, id)| id);
        among_ids(tx.get_database_backend(), "id", ids.collect::<Vec<_>>())
    };
    let unwell = Condition::any()
        .add(webhook::Column::FailingSince.is_not_null())
        .add(webhook::Column::RecoveryOwed.eq(true));
    let unwell = Condition::all()
        .add(of(|signal| signal == HealthSignal::Success))
        .add(unwell);
    let concerned = Condition::any()
        .add(of(|signal| signal != HealthSignal::Success))
        .add(unwell);
    let query = webhook::Entity::find()
        .filter(concerned)
        .filter(webhook::Column::DeletedAt.is_null())
        .order_by_asc(webhook::Column::Id)
        .lock(LockType::NoKeyUpdate);
    let rows = query.all(tx).await?;
    let known = |row: webhook::Model| {
        let known = LockedHealth {
            organization_id: row.organization_id,
            updated_at: row.updated_at,
            health: read(&row),
        };
        (row.id, known)
    };
    Ok(rows.into_iter().map(known).collect())
}

/// Applies the attempts to the health of their webhooks. Returns the new healths, and the events that notify the
/// organizations.
pub(super) fn apply(before: &Healths, attempts: &[&Finished]) -> (Healths, Vec<(OrganizationId, OperationalEvent)>) {
    let mut after = before.clone();
    let mut news = Vec::new();
    for finished in attempts {
        let Finished {
            lease,
            signal,
            ended_at,
            ..
        } = finished;
        let (organization_id, webhook_id) = (lease.organization_id, lease.webhook_id);
        let Some(known) = after.get_mut(&webhook_id) else {
            continue;
        };
        let notice = signal.and_then(|signal| known.health.record(signal, *ended_at));
        news.extend(notice.map(|notice| (organization_id, event(webhook_id, notice))));
        // A delivery of an operational event is exhausted silently: two failing webhooks would otherwise notify each
        // other forever.
        if finished.exhausted && !is_operational(&finished.event_type) {
            let count = known.health.record_exhausted(*ended_at);
            news.extend(count.map(|count| (organization_id, exhausted(finished, count))));
        }
    }
    (after, news)
}

/// A change to a webhook's health that the operator should see in the log.
pub(super) struct HealthChange {
    organization_id: OrganizationId,
    webhook_id: WebhookId,
    kind: HealthChangeKind,
}

enum HealthChangeKind {
    BreakerOpened,
    BreakerClosed,
    Failing(Timestamp),
    Disabled(DisabledReason),
    Recovered,
}

/// The changes to the health of webhooks.
pub(super) fn changes(
    before: &Healths,
    after: &Healths,
    news: &[(OrganizationId, OperationalEvent)],
) -> Vec<HealthChange> {
    let breakers = after.iter().filter_map(|(&webhook_id, known)| {
        let was_open = before.get(&webhook_id)?.health.breaker_open();
        let kind = match (was_open, known.health.breaker_open()) {
            (false, true) => HealthChangeKind::BreakerOpened,
            (true, false) => HealthChangeKind::BreakerClosed,
            _ => return None,
        };
        Some(HealthChange {
            organization_id: known.organization_id,
            webhook_id,
            kind,
        })
    });
    let notices = news.iter().filter_map(|(organization_id, event)| {
        let (webhook_id, kind) = match event {
            OperationalEvent::WebhookFailing {
                webhook_id,
                failing_since,
            } => (*webhook_id, HealthChangeKind::Failing(*failing_since)),
            OperationalEvent::WebhookDisabled { webhook_id, reason, .. } => {
                (*webhook_id, HealthChangeKind::Disabled(*reason))
            }
            OperationalEvent::WebhookRecovered { webhook_id } => (*webhook_id, HealthChangeKind::Recovered),
            OperationalEvent::DeliveryExhausted { .. } => return None,
        };
        Some(HealthChange {
            organization_id: *organization_id,
            webhook_id,
            kind,
        })
    });
    breakers.chain(notices).collect()
}

/// Logs the changes to the health of webhooks, and reports those that are disabled to the engine. Only after the commit: what
/// is rolled back has not happened.
pub(super) fn announce(db: &Database, changes: Vec<HealthChange>) {
    for HealthChange {
        organization_id,
        webhook_id,
        kind,
    } in changes
    {
        // One batch holds attempts of many webhooks, so these lines belong to no attempt's span.
        let span = tracing::error_span!(
            parent: None, "webhook", kallima.organization.id = %organization_id, kallima.webhook.id = %webhook_id
        );
        span.in_scope(|| match kind {
            HealthChangeKind::BreakerOpened => tracing::info!("breaker opened: only probes are sent to this webhook"),
            HealthChangeKind::BreakerClosed => tracing::info!("breaker closed"),
            HealthChangeKind::Failing(since) => {
                tracing::info!(kallima.webhook.failing_since = %since, "webhook is failing");
            }
            HealthChangeKind::Disabled(reason) => {
                if let Some(engine) = db.hand_over.get() {
                    engine.disabled(reason);
                }
                tracing::info!(
                    kallima.webhook.disabled_reason = reason.as_str(),
                    "webhook disabled by the service"
                );
            }
            HealthChangeKind::Recovered => tracing::info!("webhook recovered"),
        });
    }
}

fn event(webhook_id: WebhookId, notice: Notice) -> OperationalEvent {
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

fn exhausted(finished: &Finished, exhausted_count: u32) -> OperationalEvent {
    OperationalEvent::DeliveryExhausted {
        exhausted_count,
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
    db: &Database,
    tx: &Connection<'_>,
    before: &Healths,
    after: Healths,
) -> Result<(), StoreError> {
    for (id, known) in after {
        let LockedHealth {
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
        // What the customer can see of it is a change like any other (and two within one millisecond must differ); the
        // rest is internal to the engine.
        if before.health.enabled != health.enabled {
            row.updated_at = Set(Ord::max(db.clock.now(), updated_at.plus(MILLISECOND)));
        }
        if let Some(reason) = health.disabled_reason.filter(|_| before.health.enabled) {
            audit::insert(tx, Entry::of_disabling(&db.clock, organization_id, id, reason)).await?;
        }
        set(&mut row, health);
        webhook::Entity::update(row).exec_without_returning(tx).await?;
    }
    Ok(())
}
