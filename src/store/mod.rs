//! All SQL. One file a noun; the organization is an argument of every function that touches a tenant's rows.
//!
//! | file | what it holds |
//! |---|---|
//! | [`database`] | opening a database, its pools, how a write begins |
//! | [`error`] | [`StoreError`] |
//! | `batch` | group commit: concurrent writes of one kind share one transaction |
//! | [`idempotency`] | requests that are done once, however often they are sent |
//! | [`quota`] | how many writes an organization has made in a month |
//! | [`organizations`], [`tokens`], [`webhooks`], [`events`], [`deliveries`] | what the API reads and writes |
//! | [`audit`] | who changed a webhook, and how |
//! | [`claim`], [`queue`], [`finish`] | what the delivery engine claims, and how it records what came of it |
//! | [`copy`] | from SQLite to PostgreSQL, with every row |
//! | [`retention`] | deleting what is older than the operator keeps |
//! | [`backlog`], [`checks`] | what `/metrics` and `doctor` ask |
//! | [`keys`] | where the master keys of secrets at rest come from |
//! | [`secrets`] | sealing and opening secrets, and sealing them anew under another master key |
//! | [`nodes`] | which nodes are alive, and what happens to the leases of a dead one |
//! | [`replay`] | many deliveries again |
//! | `health` | the health of webhooks, as their rows keep it |
//! | `entity` | the tables as sea-orm models |

pub mod audit;
pub mod backlog;
mod batch;
pub mod checks;
pub mod claim;
pub mod copy;
pub mod database;
pub mod deliveries;
mod entity;
pub mod error;
pub mod events;
pub mod finish;
mod health;
pub mod idempotency;
pub mod keys;
pub mod nodes;
pub mod organizations;
pub mod queue;
pub mod quota;
pub mod replay;
pub mod retention;
pub mod secrets;
pub mod tokens;
pub mod webhooks;

pub use database::Database;
pub use error::StoreError;
