//! Where the master keys come from: an option, a file, or the key file beside an SQLite database.
//!
//! A key file may change while the server runs: it is read again before a secret is sealed, where it is another file
//! than before, and when a secret names a key that is not known yet.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rand::{rand_core::UnwrapErr, rngs::SysRng};
use secrecy::zeroize::Zeroizing;
use tempfile::NamedTempFile;

use crate::{
    config::DatabaseOptions,
    domain::{
        keyring::{KeyRing, SecretOwner},
        secret::Secret,
    },
    store::source::{Creation, OWNER_ONLY, OpenError, folder, sqlite_path, sync_folder, with_suffix},
};

/// The master keys, as they stand now.
#[derive(Debug)]
pub(in crate::store) struct Keys {
    ring: RwLock<Arc<KeyRing>>,
    file: Option<KeyFile>,
}

#[derive(Debug)]
struct KeyFile {
    path: PathBuf,
    /// Which file was read last: a file that is written anew is another one, or has another time.
    read: RwLock<Option<Stamp>>,
}

/// Device, inode, length, and time of the last change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Keys {
    /// The master keys of these options. The key file beside an SQLite database is made where there is none, and that is
    /// allowed.
    ///
    /// # Errors
    /// PostgreSQL without a key is refused: its nodes must share one, and a file beside one of them would not do.
    pub(in crate::store) fn load(options: &DatabaseOptions, creation: Creation) -> Result<Self, OpenError> {
        if let Some(text) = &options.master_key {
            return Ok(Self::of(KeyRing::parse(text)?, None));
        }
        let Some(path) = key_file(options) else {
            if options.is_postgres() {
                return Err(OpenError::NoKey);
            }
            // A database in memory ends with the process, and so may its key.
            return Ok(Self::of(KeyRing::generate(&mut UnwrapErr(SysRng)), None));
        };
        let stamp = stamp(&path);
        let ring = if options.master_key_file.is_some() {
            read(&path)?
        } else {
            beside(&path, creation)?
        };
        let read = RwLock::new(stamp);
        Ok(Self::of(ring, Some(KeyFile { path, read })))
    }

    fn of(ring: KeyRing, file: Option<KeyFile>) -> Self {
        Self {
            ring: RwLock::new(Arc::new(ring)),
            file,
        }
    }

    /// Seals a secret under the first key. `None` never happens with a secret's length.
    pub(in crate::store) fn seal(&self, owner: SecretOwner, secret: &Secret) -> Option<Vec<u8>> {
        // Asking is cheap, and a key that was taken out of the file must not seal what nobody could open again.
        self.read_again();
        self.ring().seal(&mut UnwrapErr(SysRng), owner, secret)
    }

    /// Seals bytes for the place that `associated_data` names, under the first key.
    pub(in crate::store) fn seal_bytes(&self, associated_data: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        self.read_again();
        self.ring().seal_bytes(&mut UnwrapErr(SysRng), associated_data, bytes)
    }

    /// Opens sealed bytes. `None` where their key is not known, they were sealed for another place, or changed.
    pub(in crate::store) fn open_bytes(&self, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let opened = self.ring().open_bytes(associated_data, sealed);
        if opened.is_none() && self.read_again() {
            return self.ring().open_bytes(associated_data, sealed);
        }
        opened
    }

    /// Opens a sealed secret. `None` where its key is not known, it was sealed for another row, or it was changed.
    pub(in crate::store) fn open(&self, owner: SecretOwner, sealed: &[u8]) -> Option<Secret> {
        let opened = self.ring().open(owner, sealed);
        if opened.is_none() && self.read_again() {
            return self.ring().open(owner, sealed);
        }
        opened
    }

    /// The ring as it stands.
    pub(in crate::store) fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the key file where it has changed. A file that cannot be read leaves the keys as they were.
    pub(in crate::store) fn read_again(&self) -> bool {
        let Some(KeyFile { path, read: last }) = &self.file else {
            return false;
        };
        let found = stamp(path);
        if found.is_none() || found == *last.read().unwrap_or_else(PoisonError::into_inner) {
            return false;
        }
        match read(path) {
            Ok(ring) => {
                tracing::info!(keys = ?ring, "the master key file was read again");
                *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
                *last.write().unwrap_or_else(PoisonError::into_inner) = found;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the master key file has changed, but cannot be read");
                false
            }
        }
    }
}

