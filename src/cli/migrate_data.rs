//! `migrate-data`: copies every row from SQLite to PostgreSQL.

use clap::Args;

use super::{CommandResult, progress};
use crate::{
    clock::Clock,
    config::DatabaseOptions,
    store::{
        Database,
        open::ServerLock,
        queue::leases,
        secrets::keys,
        source::Creation,
        upkeep::copy::{self, Copied},
    },
};

#[derive(Args, Debug)]
pub(super) struct MigrateDataOptions {
    /// The SQLite database to copy; no server may be using it meanwhile.
    #[arg(long, value_name = "sqlite://FILE")]
    from: String,

    /// The PostgreSQL database to copy into; it must be empty, with tables created by `migrate`.
    #[arg(long, value_name = "postgres://USER@HOST/NAME")]
    to: String,
}

pub(super) async fn run(options: MigrateDataOptions, database: DatabaseOptions, clock: &Clock) -> CommandResult {
    let MigrateDataOptions { from, to } = options;
    let source = DatabaseOptions { url: from, ..database };
    if !source.is_sqlite() {
        return Err(copy::CopyError::Engines.into());
    }
    // If no key is given, the secrets are sealed under SQLite's own.
    let key_file = keys::key_file(&source);
    let is_own_key = source.master_key.is_none() && source.master_key_file.is_none();
    let target = DatabaseOptions {
        url: to,
        master_key_file: key_file.clone(),
        ..source.clone()
    };
    if !target.is_postgres() {
        return Err(copy::CopyError::Engines.into());
    }
    let from = source.url.clone();
    let source = Database::open_migrated(&source, clock).await?;
    let _lock = ServerLock::acquire(&from, Creation::Refused)?;
    let target = Database::open_migrated(&target, clock).await?;
    // No server uses the source, so every lease there has lost its holder.
    leases::recover(&source, clock.now()).await?;
    let counter = progress::counter("rows copied");
    let progress = counter.clone();
    let copied = copy::copy(&source, &target, move |rows| progress.inc(rows)).await?;
    counter.finish_and_clear();
    for Copied { table, rows, checksum } in copied {
        println!("{table:<20} {rows:>12} rows  checksum {checksum:032x}");
    }
    println!("Everything was copied, read back and compared.");
    if let Some(key_file) = key_file.filter(|_| is_own_key) {
        println!(
            "Start the nodes with the key that opens its secrets: --master-key-file {}",
            key_file.display()
        );
    }
    Ok(())
}
