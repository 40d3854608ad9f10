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
//! server           accepting connections, starting and stopping everything in order
//! scrape           /metrics, for Prometheus
//! api/             HTTP in: router, extractors, one file a resource
//! delivery/        HTTP out: claim, attempt, finish
//! store/           all SQL
//! telemetry/       the log, and traces by OTLP
//! config           every limit and option
//! contract         openapi.yaml, embedded and read once
//! clock            the time
//! metrics          what is measured
//! domain/          facts and pure decisions: no I/O, no clock
//! ```
//!
//! `api` and `delivery` never import each other: the database is their interface. Two things pass beside it, handed in
//! by `server`: a hint that new work is due, and the function that makes one attempt now (for tests and retries).

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod delivery;
pub mod domain;
pub mod metrics;
pub mod scrape;
pub mod server;
pub mod store;
pub mod telemetry;
