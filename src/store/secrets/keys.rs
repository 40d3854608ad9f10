//! Where the master keys come from: an option, a file, or the key file beside an SQLite database.
//!
//! A key file may change while the server runs: it is read again before a secret is sealed, where it is another file
//! than before, and when a secret names a key that is not known yet. Keys that were added count at once. Where a key was
//! taken away or changed, the database is asked first whether the others open what it holds ([`super::check`]).

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use rand::{rand_core::UnwrapErr, rngs::SysRng};
use secrecy::zeroize::Zeroizing;
use tempfile::NamedTempFile;

use crate::{
    config::DatabaseOptions,
    domain::{
        keyring::{Keyring, SecretOwner},
        secret::Secret,
    },
    store::source::{Creation, OWNER_ONLY, OpenError, folder, sqlite_path, sync_folder, with_suffix},
};

/// The master keys, as they stand now.
#[derive(Debug)]
pub(in crate::store) struct Keys {
    ring: RwLock<Arc<Keyring>>,
    file: Option<KeyFile>,
    known: Mutex<Known>,
}

/// What is known of the ring.
#[derive(Debug, Default)]
struct Known {
    /// The keys that have opened a secret: where one of them does not, that secret is damaged.
    proven: BTreeSet<u8>,
    /// The key that does not open what it has sealed.
    fault: Option<KeyFault>,
    /// The key file that was not taken, and why.
    refused: Option<(Stamp, KeyFault)>,
}

/// A master key that the database has in use, and that does not open what it has sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// No key of that id is there.
    #[error(
        "signing secrets are sealed with master key {0}, which is not given: add it (--master-key-file, --master-key)"
    )]
    Missing(u8),
    /// There is one of that id, but it is another.
    #[error(
        "master key {0} is not the one that has sealed the signing secrets: give the right one (--master-key-file, --master-key)"
    )]
    Wrong(u8),
}

/// A key file that has changed, and does not have every key that it had.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) ring: Keyring,
    stamp: Stamp,
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
            return Ok(Self::of(Keyring::parse(text)?, None));
        }
        let Some(path) = key_file(options) else {
            if options.is_postgres() {
                return Err(OpenError::NoKey);
            }
            // A database in memory ends with the process, and so may its key.
            return Ok(Self::of(Keyring::generate(&mut UnwrapErr(SysRng)), None));
        };
        // Of a file that is there, from before it is read: a change meanwhile is seen as one.
        let before = stamp(&path);
        let ring = if options.master_key_file.is_some() {
            read(&path)?
        } else {
            beside(&path, creation)?
        };
        let read = RwLock::new(before.or_else(|| stamp(&path)));
        Ok(Self::of(ring, Some(KeyFile { path, read })))
    }

    fn of(ring: Keyring, file: Option<KeyFile>) -> Self {
        Self {
            ring: RwLock::new(Arc::new(ring)),
            file,
            known: Mutex::default(),
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
        let mut opened = self.ring().open(owner, sealed);
        if opened.is_none() && self.read_again() {
            opened = self.ring().open(owner, sealed);
        }
        if let Some(id) = Keyring::sealed_with(sealed) {
            if opened.is_some() {
                self.prove(id);
            } else {
                self.suspect(id);
            }
        }
        opened
    }

    /// The ring as it stands.
    pub(in crate::store) fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that does not open what it has sealed, as far as anybody knows.
    pub(in crate::store) fn fault(&self) -> Option<KeyFault> {
        self.known().fault
    }

    /// Why the key file as it stands was not taken.
    pub(super) fn refusal(&self) -> Option<KeyFault> {
        self.known().refused.map(|(_, fault)| fault)
    }

    /// A key has opened a secret.
    fn prove(&self, id: u8) {
        let mut known = self.known();
        if known.proven.insert(id) && known.fault.is_some_and(|fault| fault.key_id() == id) {
            known.fault = None;
            tracing::info!(key = id, "the master key opens what it has sealed again");
        }
    }

    /// A key has not opened a secret. If it has opened others, that secret alone is damaged.
    fn suspect(&self, id: u8) {
        let mut known = self.known();
        if !known.proven.contains(&id) {
            known.fail(fault_of(&self.ring(), id));
        }
    }

    /// Takes in what the database says of the ring: the keys that open what they have sealed, and one that does not.
    pub(super) fn judge(&self, good: BTreeSet<u8>, fault: Option<KeyFault>) {
        let mut known = self.known();
        known.proven.extend(good);
        match fault {
            Some(fault) => known.fail(fault),
            None if known.fault.take().is_some() => tracing::info!("the master keys open every secret again"),
            None => {}
        }
    }

    /// Reads the key file where it has changed, and takes it if it has every key that it had. A file that cannot be read
    /// leaves the keys as they were, and so does one that lacks a key, until the database was asked.
    pub(in crate::store) fn read_again(&self) -> bool {
        let Some((stamp, ring)) = self.changed() else {
            return false;
        };
        let includes_all = ring.includes(&self.ring());
        if includes_all {
            self.replace(ring, stamp);
        }
        includes_all
    }

    /// The key file, where it has changed and lacks a key that it had.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        // Asked again even if it was refused: secrets may have been sealed anew since.
        if self.read_again() {
            return None;
        }
        let file = self.file.as_ref()?;
        let refused = self.known().refused;
        match (self.changed(), refused) {
            (Some((stamp, ring)), _) => Some(Candidate { ring, stamp }),
            (None, Some((stamp, _))) if self::stamp(&file.path) == Some(stamp) => {
                let ring = read(&file.path).ok()?;
                Some(Candidate { ring, stamp })
            }
            (None, Some(_)) => {
                self.known().refused = None;
                None
            }
            (None, None) => None,
        }
    }

    /// The key file and its ring, where it is another than was read or refused last.
    fn changed(&self) -> Option<(Stamp, Keyring)> {
        let KeyFile { path, read: last } = self.file.as_ref()?;
        let found = stamp(path)?;
        let is_refused = self.known().refused.is_some_and(|(stamp, _)| stamp == found);
        if is_refused || Some(found) == *last.read().unwrap_or_else(PoisonError::into_inner) {
            return None;
        }
        read(path)
            .inspect_err(|error| tracing::error!(exception.message = %error, "the master key file has changed, but cannot be read"))
            .ok()
            .map(|ring| (found, ring))
    }

    /// Takes a key file that opens what the database holds.
    pub(super) fn adopt(&self, candidate: Candidate, good: BTreeSet<u8>) {
        self.replace(candidate.ring, candidate.stamp);
        self.judge(good, None);
    }

    /// Leaves a key file alone that does not.
    pub(super) fn refuse(&self, candidate: &Candidate, fault: KeyFault) {
        let refused = Some((candidate.stamp, fault));
        let mut known = self.known();
        if known.refused != refused {
            known.refused = refused;
            tracing::error!(exception.message = %fault, "the master key file has changed, but is not taken; the keys from before stay");
        }
    }

    fn replace(&self, ring: Keyring, stamp: Stamp) {
        tracing::info!(keys = ?ring, "the master key file was read again");
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        if let Some(file) = &self.file {
            *file.read.write().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        }
        let mut known = self.known();
        known.proven.clear();
        known.refused = None;
    }
}

