//! Recording finished attempts: each attempt, its delivery's new state, the webhook's health, and the events that
//! notify the organization, in one transaction shared with other attempts.
//!
//! A success of a healthy webhook is the plain case: one statement (three on SQLite, where they cost no round trip).
//! Everything else locks the webhook's health first.

use std::{collections::HashSet, sync::Arc};

use sea_orm::{ConnectionTrait as _, DbBackend};

use super::{
    finish_batch, finish_rows,
    health::{self, HealthChange},
    lease::{Fence, Finished},
    leases, operational,
};
use crate::{
    domain::id::OrganizationId,
    store::{Database, StoreError, engine::Connection},
};

/// Records a finished attempt. Returns false if its lease was lost meanwhile: then nothing changes.
pub async fn finish(db: &Database, finished: Finished) -> Result<bool, StoreError> {
    if let Some(shared) = &db.shared {
        return shared.records.submit(finished).await;
    }
    let inner = db.clone();
    let write = db.write_for(finished.lease.organization_id, move |tx| {
        Box::pin(async move {
            if finish_rows::record_plain(tx, &finished).await? {
                return Ok((true, Vec::new()));
            }
            let (held, changes) = record_all(&inner, tx, &[&finished]).await?;
            Ok::<_, StoreError>((!held.is_empty(), changes))
        })
    });
    let (is_held, changes) = write.await?;
    health::announce(db, changes);
    Ok(is_held)
}

/// Records a batch: the plain ones in one statement, the others in a transaction. Returns which leases held; attempts
/// whose lease was lost change nothing.
pub(in crate::store) async fn finish_batch(db: Database, batch: Arc<[Finished]>) -> Result<Vec<bool>, StoreError> {
    let plain: Vec<&Finished> = batch.iter().filter(|finished| finished.is_plain()).collect();
    let mut recorded = if plain.is_empty() {
        HashSet::new()
    } else {
        finish_batch::record_plain(&db, &plain).await?
    };
    let mut left: Vec<Finished> = batch
        .iter()
        .filter(|finished| !recorded.contains(&finished.fence()))
        .cloned()
        .collect();
    // Notices depend on all attempts of a batch. If some leases turn out to be lost, everything is rolled back and the
    // others are recorded without them.
    while !left.is_empty() {
        match record_in_transaction(&db, left.clone()).await {
            Ok(()) => {
                recorded.extend(left.iter().map(Finished::fence));
                break;
            }
            Err(NotRecorded::Lost(held)) => left.retain(|finished| held.contains(&finished.fence())),
            Err(NotRecorded::Failed(error)) => return Err(error),
        }
    }
    Ok(batch
        .iter()
        .map(|finished| recorded.contains(&finished.fence()))
        .collect())
}

/// Why a batch was rolled back.
enum NotRecorded {
    /// Some leases were lost; only these hold.
    Lost(HashSet<Fence>),
    /// The database failed.
    Failed(StoreError),
}

impl From<StoreError> for NotRecorded {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

async fn record_in_transaction(db: &Database, ended: Vec<Finished>) -> Result<(), NotRecorded> {
    let inner = db.clone();
    let write = db.write(move |tx| {
        Box::pin(async move {
            let ended: Vec<&Finished> = ended.iter().collect();
            let (held, changes) = record_all(&inner, tx, &ended).await?;
            let all = ended.iter().all(|finished| held.contains(&finished.fence()));
            if all { Ok(changes) } else { Err(NotRecorded::Lost(held)) }
        })
    });
    health::announce(db, write.await?);
    Ok(())
}

/// Records attempts with all their consequences if every lease holds, and nothing otherwise. Returns the leases that
/// hold, and the changes to the webhooks' health.
async fn record_all(
    db: &Database,
    tx: &Connection<'_>,
    ended: &[&Finished],
) -> Result<(HashSet<Fence>, Vec<HealthChange>), StoreError> {
    let before = health::lock(tx, ended).await?;
    let (after, news) = health::apply(&before, ended);
    let organizations: HashSet<OrganizationId> = news.iter().map(|(organization, _)| *organization).collect();
    // The webhooks that may be notified are locked before the queue, as everywhere.
    let subscribers = operational::lock_subscribers(tx, organizations).await?;
    let entries = leases::lock_held(tx, ended.iter().map(|finished| &finished.lease)).await?;
    let held: HashSet<Fence> = entries
        .iter()
        .map(|entry| (entry.delivery_id, entry.lease_token))
        .collect();
    if !ended.iter().all(|finished| held.contains(&finished.fence())) {
        return Ok((held, Vec::new()));
    }
    // An entry that is no longer owed belongs to a delivery that was canceled meanwhile or had ended before: only a
    // success changes its status.
    let is_owed = |finished: &Finished| {
        let id = finished.lease.delivery_id;
        entries.iter().any(|entry| entry.delivery_id == id && entry.owed)
    };
    let ended: Vec<(&Finished, bool)> = ended.iter().map(|finished| (*finished, is_owed(finished))).collect();
    match tx.get_database_backend() {
        DbBackend::Postgres => finish_batch::record(tx, &ended).await?,
        _ => finish_rows::record_all(tx, &ended).await?,
    }
    let changes = health::changes(&before, &after, &news);
    health::write(db, tx, &before, after).await?;
    operational::record(db, tx, &subscribers, news).await?;
    Ok((held, changes))
}
