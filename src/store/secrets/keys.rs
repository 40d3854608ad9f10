//! Where the master keys come from: an option, a file, or the key file of an SQLite database.
//!
//! A key file may change while the server runs: if it is another file than before, it is read again before a secret is
//! sealed, and when a secret names an unknown key. Added keys take effect at once. If a key was removed or changed, the
//! database is checked first for whether the others open what it holds ([`super::check`]).

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use rand::{rand_core::UnwrapErr, rngs::SysRng};
use secrecy::zeroize::Zeroizing;
use tempfile::NamedTempFile;

use crate::{
    config::DatabaseOptions,
    domain::{
        id::WebhookId,
        keyring::{Keyring, SecretOwner},
        secret::Secret,
    },
    store::source::{Creation, OWNER_ONLY, OpenError, folder, sqlite_path, sync_folder, with_suffix},
};

/// How long a secret that did not open is remembered: longer than the pause before its webhook is tried again.
const UNREADABLE_PERIOD: Duration = Duration::from_mins(5);

/// The current master keys.
#[derive(Debug)]
pub(in crate::store) struct Keys {
    keyring: RwLock<Arc<Keyring>>,
    file: Option<KeyFile>,
    known: Mutex<KeyState>,
}

/// What is known about the keyring.
#[derive(Debug, Default)]
struct KeyState {
    /// Keys that have opened a secret: if one of them fails to open another, that secret is damaged.
    proven: BTreeSet<u8>,
    /// The key that does not open what it should have sealed.
    fault: Option<KeyFault>,
    /// The key file that was refused, and why.
    refused: Option<(Stamp, KeyFault)>,
    /// Secrets that a proven key did not open lately, two per key at most: one is damaged, several are another key's.
    unreadable: Vec<(u8, WebhookId, Instant)>,
}

/// A master key that the database uses, and that does not open what it should have sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// There is no key with that id.
    #[error(
        "signing secrets are sealed with master key {0}, which is not given: add it (--master-key-file, --master-key)"
    )]
    Missing(u8),
    /// There is a key with that id, but a different one.
    #[error(
        "master key {0} is not the one that has sealed the signing secrets: give the right one (--master-key-file, --master-key)"
    )]
    Wrong(u8),
}

/// A key file that has changed, and lacks a key that it had.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) keyring: Keyring,
    stamp: Stamp,
}

#[derive(Debug)]
struct KeyFile {
    path: PathBuf,
    /// Which file was read last: a file that is written again is another one, or has another time.
    read: RwLock<Option<Stamp>>,
}

