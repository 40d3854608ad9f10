//! The log, on standard error: text for people, or one JSON object per line; and traces, if a collector is configured.
//!
//! A line names the request or the attempt that it belongs to: both are spans, whose fields are added to the line's own.

mod drops;
pub mod log;
pub mod otlp;
pub mod spans;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{IsTerminal as _, stderr},
    panic,
    sync::OnceLock,
};

use json_subscriber::JsonLayer;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, time::SystemTime},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

pub use self::drops::spans_dropped;
use self::log::Log;
pub use crate::config::LogAttempts;
use crate::{
    config::{LogFormat, LogOptions},
    domain::id::NodeId,
};

/// The id of this node, for log lines.
static INSTANCE: OnceLock<String> = OnceLock::new();

/// The name of this service in the log and in traces.
const SERVICE: &str = "kallima-webhooks";

/// Sets the id of this node: from now on each JSON log line carries it.
pub fn identify(node: NodeId) {
    drop(INSTANCE.set(node.to_string()));
}

/// Starts the log of this process, which includes panics from then on. A second call has no effect. Call [`log::flush`]
/// before the process ends.
pub fn start(options: &LogOptions) {
    let lines = match options.format {
        LogFormat::Human => fmt::layer()
            .with_ansi(stderr().is_terminal())
            .with_writer(log::standard_error())
            .boxed(),
        LogFormat::Json => json().boxed(),
    };
    // The filter was checked with the other options.
    let filter = EnvFilter::try_new(&options.filter).unwrap_or_default();
    if let Err(cause) = Registry::default().with(lines.with_filter(filter)).try_init() {
        tracing::debug!(exception.message = %cause, "log already started");
        return;
    }
    // The default hook writes to standard error, and blocks until somebody reads it.
    panic::set_hook(Box::new(|panic| {
        let location = panic.location();
        let file = location.map(panic::Location::file);
        let line = location.map(panic::Location::line);
        let cause = panic.payload_as_str().unwrap_or("no message");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(
                code.file.path = file, code.line.number = line, exception.message = cause,
                exception.stacktrace = %backtrace, "panicked"
            );
        } else {
            tracing::error!(
                code.file.path = file,
                code.line.number = line,
                exception.message = cause,
                "panicked"
            );
        }
    }));
}

fn json() -> JsonLayer<Registry, Log> {
    let mut layer = JsonLayer::new(log::standard_error());
    layer.with_timer("timestamp", SystemTime);
    layer.with_level("level");
    layer.with_target("target");
    layer.add_static_field("service.name", SERVICE.into());
    layer.add_dynamic_field("service.instance.id", |_, _| INSTANCE.get());
    layer.with_flattened_event();
    layer.with_top_level_flattened_span_list();
    layer
}