/// A master key that was added.
#[derive(Clone, Debug)]
pub struct AddedKey {
    /// Its id.
    pub id: u8,
    /// The file that it stands in now, before the others.
    pub file: PathBuf,
}

/// Puts a new key before the others in the key file of these options.
///
/// # Errors
/// Keys that are given by an option have no file.
pub fn add(options: &DatabaseOptions) -> Result<AddedKey, OpenError> {
    let path = key_file(options).ok_or(OpenError::NoKeyFile)?;
    // A link stays one: the file that it leads to is the one that every node reads.
    let path = fs::canonicalize(&path).map_err(|cause| OpenError::KeyFile(path, cause))?;
    let failed = |cause| OpenError::KeyFile(path.clone(), cause);
    // Two that add at once take turns: neither may write over the other's key.
    let turn = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY)
        .open(with_suffix(&path, "lock"))
        .map_err(failed)?;
    turn.lock().map_err(failed)?;
    let before = fs::metadata(&path).map_err(failed)?;
    let ring = read(&path)?
        .with_new_key(&mut UnwrapErr(SysRng))
        .ok_or(OpenError::KeyRingFull)?;
    let draft = write_draft(&path, &ring).map_err(failed)?;
    // The server must be able to read what root has written, if it could read what was there before.
    keep_owner(draft.path(), &before).map_err(failed)?;
    draft.persist(&path).map_err(|error| failed(error.error))?;
    sync_folder(&path).map_err(failed)?;
    let id = ring.ids().next().unwrap_or_default();
    Ok(AddedKey { id, file: path })
}

fn keep_owner(draft: &Path, before: &fs::Metadata) -> io::Result<()> {
    let now = fs::metadata(draft)?;
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(draft, Some(before.uid()), Some(before.gid()))
}

/// The key file that these options mean, where they name or imply one. That of an SQLite database lies beside the file
/// itself, whatever link leads to it.
#[must_use]
pub fn key_file(options: &DatabaseOptions) -> Option<PathBuf> {
    match (&options.master_key, &options.master_key_file) {
        (Some(_), _) => None,
        (None, Some(path)) => Some(path.clone()),
        (None, None) => sqlite_path(&options.url).map(|database| {
            let resolved = fs::canonicalize(database);
            with_suffix(resolved.as_deref().unwrap_or(database), "key")
        }),
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn read(path: &Path) -> Result<KeyRing, OpenError> {
    let text = fs::read_to_string(path).map_err(|cause| OpenError::KeyFile(path.to_owned(), cause))?;
    let text = Zeroizing::new(text);
    Ok(KeyRing::parse(&text)?)
}

/// The key file beside an SQLite database; made at the first start where that is allowed, for the owner's eyes alone.
fn beside(path: &Path, creation: Creation) -> Result<KeyRing, OpenError> {
    if path.exists() {
        return read(path);
    }
    if creation == Creation::Refused {
        return Err(OpenError::KeyFileGone(path.to_owned()));
    }
    let ring = KeyRing::generate(&mut UnwrapErr(SysRng));
    match write_new(path, &ring) {
        Ok(()) => Ok(ring),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(cause) => Err(OpenError::KeyFile(path.to_owned(), cause)),
    }
}

/// Writes the ring to a new key file, which is on the disk when this returns: what it seals must not outlive it.
pub(in crate::store) fn write_new(path: &Path, ring: &KeyRing) -> io::Result<()> {
    // Under another name first: two servers that start at once must end up with the same whole key.
    let draft = write_draft(path, ring)?;
    fs::hard_link(draft.path(), path)?;
    draft.close()?;
    sync_folder(path)
}

/// Writes the ring to the disk, under a name that nothing else has, for the owner's eyes alone. Dropped, it is removed.
fn write_draft(path: &Path, ring: &KeyRing) -> io::Result<NamedTempFile> {
    let mut draft = NamedTempFile::new_in(folder(path))?;
    draft.write_all(ring.expose().as_bytes())?;
    draft.as_file().sync_all()?;
    Ok(draft)
}
