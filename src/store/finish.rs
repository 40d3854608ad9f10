//! Recording what came of attempts: each attempt, its delivery's new state, the health of the webhook, and what the
//! organization is told of it, in one transaction shared with other attempts.

use std::{collections::HashSet, sync::Arc};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set, Statement, Value, sea_query::LockType,
};
use uuid::Uuid;

use super::{
    Database, StoreError, database,
    entity::{attempt, queued},
    events, health,
    queue::{self, Lease},
};
use crate::{
    clock::Clock,
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        event_id::EventId,
        health::Sign,
        outcome::{ErrorWord, Outcome},
        timestamp::Timestamp,
    },
};

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The lease it was made under.
    pub lease: Lease,
    /// Why it was made.
    pub trigger: AttemptTrigger,
    /// The event that was sent.
    pub event_id: EventId,
    /// That event's type.
    pub event_type: String,
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
    /// What it says about the webhook's health; nothing where it was a test that failed.
    pub sign: Option<Sign>,
    /// Whether it used up the delivery's schedule.
    pub exhausted: bool,
}

/// Records a finished attempt. False where its lease was lost meanwhile: then nothing changes.
pub async fn finish(db: &Database, finished: Finished) -> Result<bool, StoreError> {
    db.finisher.submit(finished).await
}

/// Records a batch in one transaction. Of those whose lease was lost it says so, and nothing else is different for them.
pub(super) async fn finish_batch(
    write: DatabaseConnection,
    clock: Clock,
    batch: Arc<[Finished]>,
) -> Result<Vec<bool>, StoreError> {
    let mut ended: Vec<&Finished> = batch.iter().collect();
    loop {
        let held = try_record(&write, &clock, &ended).await?;
        if all_hold(&held, &ended) {
            return Ok(batch.iter().map(|finished| held.contains(&fence(finished))).collect());
        }
        // What the organizations are told is made of all the attempts of a batch, and was made of lost ones, too.
        ended.retain(|finished| held.contains(&fence(finished)));
    }
}

/// A delivery and a token: a batch may have a lease that was lost together with the one that came after it.
type Fence = (Uuid, Uuid);

fn fence(finished: &Finished) -> Fence {
    (finished.lease.delivery_id, finished.lease.token)
}

fn all_hold(held: &HashSet<Fence>, ended: &[&Finished]) -> bool {
    ended.iter().all(|finished| held.contains(&fence(finished)))
}

/// Records attempts if all their leases hold, and else nothing. Answers which do.
async fn try_record(
    write: &DatabaseConnection,
    clock: &Clock,
    ended: &[&Finished],
) -> Result<HashSet<Fence>, StoreError> {
    let (tx, engine) = (database::begin(write).await?, write.get_database_backend());
    let before = health::lock(&tx, engine, ended).await?;
    let (after, told) = health::fold(&before, ended);
    let organizations: HashSet<Uuid> = told.iter().map(|(organization_id, _)| *organization_id).collect();
    // The webhooks that may be told are locked before the queue is, as everywhere.
    let filters = events::load_filters(&tx, engine, organizations).await?;
    let held = lock_held(&tx, engine, ended).await?;
    if !all_hold(&held, ended) {
        tx.rollback().await?;
        return Ok(held);
    }
    leave_queue(&tx, ended).await?;
    update_deliveries(&tx, ended).await?;
    insert_attempts(&tx, ended).await?;
    health::write(&tx, clock, &before, after).await?;
    events::record_operational(&tx, clock, &filters, told).await?;
    tx.commit().await?;
    Ok(held)
}

/// Locks the places in the queue of those whose lease still holds.
async fn lock_held(
    tx: &impl ConnectionTrait,
    engine: DbBackend,
    ended: &[&Finished],
) -> Result<HashSet<Fence>, StoreError> {
    let mut query = queued::Entity::find()
        .select_only()
        .columns([queued::Column::DeliveryId, queued::Column::LeaseToken])
        .filter(queue::held(ended.iter().map(|finished| &finished.lease)))
        .order_by_asc(queued::Column::DeliveryId);
    if engine == DbBackend::Postgres {
        query = query.lock(LockType::Update);
    }
    let held: Vec<Fence> = query.into_tuple().all(tx).await?;
    Ok(held.into_iter().collect())
}

