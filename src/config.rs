//! Every limit and option, named with its unit. Each has a flag and an environment variable; the doc comment is its
//! help text.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use ipnet::IpNet;

use crate::domain::{address::AddressPolicy, destination::DestinationPolicy, retry::RetryPolicy};

/// Where the data is.
#[derive(Args, Clone)]
pub struct DatabaseOptions {
    /// Database: `sqlite://FILE` (made where there is none) or `postgres://USER@HOST/NAME`.
    #[arg(
        id = "database_url",
        long = "database-url",
        env = "KALLIMA_DATABASE_URL",
        default_value = "sqlite://kallima-webhooks.db",
        global = true
    )]
    pub url: String,

    /// Connections to PostgreSQL at most (SQLite has one writer and a few readers).
    #[arg(
        id = "database_connections_max",
        long = "database-connections-max",
        env = "KALLIMA_DATABASE_CONNECTIONS_MAX",
        default_value_t = CONNECTIONS_MAX,
        global = true
    )]
    pub connections_max: u32,

    /// Master keys that signing secrets are encrypted with at rest, as `ID:BASE64,…`: the first one encrypts, all decrypt.
    #[arg(
        long,
        env = "KALLIMA_MASTER_KEY",
        hide_env_values = true,
        conflicts_with = "master_key_file",
        global = true
    )]
    pub master_key: Option<String>,

    /// File with the master keys (default with SQLite: the database's name and `.key`, made where there is none).
    #[arg(long, env = "KALLIMA_MASTER_KEY_FILE", value_name = "FILE", global = true)]
    pub master_key_file: Option<PathBuf>,
}

impl DatabaseOptions {
    /// A database of that URL, with everything else as it is by default.
    #[must_use]
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: CONNECTIONS_MAX,
            master_key: None,
            master_key_file: None,
        }
    }

    /// Whether the URL names PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres:") || self.url.starts_with("postgresql:")
    }
}

impl std::fmt::Debug for DatabaseOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the URL, which may hold a password, nor the key may reach a log.
        formatter
            .debug_struct("DatabaseOptions")
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// Connections to PostgreSQL at most, where nothing else is said.
const CONNECTIONS_MAX: u32 = 10;

/// How to serve.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Address to accept API connections on.
    #[arg(long, env = "KALLIMA_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// For development: allow http, and receivers on this machine (127.0.0.0/8 and `::1`).
    #[arg(long, env = "KALLIMA_DEV")]
    pub dev: bool,

    /// Let webhooks use http, not only https.
    #[arg(long, env = "KALLIMA_ALLOW_HTTP")]
    pub allow_http: bool,

    /// Let deliveries go to this network although it is not public (CIDR; may be repeated).
    #[arg(
        long = "allow-network",
        env = "KALLIMA_ALLOW_NETWORK",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub allowed_networks: Vec<IpNet>,

    /// Let deliveries go to these ports alone (may be repeated; all ports where it is not given).
    #[arg(
        long = "allow-port",
        env = "KALLIMA_ALLOW_PORT",
        value_name = "PORT",
        value_delimiter = ','
    )]
    pub allowed_ports: Vec<u16>,

    /// PEM file of certificate authorities to trust for deliveries, besides the public ones.
    #[arg(long, env = "KALLIMA_TLS_CA_FILE", value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,

    #[command(flatten)]
    /// The delivery engine's limits.
    pub engine: EngineOptions,
}

/// The delivery engine's limits.
#[derive(Args, Clone, Debug)]
pub struct EngineOptions {
    /// Deadline of one attempt: name resolution, connection, TLS and the answer to its last byte.
    #[arg(long, env = "KALLIMA_ATTEMPT_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..=120_000))]
    pub attempt_timeout_ms: u64,

    /// Attempts under way at once on this node, over all webhooks.
    #[arg(long, env = "KALLIMA_ATTEMPTS_MAX", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub attempts_max: u32,

    /// Attempts under way at once for one webhook, over all nodes.
    #[arg(long, env = "KALLIMA_ATTEMPTS_PER_WEBHOOK_MAX", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub attempts_per_webhook_max: u64,

    /// How often a node looks for due work that nobody told it of.
    #[arg(long, env = "KALLIMA_POLL_INTERVAL_MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub poll_interval_ms: u64,

    /// Delays in seconds after attempt 1, 2, … (default: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h).
    #[arg(
        long = "retry-schedule-s",
        env = "KALLIMA_RETRY_SCHEDULE_S",
        value_name = "SECONDS,…",
        value_delimiter = ','
    )]
    pub retry_schedule_s: Vec<u64>,
}

/// Deliveries that one claim takes at most.
pub const CLAIM_BATCH_MAX: u64 = 128;

/// How much longer than an attempt's deadline its lease lasts: time to record what came of it.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl EngineOptions {
    /// Deadline of one attempt.
    #[must_use]
    pub fn attempt_timeout(&self) -> Duration {
        Duration::from_millis(self.attempt_timeout_ms)
    }

    /// How long a claimed delivery belongs to its claimer.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.attempt_timeout() + LEASE_MARGIN
    }

    /// When to try again.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        let standard = RetryPolicy::default();
        if self.retry_schedule_s.is_empty() {
            return standard;
        }
        RetryPolicy {
            schedule: self.retry_schedule_s.iter().copied().map(Duration::from_secs).collect(),
            ..standard
        }
    }
}

impl ServeOptions {
    /// Which URLs and addresses deliveries may go to.
    #[must_use]
    pub fn destinations(&self) -> DestinationPolicy {
        let mut networks = self.allowed_networks.clone();
        if self.dev {
            networks.push(IpNet::V4(ipnet::Ipv4Net::new_assert(
                std::net::Ipv4Addr::new(127, 0, 0, 0),
                8,
            )));
            networks.push(IpNet::V6(ipnet::Ipv6Net::new_assert(
                std::net::Ipv6Addr::LOCALHOST,
                128,
            )));
        }
        // A delivery to the API itself would let a customer speak with the operator's voice.
        let own = Some(self.listen.ip())
            .filter(|address| !address.is_unspecified())
            .into_iter()
            .collect();
        DestinationPolicy {
            allow_http: self.allow_http || self.dev,
            addresses: AddressPolicy::new(networks, own),
            allowed_ports: (!self.allowed_ports.is_empty()).then(|| self.allowed_ports.clone()),
        }
    }
}
