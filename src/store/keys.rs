//! Where the master keys come from: an option, a file, or the key file beside an SQLite database.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rand::{rand_core::UnwrapErr, rngs::SysRng};

use super::database::OpenError;
use crate::{config::DatabaseOptions, domain::keyring::KeyRing};

/// The master keys of these options.
///
/// # Errors
/// PostgreSQL without a key is refused: its nodes must share one, and a file beside one of them would not do.
pub(super) fn load(options: &DatabaseOptions, sqlite_file: Option<&Path>) -> Result<KeyRing, OpenError> {
    if let Some(text) = &options.master_key {
        return Ok(KeyRing::parse(text)?);
    }
    match (&options.master_key_file, sqlite_file) {
        (Some(path), _) => read(path),
        (None, Some(database)) => beside(&PathBuf::from(format!("{}.key", database.display()))),
        (None, None) if options.is_postgres() => Err(OpenError::NoKey),
        // A database in memory ends with the process, and so may its key.
        (None, None) => Ok(KeyRing::generate(&mut UnwrapErr(SysRng)).0),
    }
}

fn read(path: &Path) -> Result<KeyRing, OpenError> {
    let text = fs::read_to_string(path).map_err(|cause| OpenError::KeyFile(path.to_owned(), cause))?;
    Ok(KeyRing::parse(&text)?)
}

/// The key file beside an SQLite database; made at the first start, for the owner's eyes alone.
fn beside(path: &Path) -> Result<KeyRing, OpenError> {
    if path.exists() {
        return read(path);
    }
    let failed = |cause| OpenError::KeyFile(path.to_owned(), cause);
    let (ring, text) = KeyRing::generate(&mut UnwrapErr(SysRng));
    // Written under another name first: two commands that start at once must end up with the same whole key.
    let draft = path.with_extension(format!("key.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(failed)?;
    match linked {
        Ok(()) => Ok(ring),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(cause) => Err(failed(cause)),
    }
}
