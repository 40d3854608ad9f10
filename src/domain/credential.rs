//! What a signing secret and a token have in common: a prefix, and letters and digits at random.

use rand::{
    CryptoRng,
    distr::{Alphanumeric, SampleString},
};
use secrecy::SecretString;

/// A new credential: the prefix, and this many characters, each drawn uniformly from the 62.
pub(super) fn generate(prefix: &str, length: usize, rng: &mut (impl CryptoRng + ?Sized)) -> SecretString {
    // As large as it gets: growing would leave a copy behind that nobody wipes.
    let mut text = String::with_capacity(prefix.len() + length);
    text.push_str(prefix);
    Alphanumeric.append_string(rng, &mut text, length);
    text.into()
}

/// Parses a credential of this form; `None` if the text is anything else.
pub(super) fn parse(prefix: &str, length: usize, text: &str) -> Option<SecretString> {
    let random = text.strip_prefix(prefix)?;
    let has_this_form = random.len() == length && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    has_this_form.then(|| text.into())
}
