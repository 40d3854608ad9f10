//! Signing secrets at rest: sealing and opening them, and resealing them when the master key changes.

use std::collections::BTreeMap;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Statement, sea_query::Expr,
};

pub mod check;
pub mod keys;
pub mod passes;

use super::{Database, StoreError, entity::webhook};
use crate::domain::{
    id::{OrganizationId, WebhookId},
    keyring::{Keyring, SecretOwner},
    secret::Secret,
    timestamp::Timestamp,
};

/// Seals a secret for its column.
///
/// # Errors
/// [`StoreError::Unavailable`] while this node's master keys are wrong: nobody else could open what they seal.
pub(super) fn seal(
    db: &Database,
    organization_id: OrganizationId,
    webhook_id: WebhookId,
    secret: &Secret,
) -> Result<Vec<u8>, StoreError> {
    check::may_seal(db)?;
    seal_again(db, organization_id, webhook_id, secret)
}

fn seal_again(
    db: &Database,
    organization_id: OrganizationId,
    webhook_id: WebhookId,
    secret: &Secret,
) -> Result<Vec<u8>, StoreError> {
    let owner = SecretOwner {
        organization_id,
        webhook_id,
    };
    let sealed = db.keys.seal(owner, secret);
    sealed.ok_or_else(|| StoreError::Corrupt("a secret could not be sealed".to_owned()))
}

/// The secret of a webhook's row.
pub(super) fn open_secret(db: &Database, row: &webhook::Model) -> Result<Secret, StoreError> {
    open(db, row.organization_id, row.id, &row.secret)
}

/// Opens a secret from its column.
pub(super) fn open(
    db: &Database,
    organization_id: OrganizationId,
    webhook_id: WebhookId,
    sealed: &[u8],
) -> Result<Secret, StoreError> {
    let owner = SecretOwner {
        organization_id,
        webhook_id,
    };
    let opened = db.keys.open(owner, sealed);
    opened.ok_or_else(|| StoreError::Corrupt("webhooks.secret does not open with any configured master key".to_owned()))
}

/// How much one master key has sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The key's id.
    pub key_id: u8,
    /// How many secrets.
    pub secrets: u64,
    /// How many responses stored under idempotency keys. They are not resealed, since they expire soon.
    pub responses: u64,
    /// When the last of these responses expires.
    pub responses_until: Option<Timestamp>,
}

/// How much each master key has sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// The configured keys, in order; the first one seals everything new.
    pub given: Vec<Sealed>,
    /// Keys that are not configured but have sealed something, which cannot be opened.
    pub missing: Vec<Sealed>,
}

pub(in crate::store) fn key_use_sql(backend: DbBackend) -> String {
    // The second byte of sealed data is the id of its key.
    let key_of = |column: &str| match backend {
        DbBackend::Postgres => format!("get_byte({column}, 1)::bigint"),
        _ => format!("hex(substr({column}, 2, 1))"),
    };
    format!(
        "SELECT {} AS key_id, count(*) AS secrets, CAST(0 AS bigint) AS responses,
             CAST(NULL AS bigint) AS responses_until FROM webhooks GROUP BY key_id
         UNION ALL
         SELECT {} AS key_id, CAST(0 AS bigint), count(*), max(expires_at) FROM idempotency_keys
         WHERE response IS NOT NULL AND expires_at > $1 GROUP BY key_id",
        key_of("secret"),
        key_of("response")
    )
}

/// How much each master key has sealed. Expired responses count as gone.
pub async fn key_use(db: &Database, now: Timestamp) -> Result<KeyUse, StoreError> {
    let mut sealed: BTreeMap<u8, Sealed> = BTreeMap::new();
    let statement = Statement::from_sql_and_values(db.backend(), key_use_sql(db.backend()), [now.into()]);
    for row in db.read_long().query_all_raw(statement).await? {
        let key_id = if db.backend() == DbBackend::Postgres {
            u8::try_from(row.try_get::<i64>("", "key_id")?).ok()
        } else {
            u8::from_str_radix(&row.try_get::<String>("", "key_id")?, 16).ok()
        };
        let key_id = key_id.ok_or_else(|| StoreError::Corrupt("a sealed column holds nothing sealed".to_owned()))?;
        let count = |column| row.try_get::<i64>("", column).map(i64::unsigned_abs);
        let entry = sealed.entry(key_id).or_default();
        entry.secrets += count("secrets")?;
        entry.responses += count("responses")?;
        let until: Option<Timestamp> = row.try_get("", "responses_until")?;
        entry.responses_until = until.or(entry.responses_until);
    }
    for (key_id, entry) in &mut sealed {
        entry.key_id = *key_id;
    }
    let keyring = db.keys.keyring();
    let unused = |key_id| Sealed {
        key_id,
        ..Sealed::default()
    };
    let given = keyring.ids().map(|id| sealed.remove(&id).unwrap_or_else(|| unused(id)));
    Ok(KeyUse {
        given: given.collect(),
        missing: sealed.into_values().collect(),
    })
}

