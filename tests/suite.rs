//! The test suite, one binary. A module is named after the operation, or the promise, that it tests.
//!
//! `support::validate` validates every response that a test sees against openapi.yaml, and every delivery that a test's
//! receiver gets against its `webhooks` section: each test is a contract test, too.
//!
//! With `TEST_DATABASE_URL=postgres://…` every test gets a database of its own there; without it, an SQLite file.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod campaign;
mod contract;
mod delivery;
mod disk;
mod docs;
mod fuzz;
mod hostile;
mod observe;
mod process;
mod promises;
mod recipes;
mod retention;
mod simulation;
mod support;
mod tidy;
