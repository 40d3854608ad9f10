//! What options come to that were not given: those whose default follows from others.

use super::{DatabaseOptions, METRICS_LISTEN, ServeOptions, collector::OTLP_VARIABLE};

/// The value of an option that was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The option's id on the command line.
    pub id: &'static str,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub source: &'static str,
}

/// Every option whose default follows from others. `key_file` is where the master keys of the database are by default.
#[must_use]
pub fn derived(serve: &ServeOptions, database: &DatabaseOptions, key_file: Option<String>) -> Vec<Derived> {
    let of = |id, value: String, source| Derived { id, value, source };
    let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(",");
    let schedule = serve.engine.retry_policy().schedule;
    let delays = list(&mut schedule.iter().map(|delay| delay.as_secs().to_string()));
    let peer = if serve.trusted_proxies.is_empty() {
        "default"
    } else {
        "--trusted-proxy"
    };
    let mut found = vec![
        of(
            "connections_per_peer_max",
            serve.connections_per_peer_max().to_string(),
            peer,
        ),
        of("metrics_listen", METRICS_LISTEN.to_string(), "default, if it is free"),
        of("retry_schedule_s", delays, "default"),
        of("allowed_ports", "all".to_owned(), "default"),
    ];
    if serve.dev {
        let networks = list(&mut ServeOptions::loopback().iter().map(ToString::to_string));
        found.push(of("allow_http", true.to_string(), "--dev"));
        found.push(of("allowed_networks", networks, "--dev"));
    }
    if database.is_sqlite() || serve.dev {
        found.push(of(
            "bootstrap",
            true.to_string(),
            if serve.dev { "--dev" } else { "SQLite" },
        ));
    }
    if let (None, Ok(Some(collector))) = (&serve.otlp_endpoint, serve.collector()) {
        found.push(of("otlp_endpoint", collector.to_string(), OTLP_VARIABLE));
    }
    found.extend(key_file.map(|path| of("master_key_file", path, "default")));
    found
}
