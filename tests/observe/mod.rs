//! What an operator sees: metrics, logs, traces.

mod dashboard;
mod logs;
mod metrics;
mod otlp;
mod trace;
