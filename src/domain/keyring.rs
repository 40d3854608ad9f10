//! Secrets at rest: the keyring of master keys, and sealing and opening secrets with it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rand::{CryptoRng, RngExt as _};
use secrecy::{ExposeSecret as _, SecretBox, zeroize::Zeroizing};

use crate::domain::{
    id::{OrganizationId, WebhookId},
    secret::Secret,
};

/// The first byte of a sealed secret: the version of its layout.
const VERSION: u8 = 1;

/// Bytes of a key, and of a nonce long enough to be random (XChaCha20-Poly1305).
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Bytes of a line of a key file: three digits, a colon, 32 bytes in base64, the line end.
const LINE_BYTES_MAX: usize = 3 + 1 + 44 + 1;

/// Version and key id precede the nonce.
const HEAD_BYTES: usize = 2;

/// Master keys by id. The first one seals; all of them open, so that the master key can be changed while secrets sealed
/// with the previous one still exist. Their memory is wiped when the keyring is dropped.
pub struct Keyring {
    keys: Vec<(u8, Key)>,
}

/// One key.
type Key = SecretBox<[u8; KEY_BYTES]>;

/// Why a text is not a keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// It has no key at all.
    #[error("the master key is empty")]
    Empty,
    /// An entry is not an id, a colon and a key.
    #[error("a master key is written as ID:BASE64, an id from 0 to 255 and 32 bytes in base64")]
    Malformed,
    /// Two keys have the same id.
    #[error("two master keys have the id {0}")]
    DuplicateId(u8),
}

/// The row that a secret belongs to. A sealed secret that is moved to another row does not open.
#[derive(Clone, Copy, Debug)]
pub struct SecretOwner {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The webhook.
    pub webhook_id: WebhookId,
}

impl SecretOwner {
    fn associated_data(self) -> Vec<u8> {
        [
            b"webhooks".as_slice(),
            self.organization_id.as_uuid().as_bytes(),
            self.webhook_id.as_uuid().as_bytes(),
        ]
        .concat()
    }
}

impl Keyring {
    /// A keyring with one new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            keys: vec![(1, new_key(rng))],
        }
    }

    /// Parses a keyring: `ID:BASE64` entries, separated by commas or white space; the first one seals.
    ///
    /// # Errors
    /// The text has no key, or something that is not one. The error shows no part of a key.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<(u8, Key)> = Vec::new();
        let entries = text
            .split(|letter: char| letter == ',' || letter.is_whitespace())
            .filter(|entry| !entry.is_empty());
        for entry in entries {
            let (id, key) = entry.split_once(':').ok_or(KeyringError::Malformed)?;
            let id = id.parse().map_err(|_| KeyringError::Malformed)?;
            let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| KeyringError::Malformed)?);
            let key = Key::try_init_with(|| bytes.as_slice().try_into()).map_err(|_| KeyringError::Malformed)?;
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(KeyringError::DuplicateId(id));
            }
            keys.push((id, key));
        }
        if keys.is_empty() {
            Err(KeyringError::Empty)
        } else {
            Ok(Self { keys })
        }
    }

    /// The keyring with a new key before the others: it seals from now on, they still open. `None` if all 256 ids are
    /// in use.
    pub fn with_new_key(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Option<Self> {
        let taken = |id: &u8| self.keys.iter().any(|(known, _)| known == id);
        let id = (1..=u8::MAX).chain([0]).find(|id| !taken(id))?;
        let known = self
            .keys
            .iter()
            .map(|(id, key)| (*id, Key::init_with(|| *key.expose_secret())));
        let keys = [(id, new_key(rng))].into_iter().chain(known);
        Some(Self { keys: keys.collect() })
    }

    /// The keyring as [`parse`](Self::parse) reads it, one key per line: the keys in the clear, for a key file and
    /// nothing else.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        // Allocated at once: a text that grows leaves copies of itself behind in memory.
        let mut text = Zeroizing::new(String::with_capacity(self.keys.len() * LINE_BYTES_MAX));
        for (id, key) in &self.keys {
            text.push_str(&id.to_string());
            text.push(':');
            STANDARD.encode_string(key.expose_secret(), &mut text);
            text.push('\n');
        }
        text
    }

    /// Whether this keyring has every key of `other`, so that it opens whatever the other one does.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let has = |(id, key): &(u8, Key)| {
            let same = |(own_id, own): &(u8, Key)| own_id == id && own.expose_secret() == key.expose_secret();
            self.keys.iter().any(same)
        };
        other.keys.iter().all(has)
    }

    /// The ids of the keys, starting with the key that seals.
    pub fn ids(&self) -> impl Iterator<Item = u8> {
        self.keys.iter().map(|(id, _)| *id)
    }

    /// The id of the key that sealed this. `None` if it is not a sealed secret of this version.
    #[must_use]
    pub fn sealed_with(sealed: &[u8]) -> Option<u8> {
        match sealed.split_first_chunk::<HEAD_BYTES>()? {
            ([VERSION, id], _) => Some(*id),
            _ => None,
        }
    }

    /// Seals a secret for its row. With the length of a secret it never returns `None`.
    pub fn seal(&self, rng: &mut (impl CryptoRng + ?Sized), owner: SecretOwner, secret: &Secret) -> Option<Vec<u8>> {
        self.seal_bytes(rng, &owner.associated_data(), secret.expose().as_bytes())
    }

    /// Seals bytes, bound to `associated_data`: version, key id, nonce, ciphertext. `None` only above 256 GiB.
    pub fn seal_bytes(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
        associated_data: &[u8],
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let (id, key) = self.keys.first()?;
        let nonce: [u8; NONCE_BYTES] = rng.random();
        let payload = Payload {
            msg: bytes,
            aad: associated_data,
        };
        let ciphertext = cipher(key).encrypt(&XNonce::from(nonce), payload).ok()?;
        Some([[VERSION, *id].as_slice(), &nonce, &ciphertext].concat())
    }

    /// Opens a sealed secret. `None` if its key is not on the keyring, or if it was sealed for another row or tampered
    /// with.
    #[must_use]
    pub fn open(&self, owner: SecretOwner, sealed: &[u8]) -> Option<Secret> {
        let plain = Zeroizing::new(self.open_bytes(&owner.associated_data(), sealed)?);
        Secret::parse(std::str::from_utf8(&plain).ok()?)
    }

    /// Opens sealed bytes. `None` if their key is not on the keyring, or if they were sealed with other associated data
    /// or tampered with.
    #[must_use]
    pub fn open_bytes(&self, associated_data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let ([VERSION, id], rest) = sealed.split_first_chunk::<HEAD_BYTES>()? else {
            return None;
        };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == id)?;
        let payload = Payload {
            msg: ciphertext,
            aad: associated_data,
        };
        cipher(key).decrypt(&XNonce::from(*nonce), payload).ok()
    }
}

