//! The log, on standard error: for people, or one JSON object a line. Beside it, traces for a collector, where one is
//! named.
//!
//! A line says which request or which attempt it is of: both are spans, whose fields stand beside the line's own.

pub mod otlp;
pub mod spans;

use std::io::{IsTerminal as _, stderr};

use json_subscriber::JsonLayer;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, time::SystemTime},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, LogOptions};

/// Starts the log of this process. A second start changes nothing.
pub fn start(options: &LogOptions) {
    let lines = match options.format {
        LogFormat::Human => fmt::layer()
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr)
            .boxed(),
        LogFormat::Json => json().boxed(),
    };
    // The filter was judged with the other options.
    let filter = EnvFilter::try_new(&options.filter).unwrap_or_default();
    if let Err(cause) = Registry::default().with(lines.with_filter(filter)).try_init() {
        tracing::debug!(%cause, "the log had been started before");
    }
}

fn json() -> JsonLayer<Registry, fn() -> std::io::Stderr> {
    let mut layer = JsonLayer::stderr();
    layer.with_timer("timestamp", SystemTime);
    layer.with_level("level");
    layer.with_target("target");
    layer.with_flattened_event();
    layer.with_top_level_flattened_span_list();
    layer
}
