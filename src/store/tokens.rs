//! API tokens, known by their digest alone.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, Set,
    sea_query::{Expr, ExprTrait as _},
};
use uuid::Uuid;

use super::{Database, StoreError, entity::token, error::readable};
use crate::domain::{timestamp::Timestamp, token::Scopes};

/// What is known of a token, but for the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id, by which it is revoked.
    pub id: Uuid,
    /// The organization it acts for; none for a platform token.
    pub organization_id: Option<Uuid>,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, up to a minute behind.
    pub last_used_at: Option<Timestamp>,
}

/// How exactly the last use of a token is known: a use is noted at most this often.
const USE_NOTED_EVERY: Duration = Duration::from_mins(1);

/// The tokens whose use is being noted just now, so that many requests at once note it once.
#[derive(Clone, Debug, Default)]
pub(super) struct UsesUnderWay(Arc<Mutex<HashSet<Uuid>>>);

impl UsesUnderWay {
    /// False where somebody notes the use of this token already.
    fn begin(&self, id: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    fn end(&self, id: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Who calls: what a valid token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHolder {
    /// The token's id.
    pub token_id: Uuid,
    /// The organization it acts for; none for a platform token.
    pub organization_id: Option<Uuid>,
    /// What it may do.
    pub scopes: Scopes,
}

/// Keeps a new token.
pub async fn create(db: &Database, record: &TokenRecord, digest: [u8; 32]) -> Result<(), StoreError> {
    let TokenRecord {
        id,
        organization_id,
        name,
        scopes,
        created_at,
        revoked_at,
        last_used_at,
    } = record;
    let row = token::ActiveModel {
        id: Set(*id),
        organization_id: Set(*organization_id),
        name: Set(name.clone()),
        digest: Set(digest.to_vec()),
        scopes: Set(scopes.to_string()),
        created_at: Set(created_at.as_millis()),
        revoked_at: Set(revoked_at.map(Timestamp::as_millis)),
        last_used_at: Set(last_used_at.map(Timestamp::as_millis)),
    };
    row.insert(&db.write).await?;
    Ok(())
}

/// Who holds the token of that digest; none where it is unknown or revoked. That it was used is noted beside.
///
/// Asked anew for every request, so that a revocation counts at once on every node.
pub async fn find_holder(db: &Database, digest: [u8; 32], now: Timestamp) -> Result<Option<TokenHolder>, StoreError> {
    let row = token::Entity::find()
        .filter(token::Column::Digest.eq(digest.to_vec()))
        .filter(token::Column::RevokedAt.is_null())
        .one(&db.read)
        .await?;
    row.map(|row| {
        let TokenRecord {
            id,
            organization_id,
            scopes,
            last_used_at,
            ..
        } = record(row)?;
        if last_used_at.is_none_or(|last| last <= now.minus(USE_NOTED_EVERY)) {
            note_use(db, id, now);
        }
        Ok(TokenHolder {
            token_id: id,
            organization_id,
            scopes,
        })
    })
    .transpose()
}

/// Notes a use off the request's path: nobody waits for it, and nothing is refused for its sake.
fn note_use(db: &Database, id: Uuid, now: Timestamp) {
    if !db.token_uses.begin(id) {
        return;
    }
    let db = db.clone();
    tokio::spawn(async move {
        // Another node may have noted one meanwhile.
        let stale = token::Column::LastUsedAt
            .is_null()
            .or(token::Column::LastUsedAt.lte(now.minus(USE_NOTED_EVERY).as_millis()));
        let noted = token::Entity::update_many()
            .col_expr(token::Column::LastUsedAt, Expr::value(now.as_millis()))
            .filter(token::Column::Id.eq(id))
            .filter(stale)
            .exec(&db.write)
            .await;
        if let Err(cause) = noted {
            tracing::debug!(%cause, token_id = %id, "the use of a token was not noted");
        }
        db.token_uses.end(id);
    });
}

/// Every token, oldest first.
pub async fn list(db: &Database) -> Result<Vec<TokenRecord>, StoreError> {
    let rows = token::Entity::find()
        .order_by_asc(token::Column::Id)
        .all(&db.read)
        .await?;
    rows.into_iter().map(record).collect()
}

/// Revokes a token. False where there is no such token, or it was revoked before.
pub async fn revoke(db: &Database, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
    let result = token::Entity::update_many()
        .col_expr(token::Column::RevokedAt, Expr::value(now.as_millis()))
        .filter(token::Column::Id.eq(id))
        .filter(token::Column::RevokedAt.is_null())
        .exec(&db.write)
        .await?;
    Ok(result.rows_affected == 1)
}

fn record(row: token::Model) -> Result<TokenRecord, StoreError> {
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
    Ok(TokenRecord {
        id,
        organization_id,
        name,
        scopes: readable(scopes.parse().ok(), "tokens.scopes", &scopes)?,
        created_at: Timestamp::from_millis(created_at),
        revoked_at: revoked_at.map(Timestamp::from_millis),
        last_used_at: last_used_at.map(Timestamp::from_millis),
    })
}
