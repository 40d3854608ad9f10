//! Leases: who holds a queue entry, and until when.
//!
//! A lease is a token that only its holder knows, and an end after which the entry is free again. Taking it counts the
//! attempt, so a node that dies in the middle of one never repeats its number.
//!
//! Lock order: webhooks, queue entries, deliveries. Replay and retention lock only deliveries without a queue entry,
//! which nobody who holds other locks can wait for.

use std::{collections::HashSet, sync::LazyLock};

use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, QueryResult, Statement, Value, prelude::Uuid};

use super::lease::{Fence, Lease};
use crate::{
    domain::{
        id::{DeliveryId, LeaseToken},
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        engine::{Connection, among::array},
    },
};

/// The leases of a batch as rows.
const LEASES: &str = "UNNEST($1::uuid[], $2::uuid[], $3::uuid[]) AS l(organization_id, delivery_id, token)";

/// The same as arrays.
fn arrays<'a>(leases: impl Iterator<Item = &'a Lease> + Clone) -> [Value; 3] {
    [
        array(leases.clone(), |lease| Uuid::from(lease.organization_id)),
        array(leases.clone(), |lease| Uuid::from(lease.delivery_id)),
        array(leases, |lease| Uuid::from(lease.token)),
    ]
}

fn key(lease: &Lease) -> [Value; 3] {
    [
        lease.organization_id.into(),
        lease.delivery_id.into(),
        lease.token.into(),
    ]
}

/// A queue entry whose lease holds.
#[derive(FromQueryResult)]
pub(super) struct Held {
    pub(super) delivery_id: DeliveryId,
    pub(super) lease_token: LeaseToken,
    /// Whether the delivery is still owed.
    pub(super) owed: bool,
}

/// Locks the queue entries of those leases that still hold: the fence before every record.
pub(super) async fn lock_held<'a>(
    tx: &Connection<'_>,
    leases: impl Iterator<Item = &'a Lease> + Clone,
) -> Result<Vec<Held>, StoreError> {
    const ONE: &str = "SELECT delivery_id, lease_token, owed FROM queue
        WHERE organization_id = $1 AND delivery_id = $2 AND lease_token = $3";
    if tx.get_database_backend() == DbBackend::Postgres {
        let all = format!(
            "SELECT queue.delivery_id, lease_token, owed FROM queue JOIN {LEASES}
                 ON queue.organization_id = l.organization_id AND queue.delivery_id = l.delivery_id AND lease_token = token
             ORDER BY queue.delivery_id FOR UPDATE OF queue"
        );
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, all, arrays(leases));
        return Ok(Held::find_by_statement(statement).all(tx).await?);
    }
    let mut held = Vec::new();
    for lease in leases {
        let statement = Statement::from_sql_and_values(DbBackend::Sqlite, ONE, key(lease));
        held.extend(Held::find_by_statement(statement).one(tx).await?);
    }
    Ok(held)
}

pub(in crate::store) const UNCOUNT_ONE: &str = "UPDATE deliveries SET attempt_count = attempt_count - 1
    WHERE organization_id = $1 AND id = $2 AND EXISTS (
        SELECT 1 FROM queue
        WHERE organization_id = $1 AND delivery_id = $2 AND lease_token = $3 AND NOT owed)";

pub(in crate::store) static RELEASE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH lost AS (
            DELETE FROM queue USING {LEASES}
            WHERE queue.organization_id = l.organization_id AND queue.delivery_id = l.delivery_id
                AND lease_token = token AND NOT owed
            RETURNING queue.organization_id, queue.delivery_id
         ), uncounted AS (
            UPDATE deliveries SET attempt_count = attempt_count - 1 FROM lost
            WHERE deliveries.organization_id = lost.organization_id AND deliveries.id = lost.delivery_id
         )
         UPDATE queue SET lease_token = NULL, lease_node = NULL, due_at = $4, attempt_count = attempt_count - 1
         FROM {LEASES}
         WHERE queue.organization_id = l.organization_id AND queue.delivery_id = l.delivery_id
             AND lease_token = token AND owed"
    )
});

/// Releases the leases of attempts that were not made: these do not count, and the deliveries are due at `due_at`.
/// Entries that are no longer owed leave the queue; their delivery keeps the number.
pub async fn release(db: &Database, leases: Vec<Lease>, due_at: Timestamp) -> Result<(), StoreError> {
    const DROP_ONE: &str = "DELETE FROM queue
        WHERE organization_id = $1 AND delivery_id = $2 AND lease_token = $3 AND NOT owed";
    const FREE_ONE: &str = "UPDATE queue
        SET lease_token = NULL, lease_node = NULL, due_at = $4, attempt_count = attempt_count - 1
        WHERE organization_id = $1 AND delivery_id = $2 AND lease_token = $3";
    if leases.is_empty() {
        return Ok(());
    }
    if db.backend() == DbBackend::Postgres {
        let values = arrays(leases.iter()).into_iter().chain([due_at.into()]);
        db.write_one(Statement::from_sql_and_values(
            DbBackend::Postgres,
            RELEASE.as_str(),
            values,
        ))
        .await?;
        return Ok(());
    }
    let write = db.write(move |tx| {
        Box::pin(async move {
            for lease in &leases {
                for sql in [UNCOUNT_ONE, DROP_ONE, FREE_ONE] {
                    let values = key(lease).into_iter().chain([due_at.into()]);
                    tx.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values))
                        .await?;
                }
            }
            Ok::<_, StoreError>(())
        })
    });
    write.await
}

