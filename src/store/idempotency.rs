//! Requests that are done once, however often they are sent: one row a key.
//!
//! ```text
//!            begin                finish
//! (no row) ────────► running ────────────► done ──► expires
//!     ▲                │  ▲
//!     └──── release ───┘  └── pause, or the lease has ended: the same request may run again, with the same seed
//! ```

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, Condition, ConnectionTrait as _, DatabaseTransaction, DbBackend,
    EntityTrait as _, QueryFilter as _, QuerySelect as _, Statement, sea_query::Expr,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Database, StoreError, entity::idempotency_key};
use crate::{
    clock::Clock,
    domain::{idempotency_key::IdempotencyKey, timestamp::Timestamp},
};

/// How long a key is remembered.
const REMEMBERED: Duration = Duration::from_hours(24);

/// Rows in one batch of [`prune`] at most; the pause after a batch that was full; the time from one pass to the next.
const BATCH_MAX: u64 = 500;
const BATCH_PAUSE: Duration = Duration::from_millis(50);
const PASS_INTERVAL: Duration = Duration::from_mins(1);

/// A request as its key knows it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose key it is.
    pub organization_id: Uuid,
    /// The key.
    pub key: IdempotencyKey,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// The right to run a request, until the lease ends.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the ids of what the request makes are derived from: the same for every run of it.
    pub seed: Uuid,
    request: Request,
    lease_token: Uuid,
}

/// What a key says of a request.
#[derive(Debug)]
pub enum Begun {
    /// It is to be run.
    Run(Run),
    /// It is running.
    Running,
    /// It was done, and this was the response.
    Done(Vec<u8>),
    /// The key was used for another request.
    Mismatch,
}

/// Begins a request, unless its key says that it has begun before. `seed` is for a request that is new.
pub async fn begin(
    db: &Database,
    request: Request,
    seed: Uuid,
    lease: Duration,
    now: Timestamp,
) -> Result<Begun, StoreError> {
    let lease_token = Uuid::new_v4();
    let fresh = idempotency_key::Model {
        organization_id: request.organization_id,
        key: request.key.as_str().to_owned(),
        fingerprint: request.fingerprint.to_vec(),
        seed,
        lease_token: Some(lease_token),
        leased_until: Some(now.plus(lease).as_millis()),
        response: None,
        expires_at: now.plus(REMEMBERED).as_millis(),
    };
    let run = |request, seed| {
        Begun::Run(Run {
            seed,
            request,
            lease_token,
        })
    };
    let tx = db.begin().await?;
    if insert(&tx, db.engine(), &fresh).await? {
        tx.commit().await?;
        return Ok(run(request, seed));
    }
    let mut query = of_key(&request);
    if db.engine() == DbBackend::Postgres {
        query = query.lock_exclusive();
    }
    let Some(known) = query.one(&tx).await? else {
        // It was released between the two statements; whoever asks again finds it free.
        return Ok(Begun::Running);
    };
    let seed = if known.expires_at <= now.as_millis() {
        seed
    } else if known.fingerprint != fresh.fingerprint {
        return Ok(Begun::Mismatch);
    } else if let Some(response) = known.response.and_then(|sealed| open(db, &request, &sealed)) {
        return Ok(Begun::Done(response));
    } else if known.leased_until > Some(now.as_millis()) {
        return Ok(Begun::Running);
    } else {
        known.seed
    };
    let taken = idempotency_key::ActiveModel::from(idempotency_key::Model { seed, ..fresh });
    idempotency_key::Entity::update(taken.reset_all()).exec(&tx).await?;
    tx.commit().await?;
    Ok(run(request, seed))
}

/// Keeps the response of a request that is done. Where another run has taken over meanwhile, its response is kept.
pub async fn finish(db: &Database, run: &Run, response: &[u8]) -> Result<(), StoreError> {
    let sealed = db
        .keys
        .seal_bytes(&associated_data(&run.request), response)
        .ok_or_else(|| StoreError::Corrupt("a response could not be sealed".to_owned()))?;
    idempotency_key::Entity::update_many()
        .col_expr(idempotency_key::Column::Response, Expr::value(sealed))
        .col_expr(idempotency_key::Column::LeaseToken, Expr::value(None::<Uuid>))
        .col_expr(idempotency_key::Column::LeasedUntil, Expr::value(None::<i64>))
        .filter(held_by(run))
        .exec(&db.write)
        .await?;
    Ok(())
}

