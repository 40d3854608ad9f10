//! The log, on standard error: for people, or one JSON object a line. Beside it, traces for a collector, where one is
//! named.
//!
//! A line says which request or which attempt it is of: both are spans, whose fields stand beside the line's own.

pub mod log;
pub mod otlp;
pub mod spans;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{IsTerminal as _, stderr},
    panic,
};

use json_subscriber::JsonLayer;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, time::SystemTime},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use self::log::Log;
use crate::config::{LogFormat, LogOptions};

/// Starts the log of this process; panics are lines of it from then on. A second start changes nothing. [`log::flush`]
/// must be called before the process ends.
pub fn start(options: &LogOptions) {
    let lines = match options.format {
        LogFormat::Human => fmt::layer()
            .with_ansi(stderr().is_terminal())
            .with_writer(log::standard_error())
            .boxed(),
        LogFormat::Json => json().boxed(),
    };
    // The filter was judged with the other options.
    let filter = EnvFilter::try_new(&options.filter).unwrap_or_default();
    if let Err(cause) = Registry::default().with(lines.with_filter(filter)).try_init() {
        tracing::debug!(%cause, "the log had been started before");
        return;
    }
    // The usual hook writes to standard error, and waits for whoever reads it.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let cause = panic.payload_as_str().unwrap_or("no message");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(place, cause, %backtrace, "panicked");
        } else {
            tracing::error!(place, cause, "panicked");
        }
    }));
}

fn json() -> JsonLayer<Registry, Log> {
    let mut layer = JsonLayer::new(log::standard_error());
    layer.with_timer("timestamp", SystemTime);
    layer.with_level("level");
    layer.with_target("target");
    layer.with_flattened_event();
    layer.with_top_level_flattened_span_list();
    layer
}