/// Extends leases to `until`. Returns those that still hold: the others belong to somebody else or have ended, and must
/// not be used.
pub async fn renew(db: &Database, leases: Vec<Lease>, until: Timestamp) -> Result<Vec<Lease>, StoreError> {
    if leases.is_empty() {
        return Ok(leases);
    }
    let write = db.write(move |tx| {
        Box::pin(async move {
            let held: HashSet<Fence> = renew_held(tx, &leases, until).await?.into_iter().collect();
            let holds = |lease: &Lease| held.contains(&(lease.delivery_id, lease.token));
            Ok::<_, StoreError>(leases.into_iter().filter(holds).collect())
        })
    });
    write.await
}

pub(in crate::store) static RENEW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE queue SET due_at = $4 FROM {LEASES}
             WHERE queue.organization_id = l.organization_id AND queue.delivery_id = l.delivery_id
                 AND lease_token = token
             RETURNING queue.delivery_id, queue.lease_token"
    )
});

async fn renew_held(tx: &Connection<'_>, leases: &[Lease], until: Timestamp) -> Result<Vec<Fence>, StoreError> {
    const ONE: &str = "UPDATE queue SET due_at = $4
        WHERE organization_id = $1 AND delivery_id = $2 AND lease_token = $3";
    if tx.get_database_backend() == DbBackend::Postgres {
        let values = arrays(leases.iter()).into_iter().chain([until.into()]);
        let renewed = tx
            .query_all_raw(Statement::from_sql_and_values(
                DbBackend::Postgres,
                RENEW.as_str(),
                values,
            ))
            .await?;
        let fence = |row: &QueryResult| Ok((row.try_get("", "delivery_id")?, row.try_get("", "lease_token")?));
        return renewed.iter().map(fence).collect();
    }
    let mut held = Vec::new();
    for lease in leases {
        let values = key(lease).into_iter().chain([until.into()]);
        let renewed = tx
            .execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, ONE, values))
            .await?;
        if renewed.rows_affected() == 1 {
            held.push((lease.delivery_id, lease.token));
        }
    }
    Ok(held)
}

/// Whose leases are released.
#[derive(Clone, Copy, Debug)]
enum LeaseFilter {
    /// Everybody's: no process that could hold one is alive.
    All,
    /// This node's own, if they ended between these times.
    Ended(Timestamp, Timestamp),
}

/// Releases every lease after the only process that could hold one has restarted. Returns how many there were.
///
/// If other nodes may be alive, [`super::nodes`] takes over what dead ones held.
pub async fn recover(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    if db.has_other_nodes() {
        return Ok(0);
    }
    release_matching(db, LeaseFilter::All, now).await
}

/// Releases this node's leases that ended before `now` without a record, but not before `since`. Returns how many.
///
/// Leases end in the future when they are taken, so those that ended before an earlier sweep need not be checked again:
/// on PostgreSQL, a snapshot that somebody holds would keep all those dead entries in the index.
pub async fn release_ended(db: &Database, since: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
    release_matching(db, LeaseFilter::Ended(since, now), now).await
}

async fn release_matching(db: &Database, filter: LeaseFilter, now: Timestamp) -> Result<u64, StoreError> {
    let (condition, values): (&str, Vec<Value>) = match filter {
        LeaseFilter::All => ("lease_token IS NOT NULL", Vec::new()),
        LeaseFilter::Ended(since, until) => (
            "lease_token IS NOT NULL AND lease_node = $2 AND due_at > $3 AND due_at <= $4",
            vec![db.node.into(), since.as_millis().into(), until.as_millis().into()],
        ),
    };
    // Skips locked rows: these are not taken in the global lock order, so waiting could deadlock.
    let lock = if db.backend() == DbBackend::Postgres {
        "FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let entries = format!(
        "(organization_id, delivery_id) IN (SELECT organization_id, delivery_id FROM queue WHERE {condition} {lock})"
    );
    // `$1` appears in both, so that both take the same values.
    let drop = format!("DELETE FROM queue WHERE NOT owed AND $1 > 0 AND {entries}");
    let free = format!("UPDATE queue SET lease_token = NULL, lease_node = NULL, due_at = $1 WHERE owed AND {entries}");
    let values: Vec<Value> = [now.as_millis().into()].into_iter().chain(values).collect();
    let write = db.write(move |tx| {
        Box::pin(async move {
            let backend = tx.get_database_backend();
            let dropped = tx
                .execute_raw(Statement::from_sql_and_values(backend, drop, values.clone()))
                .await?;
            let freed = tx
                .execute_raw(Statement::from_sql_and_values(backend, free, values))
                .await?;
            Ok::<_, StoreError>(dropped.rows_affected() + freed.rows_affected())
        })
    });
    write.await
}