/// A secret that was sealed by another key than the current one.
#[derive(Clone, Debug)]
pub struct StaleSecret {
    owner: SecretOwner,
    sealed: Vec<u8>,
}

/// A page of a walk over the secrets of all webhooks.
#[derive(Debug, Default)]
pub struct StalePage {
    /// Those of this page that must be resealed.
    pub stale: Vec<StaleSecret>,
    /// Where the next page begins; `None` after the last one.
    pub cursor: Option<WebhookId>,
}

/// Reads `limit` secrets after `cursor`, ordered by webhook id.
pub async fn stale_secrets(db: &Database, cursor: Option<WebhookId>, limit: u64) -> Result<StalePage, StoreError> {
    let rows = webhook::Entity::find()
        .filter(webhook::Column::Id.gt(cursor.unwrap_or(WebhookId::NIL)))
        .order_by_asc(webhook::Column::Id)
        .limit(limit)
        .all(&db.read())
        .await?;
    let current = db.keys.keyring().ids().next();
    let full = u64::try_from(rows.len()).is_ok_and(|seen| seen == limit);
    let cursor = rows.last().filter(|_| full).map(|row| row.id);
    let stale = rows
        .into_iter()
        .filter(|row| Keyring::sealed_with(&row.secret) != current)
        .map(|row| StaleSecret {
            owner: SecretOwner {
                organization_id: row.organization_id,
                webhook_id: row.id,
            },
            sealed: row.secret,
        })
        .collect();
    Ok(StalePage { stale, cursor })
}

/// The result of resealing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many are now sealed under the current key.
    pub resealed: u64,
    /// How many were rotated or deleted meanwhile, and left alone.
    pub overtaken: u64,
    /// The webhooks whose secret no configured key opens.
    pub unreadable: Vec<WebhookId>,
}

/// Reseals secrets under the current key, in one transaction. A secret that was replaced since it was read stays.
pub async fn reseal(db: &Database, stale: Vec<StaleSecret>) -> Result<Resealed, StoreError> {
    let mut done = Resealed::default();
    let mut renewed = Vec::with_capacity(stale.len());
    for StaleSecret { owner, sealed } in stale {
        let SecretOwner {
            organization_id,
            webhook_id,
        } = owner;
        match open(db, organization_id, webhook_id, &sealed) {
            Ok(secret) => {
                let after = seal_again(db, organization_id, webhook_id, &secret)?;
                renewed.push((owner, sealed, after));
            }
            Err(_) => done.unreadable.push(webhook_id),
        }
    }
    if renewed.is_empty() {
        return Ok(done);
    }
    // Ordered by webhook id, as everywhere several are changed, so that nobody deadlocks.
    renewed.sort_by_key(|(owner, ..)| owner.webhook_id);
    let count = renewed.len() as u64;
    let write = db.write(move |tx| {
        Box::pin(async move {
            let mut resealed = 0;
            for (owner, before, after) in renewed {
                let result = webhook::Entity::update_many()
                    .col_expr(webhook::Column::Secret, Expr::value(after))
                    .filter(webhook::Column::OrganizationId.eq(owner.organization_id))
                    .filter(webhook::Column::Id.eq(owner.webhook_id))
                    .filter(webhook::Column::Secret.eq(before))
                    .filter(webhook::Column::DeletedAt.is_null())
                    .exec(tx)
                    .await?;
                resealed += result.rows_affected;
            }
            Ok::<_, StoreError>(resealed)
        })
    });
    done.resealed = write.await?;
    done.overtaken = count - done.resealed;
    Ok(done)
}
