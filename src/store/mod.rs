//! All SQL. One file per noun; the organization is an argument of every function that touches a tenant's rows.
//!
//! All access goes through `Database::read` and `Database::write`; nothing else begins or commits a transaction.
//!
//! | file | what it holds |
//! |---|---|
//! | [`database`] | the open database with these two entry points; it knows no table |
//! | [`open`] | opening, migrating, the lock of an embedded database |
//! | `engine/` | SQLite in this process, PostgreSQL through pools, group commit on either |
//! | [`source`], [`error`] | where a database is, and failures between the store and it |
//! | `entity/` | the tables as sea-orm models with typed columns, private to the store |
//! | [`organizations`], [`tokens`], [`webhooks`], [`events`], [`deliveries`], [`audit`], [`quota`] | what the API reads and writes |
//! | [`examples`], [`sandbox`] | what a database for development begins with; what a sandbox does to its own |
//! | [`overview`] | what an operator asks about all organizations |
//! | [`page`] | how much a page of a list holds, and where the next one continues |
//! | `search` | which deliveries a list shows, in walks of bounded length |
//! | `shown` | a delivery with its queue entry, read by one statement |
//! | `token_cache` | the cache of recently used tokens |
//! | [`idempotency`], [`once`] | requests that are done once, however often they are sent |
//! | [`to_completion`] | work that continues after its caller has gone away |
//! | `webhook_batch` | changes to webhooks on PostgreSQL, many in two round trips |
//! | [`queue`] | what the delivery engine does: publish, claim, record, take over |
//! | [`readiness`] | why a node is not ready even though its database responds |
//! | [`secrets`] | sealing and opening secrets, and where the master keys come from |
//! | [`upkeep`] | background work: deletion, retention, copies, checks, the queries of `/metrics` |

pub mod audit;
pub mod database;
pub mod deliveries;
mod engine;
mod entity;
pub mod error;
pub mod events;
pub mod examples;
mod health;
pub mod idempotency;
pub mod once;
pub mod open;
pub mod organizations;
pub mod overview;
pub mod page;
#[cfg(test)]
mod plans;
pub mod queue;
pub mod quota;
pub mod readiness;
pub mod sandbox;
mod search;
pub mod secrets;
mod shown;
pub mod source;
pub mod to_completion;
mod token_cache;
pub mod tokens;
pub mod upkeep;
mod webhook_batch;
pub mod webhooks;

pub use database::Database;
pub use error::StoreError;
