//! Requests that are done once, however often they are sent: one row per key.
//!
//! What a single write does keeps its response in that write's transaction (`enter`, then `keep`): there is no state in
//! between. What needs an attempt or several transactions holds the key by a lease meanwhile:
//!
//! ```text
//!            begin                finish
//! (no row) ────────► running ────────────► done ──► expires
//!     ▲                │  ▲
//!     └──── release ───┘  └── pause, or the lease has ended: the same request may run again, with the same seed
//! ```

use std::time::Duration;

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    Set, Statement, Unchanged, Value, sea_query::Expr,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Database, StoreError,
    engine::Connection,
    entity::idempotency_key,
    once::{Keyed, Once, Request},
    secrets,
};
use crate::{
    clock::Clock,
    domain::{id::LeaseToken, timestamp::Timestamp},
};

/// How long a key is remembered.
pub const REMEMBERED: Duration = Duration::from_hours(24);

/// The most rows in one batch of [`prune`]; the pause after a full batch; the interval between passes.
const BATCH_MAX: u64 = 500;
const BATCH_PAUSE: Duration = Duration::from_millis(50);
const PASS_INTERVAL: Duration = Duration::from_mins(1);

/// What a write finds under its key.
#[derive(Debug)]
pub(super) enum Entered<T> {
    /// Nothing: it may proceed, and keeps its response there.
    Free,
    /// A request, the same one or another, holds the key.
    InUse(Once<T>),
}