/// Device, inode, length, and modification time in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Keys {
    /// Loads the master keys of these options. A missing key file of an SQLite database is created if `creation`
    /// allows.
    ///
    /// # Errors
    /// PostgreSQL without a key is refused: its nodes must share one, and a file on one of them would not do.
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
        // Stamped before it is read: a change in between is noticed.
        let before = stamp(&path);
        let keyring = if options.master_key_file.is_some() {
            read(&path)?
        } else {
            default_key_file(&path, creation)?
        };
        let read = RwLock::new(before.or_else(|| stamp(&path)));
        Ok(Self::of(keyring, Some(KeyFile { path, read })))
    }

    fn of(keyring: Keyring, file: Option<KeyFile>) -> Self {
        Self {
            keyring: RwLock::new(Arc::new(keyring)),
            file,
            known: Mutex::default(),
        }
    }

    /// Seals a secret under the first key. With the length of a secret it never returns `None`.
    pub(in crate::store) fn seal(&self, owner: SecretOwner, secret: &Secret) -> Option<Vec<u8>> {
        // Checking is cheap, and a key that was removed from the file must not seal what nobody could open again.
        self.reload();
        self.keyring().seal(&mut UnwrapErr(SysRng), owner, secret)
    }

    /// Seals bytes under the first key, bound to `associated_data`.
    pub(in crate::store) fn seal_bytes(&self, associated_data: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        self.reload();
        self.keyring()
            .seal_bytes(&mut UnwrapErr(SysRng), associated_data, bytes)
    }

    /// Opens sealed bytes. `None` if their key is unknown, or if they were sealed with other associated data or
    /// tampered with.
    pub(in crate::store) fn open_bytes(&self, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let opened = self.keyring().open_bytes(associated_data, sealed);
        if opened.is_none() && self.reload() {
            return self.keyring().open_bytes(associated_data, sealed);
        }
        opened
    }

    /// Opens a sealed secret. `None` if its key is unknown, or if it was sealed for another row or tampered with.
    pub(in crate::store) fn open(&self, owner: SecretOwner, sealed: &[u8]) -> Option<Secret> {
        let mut opened = self.keyring().open(owner, sealed);
        if opened.is_none() && self.reload() {
            opened = self.keyring().open(owner, sealed);
        }
        if let Some(id) = Keyring::sealed_with(sealed) {
            if opened.is_some() {
                self.prove(id, owner.webhook_id);
            } else {
                self.suspect(id, owner.webhook_id);
            }
        }
        opened
    }

    /// The current keyring.
    pub(in crate::store) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self) -> MutexGuard<'_, KeyState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that does not open what it should have sealed, as far as is known.
    pub(in crate::store) fn fault(&self) -> Option<KeyFault> {
        self.known().fault
    }

    /// Why the current key file was refused.
    pub(super) fn refusal(&self) -> Option<KeyFault> {
        self.known().refused.map(|(_, fault)| fault)
    }

    /// A key that opens some secrets and not others: another node has sealed those with a different key of the same id.
    pub(super) fn mixed(&self) -> Option<u8> {
        self.known().mixed(Instant::now())
    }

    /// A key has opened a secret.
    fn prove(&self, id: u8, webhook: WebhookId) {
        let mut known = self.known();
        known.unreadable.retain(|(_, unreadable, _)| *unreadable != webhook);
        if known.proven.insert(id) && known.fault.is_some_and(|fault| fault.key_id() == id) {
            known.fault = None;
            tracing::info!(kallima.master_key.id = id, "the master key opens its secrets again");
        }
    }

    /// A key has failed to open a secret. If it has opened others, that secret is damaged, or sealed by another key.
    fn suspect(&self, id: u8, webhook: WebhookId) {
        let mut known = self.known();
        if known.proven.contains(&id) {
            known.miss(id, webhook, Instant::now());
        } else {
            known.fail(fault_of(&self.keyring(), id));
        }
    }

    /// Applies a check of the keyring: the keys that open what they have sealed, and one that does not.
    pub(super) fn apply_check(&self, good: BTreeSet<u8>, fault: Option<KeyFault>) {
        let mut known = self.known();
        known.proven.extend(good);
        match fault {
            Some(fault) => known.fail(fault),
            None if known.fault.take().is_some() => tracing::info!("the master keys open every secret again"),
            None => {}
        }
    }

    /// Reads the key file if it has changed, and accepts it if it has every key that it had. A file that cannot be read
    /// leaves the keys as they were, and so does one that lacks a key, until the database has been checked.
    pub(in crate::store) fn reload(&self) -> bool {
        let Some((stamp, keyring)) = self.changed() else {
            return false;
        };
        let includes_all = keyring.includes(&self.keyring());
        if includes_all {
            self.replace(keyring, stamp);
        }
        includes_all
    }

    /// The key file, if it has changed and lacks a key that it had.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        // Checked again even if it was refused: secrets may have been sealed again since.
        if self.reload() {
            return None;
        }
        let file = self.file.as_ref()?;
        let refused = self.known().refused;
        match (self.changed(), refused) {
            (Some((stamp, keyring)), _) => Some(Candidate { keyring, stamp }),
            (None, Some((stamp, _))) if self::stamp(&file.path) == Some(stamp) => {
                let keyring = read(&file.path).ok()?;
                Some(Candidate { keyring, stamp })
            }
            (None, Some(_)) => {
                self.known().refused = None;
                None
            }
            (None, None) => None,
        }
    }

    /// The key file and its keyring, if it is not the one that was last read or refused.
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
            .map(|keyring| (found, keyring))
    }

    /// Accepts a key file that opens what the database holds.
    pub(super) fn adopt(&self, candidate: Candidate, good: BTreeSet<u8>) {
        self.replace(candidate.keyring, candidate.stamp);
        self.apply_check(good, None);
    }

    /// Refuses a key file that does not.
    pub(super) fn refuse(&self, candidate: &Candidate, fault: KeyFault) {
        let refused = Some((candidate.stamp, fault));
        let mut known = self.known();
        if known.refused != refused {
            known.refused = refused;
            tracing::error!(exception.message = %fault, "the master key file has changed, but was refused; the previous keys stay in use");
        }
    }

    fn replace(&self, keyring: Keyring, stamp: Stamp) {
        tracing::info!(kallima.master_key.ids = ?keyring.ids().collect::<Vec<_>>(), "the master key file was read again");
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
        if let Some(file) = &self.file {
            *file.read.write().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        }
        let mut known = self.known();
        known.proven.clear();
        known.unreadable.clear();
        known.refused = None;
    }
}

