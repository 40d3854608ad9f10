//! The tables as sea-orm models, private to the store so that no query can forget the organization.
//!
//! Times are milliseconds since the Unix epoch. The `column_type` of a text column states its limit, which a
//! contract test holds against `maxLength` in `openapi.yaml`.
#![expect(unreachable_pub, reason = "the derives of sea-orm want their models public")]

pub mod attempt;
pub mod audit_entry;
pub mod delivery;
pub mod event;
pub mod idempotency_key;
pub mod organization;
pub mod queued;
pub mod token;
pub mod webhook;