// Until the response is kept, the row says that the request is running; no other transaction ever sees that.
pub(in crate::store) const ENTER: &str = "
    INSERT INTO idempotency_keys (organization_id, key, fingerprint, lease_token, leased_until, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (organization_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, seed = NULL,
        lease_token = excluded.lease_token, leased_until = excluded.leased_until, response = NULL,
        expires_at = excluded.expires_at
    WHERE idempotency_keys.expires_at <= $5
        OR idempotency_keys.leased_until <= $5 AND idempotency_keys.fingerprint = excluded.fingerprint";

/// Claims a key in the transaction of its write. A concurrent user of the same key waits here until this transaction
/// ends.
pub(super) async fn enter<T>(
    db: &Database,
    tx: &Connection<'_>,
    request: &Request,
    now: Timestamp,
) -> Result<Entered<T>, StoreError> {
    let values: [Value; 6] = [
        request.organization_id.into(),
        request.key.as_str().into(),
        request.fingerprint.to_vec().into(),
        Uuid::new_v4().into(),
        now.into(),
        now.plus(REMEMBERED).into(),
    ];
    let enter = Statement::from_sql_and_values(tx.get_database_backend(), ENTER, values);
    if tx.execute_raw(enter).await?.rows_affected() == 1 {
        return Ok(Entered::Free);
    }
    look_up(db, tx, request, now).await
}

/// What is stored under a key that is in use.
pub(super) async fn look_up<T>(
    db: &Database,
    connection: &Connection<'_>,
    request: &Request,
    now: Timestamp,
) -> Result<Entered<T>, StoreError> {
    let row = of_key(request).one(connection).await?;
    let Some(row) = row.filter(|row| row.expires_at > now) else {
        return Ok(Entered::Free);
    };
    if row.fingerprint != request.fingerprint {
        return Ok(Entered::InUse(Once::Mismatch));
    }
    let opened = row.response.and_then(|sealed| open(db, request, &sealed));
    Ok(Entered::InUse(opened.map_or(Once::Running, Once::Before)))
}

/// The response stored under a key, if the same request was done before.
pub async fn kept(db: &Database, request: &Request, now: Timestamp) -> Result<Option<Vec<u8>>, StoreError> {
    match look_up::<()>(db, &db.read(), request, now).await? {
        Entered::InUse(Once::Before(response)) => Ok(Some(response)),
        _ => Ok(None),
    }
}

/// Keeps the response to a write's result, in the write's transaction. A refusal leaves the key free.
pub(super) async fn keep<T>(
    db: &Database,
    tx: &Connection<'_>,
    key: &Keyed<T>,
    done: &T,
    now: Timestamp,
) -> Result<(), StoreError> {
    let request = &key.request;
    let Some(response) = (key.respond)(done) else {
        return forget(tx, request).await;
    };
    let row = idempotency_key::ActiveModel {
        organization_id: Unchanged(request.organization_id),
        key: Unchanged(request.key.as_str().to_owned()),
        response: Set(Some(seal(db, request, &response)?)),
        lease_token: Set(None),
        leased_until: Set(None),
        expires_at: Set(now.plus(REMEMBERED)),
        ..Default::default()
    };
    idempotency_key::Entity::update(row).exec_without_returning(tx).await?;
    Ok(())
}

async fn forget(tx: &Connection<'_>, request: &Request) -> Result<(), StoreError> {
    let key = (request.organization_id, request.key.as_str().to_owned());
    idempotency_key::Entity::delete_by_id(key).exec(tx).await?;
    Ok(())
}

/// A response as stored: sealed, since it may contain a signing secret.
pub(super) fn seal(db: &Database, request: &Request, response: &[u8]) -> Result<Vec<u8>, StoreError> {
    secrets::check::may_seal(db)?;
    let sealed = db.keys.seal_bytes(&associated_data(request), response);
    sealed.ok_or_else(|| StoreError::Corrupt("a response could not be sealed".to_owned()))
}

/// The right to run a request, until the lease ends.
#[derive(Clone, Debug)]
pub struct Run {
    /// The ids of everything that the request creates are derived from this: it is the same in every run.
    pub seed: Uuid,
    request: Request,
    lease_token: LeaseToken,
}

/// The state of a request's key.
#[derive(Debug)]
pub enum Begun {
    /// The request is to be run.
    Run(Run),
    /// The request is running.
    Running,
    /// The request was done, with this response.
    Done(Vec<u8>),
    /// The key was used for another request.
    Mismatch,
}

/// Begins a request, unless its key says that it has begun before. `seed` is for a new request.
pub async fn begin(
    db: &Database,
    request: Request,
    seed: Uuid,
    lease: Duration,
    now: Timestamp,
) -> Result<Begun, StoreError> {
    let inner = db.clone();
    db.write_for(request.organization_id, move |tx| {
        Box::pin(async move { begin_in(&inner, tx, request, seed, lease, now).await })
    })
    .await
}

async fn begin_in(
    db: &Database,
    tx: &Connection<'_>,
    request: Request,
    seed: Uuid,
    lease: Duration,
    now: Timestamp,
) -> Result<Begun, StoreError> {
    let lease_token = LeaseToken::new(Uuid::new_v4());
    let run = |seed| {
        Begun::Run(Run {
            seed,
            request: request.clone(),
            lease_token,
        })
    };
    let fresh = |seed| idempotency_key::ActiveModel {
        organization_id: Set(request.organization_id),
        key: Set(request.key.as_str().to_owned()),
        fingerprint: Set(request.fingerprint.to_vec()),
        seed: Set(Some(seed)),
        lease_token: Set(Some(lease_token)),
        leased_until: Set(Some(now.plus(lease))),
        response: Set(None),
        expires_at: Set(now.plus(REMEMBERED)),
    };
    let insert = idempotency_key::Entity::insert(fresh(seed)).on_conflict_do_nothing();
    if matches!(
        insert.exec_without_returning(tx).await?,
        sea_orm::TryInsertResult::Inserted(1..)
    ) {
        return Ok(run(seed));
    }
    let Some(known) = of_key(&request).lock_exclusive().one(tx).await? else {
        // It was released between the two statements; the client's next try will find it free.
        return Ok(Begun::Running);
    };
    let seed = if known.expires_at <= now {
        seed
    } else if known.fingerprint != request.fingerprint {
        return Ok(Begun::Mismatch);
    } else if let Some(response) = known.response.and_then(|sealed| open(db, &request, &sealed)) {
        return Ok(Begun::Done(response));
    } else if known.leased_until > Some(now) {
        return Ok(Begun::Running);
    } else {
        known.seed.unwrap_or(seed)
    };
    idempotency_key::Entity::update(fresh(seed))
        .exec_without_returning(tx)
        .await?;
    Ok(run(seed))
}

/// Keeps the response of a finished request. If another run has taken over meanwhile, that one's response is kept.
pub async fn finish(db: &Database, run: &Run, response: &[u8]) -> Result<(), StoreError> {
    let sealed = seal(db, &run.request, response)?;
    let row = idempotency_key::ActiveModel {
        response: Set(Some(sealed)),
        lease_token: Set(None),
        leased_until: Set(None),
        ..Default::default()
    };
    settle(db, run, row).await
}

/// Lets a failed request run again at once. It keeps its seed: nobody knows how far it got.
pub async fn pause(db: &Database, run: &Run) -> Result<(), StoreError> {
    let row = idempotency_key::ActiveModel {
        leased_until: Set(Some(Timestamp::from_millis(0))),
        ..Default::default()
    };
    settle(db, run, row).await
}

async fn settle(db: &Database, run: &Run, row: idempotency_key::ActiveModel) -> Result<(), StoreError> {
    let held = held_by(run);
    let write = db.write_for(run.request.organization_id, move |tx| {
        Box::pin(async move {
            let update = idempotency_key::Entity::update_many().set(row).filter(held);
            update.exec(tx).await?;
            Ok::<_, StoreError>(())
        })
    });
    write.await
}

/// Deletes the key of a refused request: it can be used for a corrected one.
pub async fn release(db: &Database, run: &Run) -> Result<(), StoreError> {
    let held = held_by(run);
    let write = db.write_for(run.request.organization_id, move |tx| {
        Box::pin(async move {
            idempotency_key::Entity::delete_many().filter(held).exec(tx).await?;
            Ok::<_, StoreError>(())
        })
    });
    write.await
}

/// Lets all running requests run again, after the only process that could run them has restarted.
///
/// If other nodes may be alive, nothing is taken from them: their leases expire by themselves.
pub async fn recover(db: &Database) -> Result<(), StoreError> {
    if db.has_other_nodes() {
        return Ok(());
    }
    let write = db.write(|tx| {
        Box::pin(async move {
            idempotency_key::Entity::update_many()
                .col_expr(idempotency_key::Column::LeasedUntil, Expr::value(0_i64))
                .filter(idempotency_key::Column::LeaseToken.is_not_null())
                .exec(tx)
                .await?;
            Ok::<_, StoreError>(())
        })
    });
    write.await
}

/// Removes expired keys repeatedly, until `stop` is set.
pub async fn run(db: Database, clock: Clock, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match prune(&db, clock.now()).await {
            Ok(removed) if removed == BATCH_MAX => BATCH_PAUSE,
            Ok(_) => PASS_INTERVAL,
            Err(error) => {
                tracing::warn!(exception.message = %error, "expired idempotency keys could not be removed; retrying later");
                PASS_INTERVAL
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// Removes a batch of expired keys; returns how many.
pub async fn prune(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    // Rows that another node is removing are left to it.
    let skip = if db.backend() == DbBackend::Postgres {
        "FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let sql = format!(
        "DELETE FROM idempotency_keys WHERE (organization_id, key) IN (
            SELECT organization_id, key FROM idempotency_keys WHERE expires_at <= $1
            ORDER BY expires_at LIMIT {BATCH_MAX} {skip})"
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, [now.into()]);
    Ok(db.write_one(statement).await?.rows_affected())
}

/// Opens a stored response. `None` if its master key was removed meanwhile: then it counts as not stored.
fn open(db: &Database, request: &Request, sealed: &[u8]) -> Option<Vec<u8>> {
    db.keys.open_bytes(&associated_data(request), sealed)
}

fn of_key(request: &Request) -> sea_orm::Select<idempotency_key::Entity> {
    idempotency_key::Entity::find_by_id((request.organization_id, request.key.as_str().to_owned()))
}

/// Matches the row of a request as long as this run holds it.
fn held_by(run: &Run) -> Condition {
    Condition::all()
        .add(idempotency_key::Column::OrganizationId.eq(run.request.organization_id))
        .add(idempotency_key::Column::Key.eq(run.request.key.as_str()))
        .add(idempotency_key::Column::LeaseToken.eq(run.lease_token))
}

/// A sealed response that is moved to another row does not open.
fn associated_data(request: &Request) -> Vec<u8> {
    let (org, key) = (request.organization_id.as_uuid(), request.key.as_str().as_bytes());
    [b"idempotency_keys".as_slice(), org.as_bytes(), key].concat()
}
