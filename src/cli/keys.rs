//! `keys list|add|rotate`: the master keys that signing secrets are sealed under at rest, and for a day the responses
//! that are kept for idempotency keys.

use std::time::Duration;

use clap::Subcommand;

use super::CommandResult;
use crate::{
    clock::Clock,
    config::DatabaseOptions,
    store::{
        Database,
        secrets::{
            self, KeyUse, Resealed, Sealed,
            keys::{self, AddedKey},
        },
    },
};

/// How many secrets are sealed anew in one transaction, at most.
const BATCH_MAX: u64 = 100;

/// How long the server has the database to itself between two batches.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the master keys by their ids, and what each of them seals.
    List,
    /// Put a new master key before the others in the key file. A server that runs takes notice by itself.
    Add,
    /// Seal every secret anew under the first master key. The server may run meanwhile.
    Rotate,
}

impl KeysCommand {
    pub(super) async fn run(self, database: &DatabaseOptions, clock: &Clock) -> CommandResult {
        match self {
            Self::List => list(database, clock).await,
            Self::Add => {
                let AddedKey { id, file } = keys::add(database)?;
                println!(
                    "Key {id} is the first in {} and seals every new secret; the others still open what they have sealed.",
                    file.display()
                );
                println!("Next: `keys rotate`.");
                Ok(())
            }
            Self::Rotate => rotate(database, clock).await,
        }
    }
}

async fn list(database: &DatabaseOptions, clock: &Clock) -> CommandResult {
    let db = Database::open_migrated(database, clock).await?;
    let KeyUse { given, missing } = secrets::key_use(&db, clock.now()).await?;
    for (place, key) in given.iter().enumerate() {
        let note = match (place, key.secrets, key.responses) {
            (0, ..) => "  it seals every new secret",
            (_, 0, 0) => "  no longer needed",
            _ => "",
        };
        println!("{}{note}", described(key));
    }
    for key in &missing {
        println!("{}  NOT GIVEN: they cannot be opened", described(key));
    }
    Ok(())
}

fn described(key: &Sealed) -> String {
    let Sealed {
        key_id,
        secrets,
        responses,
        responses_until,
    } = key;
    let until = responses_until.map(|until| format!(", and {responses} kept responses until {until}"));
    format!("key {key_id}  seals {secrets} secrets{}", until.unwrap_or_default())
}

async fn rotate(database: &DatabaseOptions, clock: &Clock) -> CommandResult {
    let db = Database::open_migrated(database, clock).await?;
    let mut done = Resealed::default();
    let mut cursor = None;
    loop {
        let page = secrets::stale_secrets(&db, cursor, BATCH_MAX).await?;
        let Resealed {
            resealed,
            overtaken,
            unreadable,
        } = secrets::reseal(&db, page.stale).await?;
        done.resealed += resealed;
        done.overtaken += overtaken;
        done.unreadable.extend(unreadable);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("{} secrets were sealed anew.", done.resealed);
    if done.overtaken > 0 {
        println!("{} were rotated or deleted meanwhile and left alone.", done.overtaken);
    }
    if !done.unreadable.is_empty() {
        let ids: Vec<String> = done.unreadable.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the secrets of these webhooks do not open with any key given: {}",
            ids.join(", ")
        )
        .into());
    }
    let KeyUse { given, missing } = secrets::key_use(&db, clock.now()).await?;
    let others = given.iter().skip(1).chain(&missing);
    let left: u64 = others.map(|key| key.secrets).sum();
    if left > 0 {
        return Err(format!(
            "{left} secrets are sealed under another key all the same: does every server have the new key as its \
             first? Then run this again"
        )
        .into());
    }
    let current = given.first().map(|key| key.key_id).unwrap_or_default();
    println!("Key {current} seals every secret; see `keys list`.");
    Ok(())
}
