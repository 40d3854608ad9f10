//! `migrate-data`: from SQLite to PostgreSQL, with every row.

use clap::Args;

use super::CommandResult;
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
    /// The SQLite database to copy; no server may be using it.
    #[arg(long, value_name = "sqlite://FILE")]
    from: String,

    /// The PostgreSQL database to copy into; it must be empty, and `migrate` must have made its tables.
    #[arg(long, value_name = "postgres://USER@HOST/NAME")]
    to: String,
}

pub(super) async fn run(options: MigrateDataOptions, database: DatabaseOptions, clock: &Clock) -> CommandResult {
    let MigrateDataOptions { from, to } = options;
    let source = DatabaseOptions { url: from, ..database };
    if !source.is_sqlite() {
        return Err(copy::CopyError::Engines.into());
    }
    // Where no key is given, SQLite's own is the one that the secrets are sealed with.
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
    // Nobody works on the source, so whatever is leased there is due.
    leases::recover(&source, clock.now()).await?;
    for Copied { table, rows, checksum } in copy::copy(&source, &target).await? {
        println!("{table:<20} {rows:>12} rows  checksum {checksum:032x}");
    }
    println!("Everything was copied and read back.");
    if let Some(key_file) = key_file.filter(|_| is_own_key) {
        println!(
            "Give the nodes the key that opens its secrets: --master-key-file {}",
            key_file.display()
        );
    }
    Ok(())
}
