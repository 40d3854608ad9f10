//! A cache of recently used tokens.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::domain::{
    id::{OrganizationId, TokenId},
    token::Scopes,
};

/// The caller that a valid token identifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHolder {
    /// The token's id.
    pub token_id: TokenId,
    /// The organization it acts for; `None` for a platform token.
    pub organization_id: Option<OrganizationId>,
    /// What it may do.
    pub scopes: Scopes,
}

/// How long a token's look-up is cached if a look-up costs a round trip: a revocation takes effect on every node within
/// this time.
const CACHED_FOR: Duration = Duration::from_secs(2);

/// The most tokens that are cached.
const CACHED_MAX: usize = 10_000;

/// The cache of recently used tokens.
#[derive(Debug, Default)]
pub(super) struct TokenCache(Mutex<Entries>);

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By digest, with the monotonic time of the look-up. Only valid tokens: guessed ones fill nothing.
    holders: HashMap<[u8; 32], (TokenHolder, Duration)>,
    /// Tokens whose use is being recorded, so that many concurrent requests record it once.
    pub(super) being_recorded: HashSet<TokenId>,
}

impl TokenCache {
    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, digest: &[u8; 32], now: Duration) -> Option<TokenHolder> {
        let known = self.lock();
        let (holder, read_at) = known.holders.get(digest)?;
        (now.saturating_sub(*read_at) < CACHED_FOR).then(|| holder.clone())
    }

    pub(super) fn remember(&self, digest: [u8; 32], holder: TokenHolder, read_at: Duration) {
        let mut known = self.lock();
        if known.holders.len() >= CACHED_MAX {
            known
                .holders
                .retain(|_, (_, at)| read_at.saturating_sub(*at) < CACHED_FOR);
        }
        if known.holders.len() < CACHED_MAX {
            known.holders.insert(digest, (holder, read_at));
        }
    }

    pub(super) fn forget(&self, id: TokenId) {
        self.lock().holders.retain(|_, (holder, _)| holder.token_id != id);
    }
}