/// Takes what has ended off the queue, and plans the next attempt of what has not.
async fn leave_queue(tx: &impl ConnectionTrait, ended: &[&Finished]) -> Result<(), StoreError> {
    const PLANNED_COLUMNS: usize = 3;
    let (planned, done): (Vec<&Finished>, Vec<&Finished>) = ended
        .iter()
        .copied()
        .partition(|finished| finished.next_attempt_at.is_some());
    if !done.is_empty() {
        queued::Entity::delete_many()
            .filter(queue::held(done.into_iter().map(|finished| &finished.lease)))
            .exec(tx)
            .await?;
    }
    if planned.is_empty() {
        return Ok(());
    }
    let rows = database::placeholders(planned.len(), PLANNED_COLUMNS);
    let plan = format!(
        "WITH planned(planned_organization, planned_delivery, planned_at) AS (VALUES {rows})
         UPDATE queue SET lease_token = NULL, lease_node = NULL, due_at = planned_at
         FROM planned WHERE organization_id = planned_organization AND delivery_id = planned_delivery"
    );
    let values = planned.iter().flat_map(|finished| -> [Value; PLANNED_COLUMNS] {
        [
            finished.lease.organization_id.into(),
            finished.lease.delivery_id.into(),
            finished.next_attempt_at.map(Timestamp::as_millis).into(),
        ]
    });
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), plan, values);
    tx.execute_raw(statement).await?;
    Ok(())
}

/// The columns of the rows that [`update_deliveries`] hands in.
const ENDED_COLUMNS: usize = 9;

/// Moves each delivery to its new state.
async fn update_deliveries(tx: &impl ConnectionTrait, ended: &[&Finished]) -> Result<(), StoreError> {
    if ended.is_empty() {
        return Ok(());
    }
    let rows = database::placeholders(ended.len(), ENDED_COLUMNS);
    // The first success is the one that counts, and so is the first end without one; a later retry moves neither.
    let update = format!(
        "WITH ended(ended_organization, ended_id, ended_status, ended_attempt_count, ended_response_status,
                    ended_response_body, ended_error, ended_delivered_at, ended_undelivered_at) AS (VALUES {rows})
         UPDATE deliveries SET status = ended_status, attempt_count = ended_attempt_count,
             response_status = ended_response_status, response_body = ended_response_body, error = ended_error,
             delivered_at = COALESCE(delivered_at, ended_delivered_at),
             undelivered_at = CASE WHEN ended_undelivered_at IS NULL THEN NULL
                 ELSE COALESCE(undelivered_at, ended_undelivered_at) END
         FROM ended WHERE organization_id = ended_organization AND id = ended_id"
    );
    let values = ended.iter().flat_map(|finished| ended_row(finished));
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), update, values);
    tx.execute_raw(statement).await?;
    Ok(())
}

fn ended_row(finished: &Finished) -> [Value; ENDED_COLUMNS] {
    let Finished {
        lease,
        outcome,
        status,
        ended_at,
        ..
    } = finished;
    let at = |is_so: bool| is_so.then_some(ended_at.as_millis());
    [
        lease.organization_id.into(),
        lease.delivery_id.into(),
        status.as_str().into(),
        number_column(lease).into(),
        outcome.response_status.map(i32::from).into(),
        outcome.response_body.clone().into(),
        outcome.error.map(ErrorWord::as_str).into(),
        at(*status == DeliveryStatus::Delivered).into(),
        at(matches!(status, DeliveryStatus::Failed | DeliveryStatus::Canceled)).into(),
    ]
}

fn number_column(lease: &Lease) -> i32 {
    i32::try_from(lease.number).unwrap_or(i32::MAX)
}

async fn insert_attempts(tx: &impl ConnectionTrait, ended: &[&Finished]) -> Result<(), StoreError> {
    let rows: Vec<_> = ended.iter().map(|finished| attempt_row(finished)).collect();
    if !rows.is_empty() {
        attempt::Entity::insert_many(rows).exec_without_returning(tx).await?;
    }
    Ok(())
}

fn attempt_row(finished: &Finished) -> attempt::ActiveModel {
    let Finished {
        lease,
        trigger,
        started_at,
        ended_at,
        outcome,
        ..
    } = finished;
    attempt::ActiveModel {
        organization_id: Set(lease.organization_id),
        delivery_id: Set(lease.delivery_id),
        number: Set(number_column(lease)),
        trigger: Set(trigger.as_str().to_owned()),
        started_at: Set(started_at.as_millis()),
        duration_ms: Set(i64::try_from(ended_at.since(*started_at).as_millis()).unwrap_or(i64::MAX)),
        response_status: Set(outcome.response_status.map(i32::from)),
        response_body: Set(outcome.response_body.clone()),
        error: Set(outcome.error.map(|word| word.as_str().to_owned())),
    }
}
