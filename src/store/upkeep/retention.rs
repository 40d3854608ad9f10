//! Retention: data older than the operator wants to keep is deleted, one bounded batch at a time.
//!
//! An event is deleted with its deliveries and their attempts, oldest first, organization by organization: the index
//! that lists events newest first finds them from its other end. Pending deliveries stay, however old, and so do their
//! events.

use std::time::{Duration, Instant};

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement,
    sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, Query},
};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    domain::{
        delivery::DeliveryStatus,
        event_id::EventId,
        id::{DeliveryId, OrganizationId},
        timestamp::Timestamp,
    },
    metrics::Metrics,
    store::{
        Database, StoreError,
        engine::{
            Connection,
            among::{among_ids, among_texts},
        },
        entity::{attempt, delivery, event, organization, queued},
        queue::leases,
        upkeep::clock_jump::{self, Passed},
    },
};

/// The most events in one batch: enough to stay ahead of the fastest publishing that one SQLite database takes, few
/// enough that the batch is done in some ten milliseconds, which is how long a publication may have to wait for it.
const EVENTS_A_BATCH_MAX: u64 = 250;

/// The most deliveries in one batch. An event may have one per webhook of the organization; the next batch continues
/// with the rest.
const DELIVERIES_A_BATCH_MAX: u64 = 1000;

/// The shortest pause between two batches; a batch that took longer is followed by a pause as long as itself, so that
/// pruning never takes more than half of a slow database's time.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The pause between two passes: data is kept too long by at most this much.
const PASS_INTERVAL: Duration = Duration::from_mins(10);

/// Lets one node prune at a time, for the length of a batch. The number is arbitrary, but must never change.
const TURN: &str = "SELECT pg_try_advisory_xact_lock(8230645551848) AS is_ours";

/// The most audit entries in one batch.
const ENTRIES_A_BATCH_MAX: u32 = 1000;

const PRUNE_AUDIT: &str = "DELETE FROM audit_entries WHERE (organization_id, id) IN (
    SELECT organization_id, id FROM audit_entries WHERE created_at < $1 ORDER BY created_at LIMIT $2)";

/// How much was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events, each with all its deliveries.
    pub events: u64,
    /// Deliveries, each with its attempts.
    pub deliveries: u64,
    /// Entries of the audit log.
    pub audit_entries: u64,
}

/// How far a pass over an organization has come: the time and the id of the last event that it examined.
pub type Cursor = (Timestamp, EventId);

/// The result of one batch.
#[derive(Debug)]
pub enum Batch {
    /// It is done; the next one begins after this event.
    Done(Pruned, Option<Cursor>),
    /// Nothing is left.
    Empty,
    /// Another node is pruning now.
    NotOurTurn,
}

