//! API tokens, known only by their digests.

use std::{sync::LazyLock, time::Duration};

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, FromQueryResult as _, QueryFilter as _, QueryOrder as _, QueryTrait as _, Set,
    Statement,
    sea_query::{Expr, ExprTrait as _},
};

pub use super::token_cache::TokenHolder;
use super::{
    Database, StoreError,
    entity::{columns, token},
};
use crate::domain::{
    id::{OrganizationId, TokenId},
    timestamp::Timestamp,
    token::Scopes,
};

/// What is stored about a token, which does not include the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id, by which it is revoked.
    pub id: TokenId,
    /// The organization it acts for; `None` for a platform token.
    pub organization_id: Option<OrganizationId>,
    /// Its display name.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, accurate to a minute.
    pub last_used_at: Option<Timestamp>,
}

/// How precisely the last use of a token is known: a use is recorded at most this often.
const USE_RECORDED_EVERY: Duration = Duration::from_mins(1);

/// Stores a new token.
pub async fn create(db: &Database, record: &TokenRecord, digest: [u8; 32]) -> Result<(), StoreError> {
    db.write_one(token::Entity::insert(row(record, digest)).build(db.backend()))
        .await?;
    Ok(())
}

/// A new token's row.
pub(super) fn row(record: &TokenRecord, digest: [u8; 32]) -> token::ActiveModel {
    let TokenRecord {
        id,
        organization_id,
        name,
        scopes,
        created_at,
        revoked_at,
        last_used_at,
    } = record;
    token::ActiveModel {
        id: Set(*id),
        organization_id: Set(*organization_id),
        name: Set(name.clone()),
        digest: Set(digest.to_vec()),
        scopes: Set(scopes.clone()),
        created_at: Set(*created_at),
        revoked_at: Set(*revoked_at),
        last_used_at: Set(*last_used_at),
    }
}

/// Who holds the token with that digest; `None` if it is unknown or revoked. Also records its use.
///
/// On SQLite it is looked up for each request, so that a revocation takes effect at once. On PostgreSQL, where that is
/// a round trip, a look-up is cached for two seconds.
pub async fn find_holder(db: &Database, digest: [u8; 32], now: Timestamp) -> Result<Option<TokenHolder>, StoreError> {
    // One of the hottest statements, and so built once: that takes as long as running it.
    static FIND: LazyLock<String> = LazyLock::new(|| {
        let columns = columns::<token::Entity>("tokens");
        format!("SELECT {columns} FROM tokens WHERE digest = $1 AND revoked_at IS NULL")
    });
    let read_at = db.clock.monotonic();
    if db.has_other_nodes()
        && let Some(known) = db.token_cache.get(&digest, read_at)
    {
        return Ok(Some(known));
    }
    let find = Statement::from_sql_and_values(db.backend(), FIND.as_str(), [digest.to_vec().into()]);
    let row = token::Model::find_by_statement(find).one(&db.read()).await?;
    let holder = |row| {
        let TokenRecord {
            id,
            organization_id,
            scopes,
            last_used_at,
            ..
        } = record(row);
        if last_used_at.is_none_or(|last| last <= now.minus(USE_RECORDED_EVERY)) {
            record_use(db, id, now);
        }
        TokenHolder {
            token_id: id,
            organization_id,
            scopes,
        }
    };
    let holder = row.map(holder);
    if let Some(holder) = holder.clone().filter(|_| db.has_other_nodes()) {
        db.token_cache.remember(digest, holder, read_at);
    }
    Ok(holder)
}

/// Records a use off the request's path: nobody waits for it, and its failure refuses nothing.
fn record_use(db: &Database, id: TokenId, now: Timestamp) {
    if !db.token_cache.lock().being_recorded.insert(id) {
        return;
    }
    let db = db.clone();
    tokio::spawn(async move {
        // Another node may have recorded one meanwhile.
        let stale = token::Column::LastUsedAt
            .is_null()
            .or(token::Column::LastUsedAt.lte(now.minus(USE_RECORDED_EVERY)));
        let note = token::Entity::update_many()
            .col_expr(token::Column::LastUsedAt, Expr::value(now))
            .filter(token::Column::Id.eq(id))
            .filter(stale);
        if let Err(cause) = db.write_one(note.build(db.backend())).await {
            tracing::debug!(exception.message = %cause, kallima.token.id = %id, "the use of a token could not be recorded");
        }
        db.token_cache.lock().being_recorded.remove(&id);
    });
}

/// Every token, oldest first.
pub async fn list(db: &Database) -> Result<Vec<TokenRecord>, StoreError> {
    let rows = token::Entity::find()
        .order_by_asc(token::Column::Id)
        .all(&db.read())
        .await?;
    Ok(rows.into_iter().map(record).collect())
}

/// Revokes a token. Returns false if it does not exist or was revoked before.
pub async fn revoke(db: &Database, id: TokenId, now: Timestamp) -> Result<bool, StoreError> {
    let revoke = token::Entity::update_many()
        .col_expr(token::Column::RevokedAt, Expr::value(now))
        .filter(token::Column::Id.eq(id))
        .filter(token::Column::RevokedAt.is_null());
    let revoked = db.write_one(revoke.build(db.backend())).await?;
    db.token_cache.forget(id);
    Ok(revoked.rows_affected() == 1)
}

fn record(row: token::Model) -> TokenRecord {
    let token::Model {
        id,
        organization_id,
        name,
        digest: _,
        scopes,
        created_at,
        revoked_at,
        last_used_at,
    } = row;
    TokenRecord {
        id,
        organization_id,
        name,
        scopes,
        created_at,
        revoked_at,
        last_used_at,
    }
}
