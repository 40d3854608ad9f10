//! `backup`: copies an SQLite database, also while a server is running.

use std::path::PathBuf;

use clap::Args;

use super::{CommandResult, progress};
use crate::{
    config::DatabaseOptions,
    store::{
        secrets::keys,
        upkeep::backup::{self, Backup, BackupError, Progress},
    },
};

#[derive(Args, Debug)]
pub(super) struct BackupOptions {
    /// The file to create; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    /// Also copy the master keys, to the file's name plus `.key`: whoever has both can read every secret.
    #[arg(long)]
    with_key: bool,
}

pub(super) fn run(options: &BackupOptions, database: &DatabaseOptions) -> CommandResult {
    let BackupOptions { to, with_key } = options;
    if database.is_postgres() {
        return Err(BackupError::Postgres.into());
    }
    let copying = progress::bar("copying pages", 0);
    let mut checking = None;
    let Backup {
        tables,
        bytes,
        key_file,
    } = backup::make(database, to, *with_key, |reached| match reached {
        Progress::Copied { pages, total } => {
            copying.set_length(total);
            copying.set_position(pages);
        }
        Progress::Checking => {
            copying.finish_and_clear();
            checking = Some(progress::stopwatch("reading the copy back"));
        }
    })?;
    if let Some(checking) = checking {
        checking.finish_and_clear();
    }
    for (table, rows) in tables {
        println!("{table:<20} {rows:>12} rows");
    }
    println!(
        "Wrote {} ({bytes} bytes), read it back and checked it: complete.",
        to.display()
    );
    match (key_file, keys::key_file(database)) {
        (Some(copied), _) => println!("The master keys are in {}.", copied.display()),
        (None, file) => {
            let keys = file.map_or_else(|| "those of --master-key".to_owned(), |file| file.display().to_string());
            println!(
                "The master keys are not included, and without them the secrets cannot be decrypted. Keep {keys} somewhere \
                 else."
            );
        }
    }
    Ok(())
}