impl Known {
    fn fail(&mut self, fault: KeyFault) {
        self.proven.remove(&fault.key_id());
        if self.fault != Some(fault) {
            self.fault = Some(fault);
            tracing::error!(exception.message = %fault, "this node cannot sign: it claims no deliveries until its master keys are right");
        }
    }
}

impl KeyFault {
    /// The id of the key.
    #[must_use]
    pub const fn key_id(self) -> u8 {
        match self {
            Self::Missing(id) | Self::Wrong(id) => id,
        }
    }
}

/// What is wrong with a ring that does not open what the key of that id has sealed.
pub(super) fn fault_of(ring: &Keyring, id: u8) -> KeyFault {
    if ring.ids().any(|given| given == id) {
        KeyFault::Wrong(id)
    } else {
        KeyFault::Missing(id)
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

fn read(path: &Path) -> Result<Keyring, OpenError> {
    let text = fs::read_to_string(path).map_err(|cause| OpenError::KeyFile(path.to_owned(), cause))?;
    let text = Zeroizing::new(text);
    Ok(Keyring::parse(&text)?)
}

/// The key file beside an SQLite database; made at the first start where that is allowed, for the owner's eyes alone.
fn beside(path: &Path, creation: Creation) -> Result<Keyring, OpenError> {
    if path.exists() {
        return read(path);
    }
    if creation == Creation::Refused {
        return Err(OpenError::KeyFileGone(path.to_owned()));
    }
    let ring = Keyring::generate(&mut UnwrapErr(SysRng));
    match write_new(path, &ring) {
        Ok(()) => Ok(ring),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(cause) => Err(OpenError::KeyFile(path.to_owned(), cause)),
    }
}

/// Writes the ring to a new key file, which is on the disk when this returns: what it seals must not outlive it.
pub(in crate::store) fn write_new(path: &Path, ring: &Keyring) -> io::Result<()> {
    // Under another name first: two servers that start at once must end up with the same whole key.
    let draft = write_draft(path, ring)?;
    fs::hard_link(draft.path(), path)?;
    draft.close()?;
    sync_folder(path)
}

/// Writes the ring to the disk, under a name that nothing else has, for the owner's eyes alone. Dropped, it is removed.
fn write_draft(path: &Path, ring: &Keyring) -> io::Result<NamedTempFile> {
    let mut draft = NamedTempFile::new_in(folder(path))?;
    draft.write_all(ring.expose().as_bytes())?;
    draft.as_file().sync_all()?;
    Ok(draft)
}