/// Prunes data older than `keep` repeatedly, until `stop` is set. If everything is kept, it only records that the
/// service runs.
pub async fn run(
    db: Database,
    clock: Clock,
    keep: Option<Duration>,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let pass = async {
            match pass(&db, &clock, keep, &metrics).await {
                Ok(pruned) if pruned == Pruned::default() => {}
                Ok(Pruned {
                    events,
                    deliveries,
                    audit_entries,
                }) => tracing::info!(
                    kallima.events = events,
                    kallima.deliveries = deliveries,
                    kallima.audit_entries = audit_entries,
                    "retention pruned"
                ),
                Err(error) => {
                    tracing::warn!(exception.message = %error, "retention could not prune; retrying later");
                }
            }
            tokio::time::sleep(PASS_INTERVAL).await;
        };
        // Dropping a pass between two batches, or in the middle of one that then rolls back, does no harm.
        tokio::select! {
            () = pass => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// One pass, unless the clock has jumped: then nothing is deleted.
pub async fn pass(
    db: &Database,
    clock: &Clock,
    keep: Option<Duration>,
    metrics: &Metrics,
) -> Result<Pruned, StoreError> {
    let now = clock.now();
    let jump = match clock_jump::note(db, now).await? {
        Passed::Little => None,
        Passed::Much(seen_at) => Some(seen_at),
    };
    if metrics.set_retention_paused(jump.is_some())
        && let Some(seen_at) = jump
    {
        tracing::warn!(
            kallima.clock.now = %now, kallima.clock.last_run = %seen_at,
            "retention deletes nothing: more than a day has passed since the service last ran, or the clock is wrong. If \
             the time is right, restart with --accept-clock-jump (KALLIMA_ACCEPT_CLOCK_JUMP) once. Deliveries continue"
        );
    }
    if jump.is_some() {
        return Ok(Pruned::default());
    }
    let pruned = match keep {
        Some(keep) => prune(db, clock, keep).await?,
        None => Pruned::default(),
    };
    metrics.retention_succeeded(clock.now().as_millis());
    Ok(pruned)
}

/// One pass: prunes everything that is older than `keep` when it begins, and so ends however fast others publish.
pub async fn prune(db: &Database, clock: &Clock, keep: Duration) -> Result<Pruned, StoreError> {
    let now = clock.now();
    let before = now.minus(keep);
    // Leases of retries that ended without a record would keep deliveries for nobody.
    leases::release_ended(db, Timestamp::from_millis(0), now).await?;
    let mut total = Pruned {
        audit_entries: prune_audit(db, before).await?,
        ..Pruned::default()
    };
    let organizations: Vec<OrganizationId> = organization::Entity::find()
        .select_only()
        .column(organization::Column::Id)
        .into_tuple()
        .all(&db.read())
        .await?;
    for organization in organizations {
        let mut cursor = None;
        loop {
            let began = Instant::now();
            match batch(db, organization, cursor.as_ref(), before).await? {
                Batch::Done(pruned, last) => {
                    total.events += pruned.events;
                    total.deliveries += pruned.deliveries;
                    cursor = last;
                }
                Batch::Empty => break,
                Batch::NotOurTurn => return Ok(total),
            }
            tokio::time::sleep(began.elapsed().max(PAUSE_MIN)).await;
        }
    }
    Ok(total)
}

/// Prunes one batch of what an organization published before `before`, starting after the event `after`.
pub async fn batch(
    db: &Database,
    org: OrganizationId,
    after: Option<&Cursor>,
    before: Timestamp,
) -> Result<Batch, StoreError> {
    let events = old_events(db, org, after, before).await?;
    let Some(last) = events.last().cloned() else {
        return Ok(Batch::Empty);
    };
    let events: Vec<EventId> = events.into_iter().map(|(_, id)| id).collect();
    let write = db.write(move |tx| Box::pin(async move { prune_batch(tx, org, events).await }));
    let Some((pruned, is_cut)) = write.await? else {
        return Ok(Batch::NotOurTurn);
    };
    // If the batch was cut off by its deliveries, the same events are examined again.
    let next = if is_cut && pruned.deliveries > 0 {
        after.cloned()
    } else {
        Some(last)
    };
    Ok(Batch::Done(pruned, next))
}

/// Deletes the ended deliveries of these events, and the events that have none left. Also returns whether there may be
/// more deliveries. `None` if it is another node's turn.
async fn prune_batch(
    tx: &Connection<'_>,
    org: OrganizationId,
    events: Vec<EventId>,
) -> Result<Option<(Pruned, bool)>, StoreError> {
    if !our_turn(tx).await? {
        return Ok(None);
    }
    let backend = tx.get_database_backend();
    let events: Vec<String> = events.into_iter().map(String::from).collect();
    let (deliveries, is_cut) = ended_deliveries(tx, org, events.clone()).await?;
    attempt::Entity::delete_many()
        .filter(attempt::Column::OrganizationId.eq(org))
        .filter(among_ids(backend, "delivery_id", deliveries.iter().copied()))
        .exec(tx)
        .await?;
    let deliveries = delivery::Entity::delete_many()
        .filter(delivery::Column::OrganizationId.eq(org))
        .filter(among_ids(backend, "id", deliveries))
        .exec(tx)
        .await?;
    let owed = Query::select()
        .expr(Expr::value(1))
        .from(delivery::Entity)
        .and_where(Expr::col((delivery::Entity, delivery::Column::OrganizationId)).eq(org))
        .and_where(Expr::col((delivery::Entity, delivery::Column::EventId)).equals((event::Entity, event::Column::Id)))
        .take();
    let events = event::Entity::delete_many()
        .filter(event::Column::OrganizationId.eq(org))
        .filter(among_texts(backend, "id", events))
        .filter(Expr::exists(owed).not())
        .exec(tx)
        .await?;
    let pruned = Pruned {
        events: events.rows_affected,
        deliveries: deliveries.rows_affected,
        audit_entries: 0,
    };
    Ok(Some((pruned, is_cut)))
}

/// Whether no other node is pruning; an embedded database has none.
async fn our_turn(tx: &Connection<'_>) -> Result<bool, StoreError> {
    if tx.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }
    let turn = tx
        .query_one_raw(Statement::from_string(DbBackend::Postgres, TURN))
        .await?;
    Ok(turn.map(|row| row.try_get("", "is_ours")).transpose()?.unwrap_or(false))
}

/// Prunes the audit entries from before `before`.
async fn prune_audit(db: &Database, before: Timestamp) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let began = Instant::now();
        let values = [before.as_millis(), ENTRIES_A_BATCH_MAX.into()].map(Into::into);
        let write = db.write(move |tx| {
            Box::pin(async move {
                if !our_turn(tx).await? {
                    return Ok(None);
                }
                let prune = Statement::from_sql_and_values(tx.get_database_backend(), PRUNE_AUDIT, values);
                Ok::<_, StoreError>(Some(tx.execute_raw(prune).await?.rows_affected()))
            })
        });
        let Some(pruned) = write.await? else {
            return Ok(total);
        };
        total += pruned;
        if pruned < ENTRIES_A_BATCH_MAX.into() {
            return Ok(total);
        }
        tokio::time::sleep(began.elapsed().max(PAUSE_MIN)).await;
    }
}

