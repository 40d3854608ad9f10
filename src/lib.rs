#![doc = include_str!("../docs/architecture.md")]

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
pub mod pages;
pub mod sandbox;
pub mod scrape;
pub mod server;
pub mod store;
pub mod telemetry;