/// Forgets the key of a request that was refused: it can be used for a mended one.
pub async fn release(db: &Database, run: &Run) -> Result<(), StoreError> {
    idempotency_key::Entity::delete_many()
        .filter(held_by(run))
        .exec(&db.write)
        .await?;
    Ok(())
}

/// Lets a request that has failed run again at once. It keeps its seed: nobody knows how far it came.
pub async fn pause(db: &Database, run: &Run) -> Result<(), StoreError> {
    idempotency_key::Entity::update_many()
        .col_expr(idempotency_key::Column::LeasedUntil, Expr::value(0_i64))
        .filter(held_by(run))
        .exec(&db.write)
        .await?;
    Ok(())
}

/// Lets everything that was running run again: right when the only process that could run it has just started.
///
/// On PostgreSQL other nodes may be alive, so nothing is taken from them: their leases end by themselves.
pub async fn recover(db: &Database) -> Result<(), StoreError> {
    if db.engine() != DbBackend::Postgres {
        idempotency_key::Entity::update_many()
            .col_expr(idempotency_key::Column::LeasedUntil, Expr::value(0_i64))
            .filter(idempotency_key::Column::LeaseToken.is_not_null())
            .exec(&db.write)
            .await?;
    }
    Ok(())
}

/// Removes what has expired, again and again, until `stop` says so.
pub async fn run(db: Database, clock: Clock, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match prune(&db, clock.now()).await {
            Ok(removed) if removed == BATCH_MAX => BATCH_PAUSE,
            Ok(_) => PASS_INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "expired idempotency keys could not be removed; it is tried again later");
                PASS_INTERVAL
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// Removes a batch of what has expired, and says how much that was.
pub async fn prune(db: &Database, now: Timestamp) -> Result<u64, StoreError> {
    // Rows that another node is removing are left to it.
    let skip = if db.engine() == DbBackend::Postgres {
        "FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let sql = format!(
        "DELETE FROM idempotency_keys WHERE (organization_id, key) IN (
            SELECT organization_id, key FROM idempotency_keys WHERE expires_at <= $1
            ORDER BY expires_at LIMIT {BATCH_MAX} {skip})"
    );
    let statement = Statement::from_sql_and_values(db.engine(), sql, [now.as_millis().into()]);
    Ok(db.write.execute_raw(statement).await?.rows_affected())
}

/// Inserts the row, unless there is one. Whether it was inserted.
async fn insert(tx: &DatabaseTransaction, engine: DbBackend, row: &idempotency_key::Model) -> Result<bool, StoreError> {
    const INSERT: &str = "
        INSERT INTO idempotency_keys
            (organization_id, key, fingerprint, seed, lease_token, leased_until, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    let row = row.clone();
    let values = [
        row.organization_id.into(),
        row.key.into(),
        row.fingerprint.into(),
        row.seed.into(),
        row.lease_token.into(),
        row.leased_until.into(),
        row.expires_at.into(),
    ];
    let inserted = tx
        .execute_raw(Statement::from_sql_and_values(engine, INSERT, values))
        .await?;
    Ok(inserted.rows_affected() == 1)
}

/// A response that was kept. `None` where its master key was taken away since: then it is as if it had not been kept.
fn open(db: &Database, request: &Request, sealed: &[u8]) -> Option<Vec<u8>> {
    db.keys.open_bytes(&associated_data(request), sealed)
}

fn of_key(request: &Request) -> sea_orm::Select<idempotency_key::Entity> {
    idempotency_key::Entity::find_by_id((request.organization_id, request.key.as_str().to_owned()))
}

/// The row of a request, as long as this run holds it.
fn held_by(run: &Run) -> Condition {
    Condition::all()
        .add(idempotency_key::Column::OrganizationId.eq(run.request.organization_id))
        .add(idempotency_key::Column::Key.eq(run.request.key.as_str()))
        .add(idempotency_key::Column::LeaseToken.eq(run.lease_token))
}

/// A sealed response that is moved to another row does not open.
fn associated_data(request: &Request) -> Vec<u8> {
    let (org, key) = (request.organization_id.as_bytes(), request.key.as_str().as_bytes());
    [b"idempotency_keys".as_slice(), org, key].concat()
}
