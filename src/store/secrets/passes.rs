//! Passes as text: sealed under the master key, and stored nowhere.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::check;
use crate::{
    domain::{
        pass::{Pass, PassKind},
        timestamp::Timestamp,
    },
    store::{Database, StoreError},
};

/// The longest text that is opened. A pass is shorter; nobody's cookies cost more than this.
const TEXT_BYTES_MAX: usize = 256;

/// Seals a pass: letters, digits, `-` and `_`.
pub fn seal(db: &Database, kind: PassKind, pass: &Pass) -> Result<String, StoreError> {
    check::may_seal(db)?;
    let sealed = db.keys.seal_bytes(kind.associated_data(), &pass.to_bytes());
    let sealed = sealed.ok_or_else(|| StoreError::Corrupt("a pass could not be sealed".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

/// Opens a sealed pass. `None` if it is not whole, has ended, was sealed for something else, or its master key is gone.
#[must_use]
pub fn open(db: &Database, kind: PassKind, text: &str, now: Timestamp) -> Option<Pass> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
    Pass::parse(&db.keys.open_bytes(kind.associated_data(), &sealed)?, now)
}