impl KeyState {
    /// A proven key did not open the secret of this webhook.
    fn miss(&mut self, id: u8, webhook: WebhookId, now: Instant) {
        let before = self.mixed(now);
        self.unreadable
            .retain(|(_, other, at)| *other != webhook && now.duration_since(*at) < UNREADABLE_PERIOD);
        if self.unreadable.iter().filter(|(key, ..)| *key == id).count() < 2 {
            self.unreadable.push((id, webhook, now));
        }
        if before.is_none() && self.mixed(now).is_some() {
            tracing::error!(
                kallima.master_key.id = id,
                "the master key opens some signing secrets and not others: does every node have the same one?"
            );
        }
    }

    fn mixed(&self, now: Instant) -> Option<u8> {
        let mut recent = Vec::new();
        for (id, _, at) in &self.unreadable {
            if now.duration_since(*at) < UNREADABLE_PERIOD {
                if recent.contains(id) {
                    return Some(*id);
                }
                recent.push(*id);
            }
        }
        None
    }

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

/// What is wrong with a keyring that does not open what the key with that id has sealed.
pub(super) fn fault_of(keyring: &Keyring, id: u8) -> KeyFault {
    if keyring.ids().any(|given| given == id) {
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
    /// The file that contains it now, before the others.
    pub file: PathBuf,
}

/// Adds a new key before the others in the key file of these options.
///
/// # Errors
/// Keys that are given by an option have no file.
pub fn add(options: &DatabaseOptions) -> Result<AddedKey, OpenError> {
    let path = key_file(options).ok_or(OpenError::NoKeyFile)?;
    // A link stays a link: the file that it leads to is the one that every node reads.
    let path = fs::canonicalize(&path).map_err(|cause| OpenError::KeyFile(path, cause))?;
    let failed = |cause| OpenError::KeyFile(path.clone(), cause);
    // Concurrent additions take turns: neither may overwrite the other's key.
    let turn = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(OWNER_ONLY)
        .open(with_suffix(&path, "lock"))
        .map_err(failed)?;
    turn.lock().map_err(failed)?;
    let before = fs::metadata(&path).map_err(failed)?;
    let keyring = read(&path)?
        .with_new_key(&mut UnwrapErr(SysRng))
        .ok_or(OpenError::KeyringFull)?;
    let draft = write_draft(&path, &keyring).map_err(failed)?;
    // The server must be able to read what root has written, if it could read the previous file.
    keep_owner(draft.path(), &before).map_err(failed)?;
    draft.persist(&path).map_err(|error| failed(error.error))?;
    sync_folder(&path).map_err(failed)?;
    let id = keyring.ids().next().unwrap_or_default();
    Ok(AddedKey { id, file: path })
}

fn keep_owner(draft: &Path, before: &fs::Metadata) -> io::Result<()> {
    let now = fs::metadata(draft)?;
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(draft, Some(before.uid()), Some(before.gid()))
}

/// The key file that these options name or imply. That of an SQLite database lies next to the file itself, whatever
/// link leads to it.
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

/// What is wrong with the key file that the options name; `None` if they name none.
#[must_use]
pub fn given_fault(options: &DatabaseOptions) -> Option<String> {
    let fault = read(options.master_key_file.as_deref()?).err()?;
    Some(format!("--master-key-file (KALLIMA_MASTER_KEY_FILE): {fault}"))
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

/// The key file of an SQLite database; created at the first start if `creation` allows, readable only by the owner.
fn default_key_file(path: &Path, creation: Creation) -> Result<Keyring, OpenError> {
    if path.exists() {
        return read(path);
    }
    if creation == Creation::Refused {
        return Err(OpenError::KeyFileGone(path.to_owned()));
    }
    let keyring = Keyring::generate(&mut UnwrapErr(SysRng));
    match write_new(path, &keyring) {
        Ok(()) => Ok(keyring),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(cause) => Err(OpenError::KeyFile(path.to_owned(), cause)),
    }
}

/// Writes the keyring to a new key file, which is on disk when this returns: what it seals must not outlive it.
pub(in crate::store) fn write_new(path: &Path, keyring: &Keyring) -> io::Result<()> {
    // Under another name first: two servers that start at the same time must end up with the same whole key.
    let draft = write_draft(path, keyring)?;
    fs::hard_link(draft.path(), path)?;
    draft.close()?;
    sync_folder(path)
}

/// Writes the keyring to disk, under a unique name, readable only by the owner. Dropped, it is removed.
fn write_draft(path: &Path, keyring: &Keyring) -> io::Result<NamedTempFile> {
    let mut draft = NamedTempFile::new_in(folder(path))?;
    draft.write_all(keyring.expose().as_bytes())?;
    draft.as_file().sync_all()?;
    Ok(draft)
}
