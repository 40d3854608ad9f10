//! `keys list|add|rotate`: the master keys that seal signing secrets at rest, and for a day the responses that are kept
//! for idempotency keys.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    CommandResult, progress,
    table::{Table, optional, print_json},
};
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

/// How many secrets are sealed again in one transaction at most.
const BATCH_MAX: u64 = 100;

/// The pause between two batches, in which the server has the database to itself.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// List the master keys by id, and what each of them seals.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add a new master key as the first in the key file. A running server picks it up by itself.
    Add,
    /// Seal every secret again, under the first master key. The server may be running.
    Rotate,
}

impl KeysCommand {
    pub(super) async fn run(self, database: &DatabaseOptions, clock: &Clock) -> CommandResult {
        match self {
            Self::List { json } => list(database, clock, json).await,
            Self::Add => {
                let AddedKey { id, file } = keys::add(database)?;
                println!(
                    "Key {id} is now the first in {} and seals every new secret; the others still open what they sealed.",
                    file.display()
                );
                println!("Next: `keys rotate`.");
                Ok(())
            }
            Self::Rotate => rotate(database, clock).await,
        }
    }
}

async fn list(database: &DatabaseOptions, clock: &Clock, json: bool) -> CommandResult {
    let db = Database::open_migrated(database, clock).await?;
    let KeyUse { given, missing } = secrets::key_use(&db, clock.now()).await?;
    let given = given.iter().enumerate().map(|(index, key)| {
        let note = match (index, key.secrets, key.responses) {
            (0, ..) => "seals every new secret",
            (_, 0, 0) => "no longer needed",
            _ => "",
        };
        (key, true, note)
    });
    let missing = missing
        .iter()
        .map(|key| (key, false, "MISSING: what it seals cannot be opened"));
    let keys: Vec<_> = given.chain(missing).collect();
    if json {
        return print_json(
            &keys
                .iter()
                .map(|(key, is_given, _)| as_json(key, *is_given))
                .collect::<Vec<_>>(),
        );
    }
    let mut table = Table::new(["KEY", "SECRETS", "KEPT RESPONSES", "UNTIL", "NOTE"]);
    for (key, _, note) in &keys {
        table.row(row(key, note));
    }
    print!("{}", table.lines());
    Ok(())
}

fn row(key: &Sealed, note: &str) -> [String; 5] {
    let Sealed {
        key_id,
        secrets,
        responses,
        responses_until,
    } = key;
    let until = optional(responses_until.as_ref());
    [
        key_id.to_string(),
        secrets.to_string(),
        responses.to_string(),
        until,
        note.to_owned(),
    ]
}

fn as_json(key: &Sealed, is_given: bool) -> Value {
    let Sealed {
        key_id,
        secrets,
        responses,
        responses_until,
    } = key;
    json!({
        "key_id": key_id,
        "is_given": is_given,
        "secrets": secrets,
        "kept_responses": responses,
        "kept_until": responses_until,
    })
}

async fn rotate(database: &DatabaseOptions, clock: &Clock) -> CommandResult {
    let db = Database::open_migrated(database, clock).await?;
    let KeyUse { given, missing } = secrets::key_use(&db, clock.now()).await?;
    let stale = given.iter().skip(1).chain(&missing).map(|key| key.secrets).sum();
    let bar = progress::bar("sealing secrets", stale);
    let mut done = Resealed::default();
    let mut cursor = None;
    loop {
        let page = secrets::stale_secrets(&db, cursor, BATCH_MAX).await?;
        bar.inc(page.stale.len() as u64);
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
    bar.finish_and_clear();
    println!("{} secrets were sealed again.", done.resealed);
    if done.overtaken > 0 {
        println!(
            "{} were skipped: they were rotated or deleted in the meantime.",
            done.overtaken
        );
    }
    if !done.unreadable.is_empty() {
        let ids: Vec<String> = done.unreadable.iter().map(ToString::to_string).collect();
        return Err(format!("no given key opens the secrets of these webhooks: {}", ids.join(", ")).into());
    }
    let KeyUse { given, missing } = secrets::key_use(&db, clock.now()).await?;
    let others = given.iter().skip(1).chain(&missing);
    let left: u64 = others.map(|key| key.secrets).sum();
    if left > 0 {
        return Err(format!(
            "{left} secrets are still sealed under another key: make sure that every server has the new key as its \
             first, then run this again"
        )
        .into());
    }
    let current = given.first().map(|key| key.key_id).unwrap_or_default();
    println!("Key {current} seals every secret; see `keys list`.");
    Ok(())
}
