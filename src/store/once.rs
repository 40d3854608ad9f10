//! Writes that are done once, however often they are sent: the words that idempotency and the writes share.

use std::{fmt, sync::Arc};

use crate::domain::{
    event::{Publication, Recorded},
    id::OrganizationId,
    idempotency_key::IdempotencyKey,
};

/// A request as its key knows it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose key it is.
    pub organization_id: OrganizationId,
    /// The key.
    pub key: IdempotencyKey,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// Makes the response to what came of a write, as it is kept.
pub type Respond<T> = Arc<dyn Fn(&T) -> Option<Vec<u8>> + Send + Sync>;

/// A write whose response is kept under its key, in the write's own transaction: there is no crash between the two.
pub struct Keyed<T> {
    /// The request.
    pub request: Request,
    /// The response to what came of the write; `None` if it was refused, so that the key stays free.
    pub respond: Respond<T>,
}

impl<T> Clone for Keyed<T> {
    fn clone(&self) -> Self {
        Self {
            request: self.request.clone(),
            respond: Arc::clone(&self.respond),
        }
    }
}

impl<T> fmt::Debug for Keyed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Keyed").field(&self.request).finish()
    }
}

/// What came of a write that may have a key.
#[derive(Clone, Debug)]
pub enum Once<T> {
    /// It was done now.
    Now(T),
    /// It was done before, and this was the response.
    Before(Vec<u8>),
    /// The same request is under way.
    Running,
    /// The key was used for another request.
    Mismatch,
}

/// A publication, and the key that its request may have.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The event.
    pub publication: Publication,
    /// Its idempotency key.
    pub key: Option<Keyed<Recorded>>,
}