/// The organization's oldest events from before `before`, starting after `after`.
async fn old_events(
    db: &Database,
    org: OrganizationId,
    after: Option<&Cursor>,
    before: Timestamp,
) -> Result<Vec<Cursor>, StoreError> {
    let mut query = event::Entity::find()
        .select_only()
        .columns([event::Column::CreatedAt, event::Column::Id])
        .filter(event::Column::OrganizationId.eq(org))
        .filter(event::Column::CreatedAt.lt(before));
    if let Some((at, id)) = after {
        // The first condition follows from the others; it lets the index scan start at the cursor.
        query = query.filter(event::Column::CreatedAt.gte(*at)).filter(
            Condition::any()
                .add(event::Column::CreatedAt.gt(*at))
                .add(event::Column::Id.gt(id.clone())),
        );
    }
    let rows = query
        .order_by_asc(event::Column::CreatedAt)
        .order_by_asc(event::Column::Id)
        .limit(EVENTS_A_BATCH_MAX)
        .into_model::<OldEvent>()
        .all(&db.read_long())
        .await?;
    Ok(rows.into_iter().map(|row| (row.created_at, row.id)).collect())
}

#[derive(FromQueryResult)]
struct OldEvent {
    created_at: Timestamp,
    id: EventId,
}

/// The deliveries of these events that nobody works on or will; locked, so that none is requeued meanwhile. Also
/// returns whether there may be more of them.
async fn ended_deliveries(
    tx: &Connection<'_>,
    org: OrganizationId,
    events: Vec<String>,
) -> Result<(Vec<DeliveryId>, bool), StoreError> {
    let backend = tx.get_database_backend();
    let query = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .filter(delivery::Column::OrganizationId.eq(org))
        .filter(among_texts(backend, "event_id", events))
        .filter(delivery::Column::Status.ne(DeliveryStatus::Pending))
        .limit(DELIVERIES_A_BATCH_MAX)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    let ended: Vec<DeliveryId> = query.into_tuple().all(tx).await?;
    // Queried after the locks are taken: a retry that began before them is seen, and none begins after.
    let retried: Vec<DeliveryId> = queued::Entity::find()
        .select_only()
        .column(queued::Column::DeliveryId)
        .filter(queued::Column::OrganizationId.eq(org))
        .filter(among_ids(backend, "delivery_id", ended.iter().copied()))
        .into_tuple()
        .all(tx)
        .await?;
    let is_cut = ended.len() as u64 == DELIVERIES_A_BATCH_MAX;
    Ok((ended.into_iter().filter(|id| !retried.contains(id)).collect(), is_cut))
}
