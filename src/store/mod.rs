//! All SQL. One file a noun; the organization is an argument of every function that touches a tenant's rows.
//!
//! | file | what it holds |
//! |---|---|
//! | [`database`] | opening a database, its pools, how a write begins |
//! | [`error`] | [`StoreError`] |
//! | `batch` | group commit: concurrent writes of one kind share one transaction |
//! | [`organizations`], [`tokens`], [`webhooks`], [`events`], [`deliveries`] | what the API reads and writes |
//! | [`queue`], [`finish`] | what the delivery engine claims, and how it records what came of it |
//! | `keys` | where the master keys of secrets at rest come from |
//! | `entity` | the tables as sea-orm models |

mod batch;
pub mod database;
pub mod deliveries;
mod entity;
pub mod error;
pub mod events;
pub mod finish;
mod keys;
pub mod organizations;
pub mod queue;
pub mod tokens;
pub mod webhooks;

pub use database::Database;
pub use error::StoreError;
