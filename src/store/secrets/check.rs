//! Whether the master keys open what the database holds: checked at the start, when the key file has changed, and for
//! as long as they do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _, Statement};
use tokio::sync::watch;
use uuid::Uuid;

use super::keys::{KeyFault, fault_of};
use crate::{
    domain::{
        id::WebhookId,
        keyring::{Keyring, SecretOwner},
    },
    store::{Database, StoreError, engine::among::among_ids, entity::webhook},
};

/// How often the key file is checked, and the pause between checks of the database while a key is wrong.
const INTERVAL: Duration = Duration::from_secs(1);
const FAULT_PAUSE: Duration = Duration::from_secs(5);

impl Database {
    /// The master key that does not open what it should have sealed. As long as there is one, this node claims nothing
    /// and is not ready.
    #[must_use]
    pub fn key_fault(&self) -> Option<KeyFault> {
        self.keys.fault()
    }

    /// Whether the master keys are wrong, or those of a changed key file that was refused, or open some secrets only.
    #[must_use]
    pub fn has_wrong_keys(&self) -> bool {
        self.is_key_missing() || self.keys.mixed().is_some()
    }

    fn is_key_missing(&self) -> bool {
        self.keys.fault().or_else(|| self.keys.refusal()).is_some()
    }
}

/// Refuses to seal with wrong keys.
pub(in crate::store) fn may_seal(db: &Database) -> Result<(), StoreError> {
    match db.keys.fault() {
        Some(_) => Err(StoreError::unreadable_secret()),
        None => Ok(()),
    }
}

/// Tries to open secrets of each master key that the database uses. Returns a key that does not open them.
pub async fn check(db: &Database) -> Result<Option<KeyFault>, StoreError> {
    let (good, fault) = verdict(db, &db.keys.keyring()).await?;
    db.keys.apply_check(good, fault);
    Ok(fault)
}

/// Checks the keys regularly, until `stop` is set.
pub async fn run(db: Database, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match review(&db).await {
            Ok(()) if !db.is_key_missing() => INTERVAL,
            Ok(()) => FAULT_PAUSE,
            Err(error) => {
                tracing::warn!(exception.message = %error, "the master keys could not be checked; retrying soon");
                INTERVAL
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// Checks the key file, and the keys if one is wrong.
pub async fn review(db: &Database) -> Result<(), StoreError> {
    if let Some(candidate) = db.keys.candidate() {
        let (good, fault) = verdict(db, &candidate.keyring).await?;
        match fault {
            None => db.keys.adopt(candidate, good),
            Some(fault) => db.keys.refuse(&candidate, fault),
        }
    }
    if db.key_fault().is_some() {
        check(db).await?;
    }
    Ok(())
}

/// Which keys open what they have sealed, and one that does not.
///
/// For each key, the secrets of the oldest and of the newest webhook are tried, and one that opens is enough: a damaged
/// row says nothing about the key.
async fn verdict(db: &Database, keyring: &Keyring) -> Result<(BTreeSet<u8>, Option<KeyFault>), StoreError> {
    let connection = db.read_long();
    let rows = webhook::Entity::find()
        .filter(among_ids(connection.get_database_backend(), "id", samples(db).await?))
        .all(&connection)
        .await?;
    let mut by_key: BTreeMap<u8, bool> = BTreeMap::new();
    for row in rows {
        let Some(id) = Keyring::sealed_with(&row.secret) else {
            continue;
        };
        let owner = SecretOwner {
            organization_id: row.organization_id,
            webhook_id: row.id,
        };
        *by_key.entry(id).or_default() |= keyring.open(owner, &row.secret).is_some();
    }
    let good = |wanted: bool| {
        by_key
            .iter()
            .filter(move |(_, good)| **good == wanted)
            .map(|(id, _)| *id)
    };
    let fault = good(false).next().map(|id| fault_of(keyring, id));
    Ok((good(true).collect(), fault))
}

/// The oldest and the newest webhook of each key that has sealed a secret.
async fn samples(db: &Database) -> Result<Vec<WebhookId>, StoreError> {
    let (key, id) = match db.backend() {
        DbBackend::Postgres => ("get_byte(secret, 1)", "id::text"),
        _ => ("substr(secret, 2, 1)", "hex(id)"),
    };
    let sql = format!(
        "SELECT min({id}) AS oldest, max({id}) AS newest FROM webhooks
         WHERE deleted_at IS NULL AND length(secret) > 1 GROUP BY {key}"
    );
    let mut ids = Vec::new();
    for row in db
        .read_long()
        .query_all_raw(Statement::from_string(db.backend(), sql))
        .await?
    {
        for column in ["oldest", "newest"] {
            let text: String = row.try_get("", column)?;
            let id = Uuid::parse_str(&text).map_err(|cause| StoreError::Corrupt(format!("webhooks.id: {cause}")))?;
            ids.push(id.into());
        }
    }
    Ok(ids)
}
