//! Writes that are done once, however often they are sent: the types that idempotency and the writes share.

use std::{fmt, sync::Arc};

use crate::domain::{
    event::{Publication, Recorded},
    id::OrganizationId,
    idempotency_key::IdempotencyKey,
};

/// A request, as its key identifies it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The organization that owns the key.
    pub organization_id: OrganizationId,
    /// The key.
    pub key: IdempotencyKey,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
}

/// Builds the response to a write's result, in the form that is stored.
pub type Respond<T> = Arc<dyn Fn(&T) -> Option<Vec<u8>> + Send + Sync>;

/// A write whose response is stored under its key, in the write's own transaction: there can be no crash between the
/// two.
pub struct Keyed<T> {
    /// The request.
    pub request: Request,
    /// The response to the write's result; `None` if it was refused, so that the key stays free.
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

/// The result of a write that may have a key.
#[derive(Clone, Debug)]
pub enum Once<T> {
    /// It was done now.
    Now(T),
    /// It was done before, with this response.
    Before(Vec<u8>),
    /// The same request is in progress.
    Running,
    /// The key was used for another request.
    Mismatch,
}

/// A publication, with its request's idempotency key, if any.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The event.
    pub publication: Publication,
    /// Its idempotency key.
    pub key: Option<Keyed<Recorded>>,
}
