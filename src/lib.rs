//! # Kallima Webhooks
//!
//! Customers register HTTPS endpoints, choose event types and rotate signing secrets; the service signs every event
//! and delivers it, at least once, whatever crashes. `openapi.yaml` is the source of truth of everything a client
//! sees.
//!
//! A module imports only from modules below it; a test reads the imports and fails when a floor is broken.
//!
//! ```text
//! main.rs, cli/    command line: serve (default), token, organization, migrate, listen
//! server/          accepting connections, starting and stopping everything in order, supervising what runs
//! scrape           /metrics, for Prometheus
//! api/             HTTP in: router, extractors, one file a resource
//! delivery/        HTTP out: lanes, claims, attempts
//! store/           all SQL: two doors, SQLite in process, PostgreSQL by pools
//! telemetry/       the log, and traces by OTLP
//! config/          every limit and option
//! contract/        openapi.yaml, embedded and read once
//! clock            the time
//! machine          this machine's addresses and routes
//! metrics          what is measured
//! faults           faults on purpose, in debug builds alone
//! domain/          facts and pure decisions: no I/O, no clock
//! ```
//!
//! `api` and `delivery` never import each other: the database is their interface. Two things pass beside it, handed in
//! by `server`: the lanes that take what is leased when it is published, and the function that makes one attempt now (for
//! tests and retries).

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod delivery;
pub mod domain;
#[cfg(debug_assertions)]
mod faults;
pub mod machine;
pub mod metrics;
pub mod scrape;
pub mod server;
pub mod store;
pub mod telemetry;