fn new_key(rng: &mut (impl CryptoRng + ?Sized)) -> Key {
    Key::init_with_mut(|key| rng.fill(key))
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose_secret().into())
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.ids().collect();
        formatter
            .debug_struct("Keyring")
            .field("ids", &ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn owner(webhook: u128) -> SecretOwner {
        SecretOwner {
            organization_id: Uuid::from_u128(1).into(),
            webhook_id: Uuid::from_u128(webhook).into(),
        }
    }

    #[test]
    fn a_sealed_secret_opens_for_its_own_row_only() {
        let keyring = Keyring::generate(&mut rand::rng());
        let secret = Secret::generate(&mut rand::rng());
        let sealed = keyring.seal(&mut rand::rng(), owner(2), &secret).unwrap();
        assert_eq!(keyring.open(owner(2), &sealed).unwrap().expose(), secret.expose());
        assert!(keyring.open(owner(3), &sealed).is_none(), "moved to another row");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(keyring.open(owner(2), &changed).is_none(), "byte {index} changed");
        }
        assert!(keyring.open(owner(2), &[]).is_none());
        assert!(!String::from_utf8_lossy(&sealed).contains(secret.expose_key()));
    }

    #[test]
    fn an_older_key_on_the_keyring_still_opens() {
        let old = Keyring::generate(&mut rand::rng());
        let old_text = old.expose();
        let secret = Secret::generate(&mut rand::rng());
        let sealed = old.seal(&mut rand::rng(), owner(2), &secret).unwrap();
        let new_key = STANDARD.encode([7; KEY_BYTES]);
        let both = Keyring::parse(&format!("2:{new_key},{}", old_text.as_str())).unwrap();
        assert_eq!(both.open(owner(2), &sealed).unwrap().expose(), secret.expose());
        assert_eq!(
            both.seal(&mut rand::rng(), owner(2), &secret).unwrap()[1],
            2,
            "the first key seals"
        );
        assert!(
            Keyring::parse(&format!("2:{new_key}"))
                .unwrap()
                .open(owner(2), &sealed)
                .is_none()
        );
    }

    #[test]
    fn a_new_key_goes_first_and_has_an_id_of_its_own() {
        let mut keyring = Keyring::generate(&mut rand::rng());
        let secret = Secret::generate(&mut rand::rng());
        let sealed = keyring.seal(&mut rand::rng(), owner(2), &secret).unwrap();
        assert_eq!(Keyring::sealed_with(&sealed), Some(1));
        for _ in 0..255 {
            keyring = keyring.with_new_key(&mut rand::rng()).unwrap();
        }
        assert!(keyring.with_new_key(&mut rand::rng()).is_none(), "there are 256 ids");
        assert_eq!(keyring.ids().collect::<std::collections::BTreeSet<_>>().len(), 256);
        assert_eq!(keyring.ids().next(), Some(0), "the last free id");
        let read = Keyring::parse(&keyring.expose()).unwrap();
        assert!(read.ids().eq(keyring.ids()));
        assert_eq!(read.open(owner(2), &sealed).unwrap().expose(), secret.expose());
    }

    #[test]
    fn dropped_keys_are_wiped() {
        fn is_wiped(_: &impl secrecy::zeroize::ZeroizeOnDrop) {}
        let keyring = Keyring::generate(&mut rand::rng());
        is_wiped(&keyring.keys[0].1);
        is_wiped(&keyring.expose());
        is_wiped(&cipher(&keyring.keys[0].1));
    }

    #[test]
    fn an_invalid_keyring_is_refused_without_showing_it() {
        let key = STANDARD.encode([7; KEY_BYTES]);
        for (text, error) in [
            (String::new(), KeyringError::Empty),
            (" , ".to_owned(), KeyringError::Empty),
            (key.clone(), KeyringError::Malformed),
            (format!("256:{key}"), KeyringError::Malformed),
            ("1:c2hvcnQ=".to_owned(), KeyringError::Malformed),
            (format!("1:{key},1:{key}"), KeyringError::DuplicateId(1)),
        ] {
            assert_eq!(Keyring::parse(&text).unwrap_err(), error, "{text:?}");
        }
        assert_eq!(
            format!("{:?}", Keyring::parse(&format!("1:{key}")).unwrap()),
            "Keyring { ids: [1], .. }"
        );
    }
}
