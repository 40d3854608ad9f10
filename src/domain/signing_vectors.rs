//! Known answers for authors of receivers: signatures that must be accepted, and requests that must be refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::domain::verification::Reason;

/// The vectors as JSON, computed independently of this code, as they are served at `/signing-vectors.json`.
pub const SIGNING_VECTORS: &str = include_str!("../../tests/signing-vectors.json");

/// What a receiver's verification can be tried on.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningVectors {
    /// Signatures that must be accepted.
    pub known_answers: Vec<KnownAnswer>,
    /// Requests that must be refused, whichever signature is checked.
    pub refusals: Vec<RefusedRequest>,
}

/// What both schemes make of a body.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownAnswer {
    /// The webhook's secret.
    pub secret: String,
    /// When it was signed, in unix seconds.
    pub timestamp: i64,
    /// The event's id (`webhook-id`).
    pub id: String,
    /// The body.
    pub body: String,
    /// `Kallima-Signature`.
    pub kallima_signature: String,
    /// `webhook-signature`.
    pub webhook_signature: String,
}

/// A request that a receiver must refuse.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefusedRequest {
    /// Why, in a word.
    pub reason: Reason,
    /// Why, for people.
    pub description: String,
    /// The secret that the receiver has.
    pub secret: String,
    /// What the receiver's clock says, in unix seconds.
    pub now: i64,
    /// The headers as they arrive.
    pub headers: BTreeMap<String, String>,
    /// The body as it arrives.
    pub body: String,
}
