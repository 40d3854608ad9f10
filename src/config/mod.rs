//! Every limit and option, named with its unit. Each has a flag and an environment variable; the doc comment is its
//! help text.

mod bounds;
mod collector;
mod derived;
mod faults;
mod http;
mod log;
pub mod postgres_url;
mod values;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Url;

pub use bounds::TimeBounds;
pub use derived::{Derived, derived};
pub use faults::{database_faults, serve_faults};
pub use http::HttpOptions;
pub(crate) use http::parse_public_url;
pub use log::{LogAttempts, LogFormat, LogOptions};
pub use values::listen_address;

use crate::{
    domain::{address::AddressPolicy, destination::DestinationPolicy, retry::RetryPolicy, token::Token},
    machine,
};

/// Where the data is.
#[derive(Args, Clone)]
pub struct DatabaseOptions {
    /// Database: `sqlite://FILE` (created by `serve` and `migrate` if missing) or `postgres://USER@HOST/NAME`. Of several
    /// hosts (`HOST1,HOST2`), the first one that accepts writes is used.
    #[arg(
        id = "database_url",
        long = "database-url",
        env = "KALLIMA_DATABASE_URL",
        value_name = "DATABASE_URL",
        hide_env_values = true,
        default_value = Self::DEFAULT_URL,
        global = true,
        help_heading = "Database"
    )]
    pub url: String,

    /// Maximum number of connections to PostgreSQL: one each for the heartbeat and for publishing, the others for requests and
    /// deliveries (SQLite has one writer and a few readers).
    #[arg(
        id = "database_connections_max",
        long = "database-connections-max",
        env = "KALLIMA_DATABASE_CONNECTIONS_MAX",
        value_name = "DATABASE_CONNECTIONS_MAX",
        default_value_t = CONNECTIONS_MAX,
        value_parser = clap::value_parser!(u32).range(4..=1000),
        global = true,
        help_heading = "Database"
    )]
    pub connections_max: u32,

    /// How long `serve` and `migrate` wait for a PostgreSQL that is still starting. A refusal (wrong password, no such
    /// database) is an error at once.
    #[arg(
        id = "database_wait_s",
        long = "database-wait-s",
        env = "KALLIMA_DATABASE_WAIT_S",
        value_name = "DATABASE_WAIT_S",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=3600),
        global = true,
        help_heading = "Database"
    )]
    pub wait_s: u64,

    /// Statement timeout on PostgreSQL; waiting for a lock, and idling in a transaction, end after half of it. 0 leaves these
    /// and all other connection settings to the server, as PgBouncer requires.
    #[arg(
        id = "statement_timeout_ms",
        long = "statement-timeout-ms",
        env = "KALLIMA_STATEMENT_TIMEOUT_MS",
        value_name = "STATEMENT_TIMEOUT_MS",
        default_value_t = STATEMENT_TIMEOUT_MS,
        value_parser = clap::value_parser!(u64).range(..=3_600_000),
        global = true,
        help_heading = "Database"
    )]
    pub statement_timeout_ms: u64,

    /// Master keys that signing secrets are encrypted with at rest, as `ID:BASE64,…`: the first one encrypts, all decrypt.
    #[arg(
        long,
        env = "KALLIMA_MASTER_KEY",
        hide_env_values = true,
        conflicts_with = "master_key_file",
        global = true,
        help_heading = "Database"
    )]
    pub master_key: Option<String>,

    /// File with the master keys (default with SQLite: the database's name plus `.key`, created with the database).
    #[arg(
        long,
        env = "KALLIMA_MASTER_KEY_FILE",
        value_name = "FILE",
        global = true,
        help_heading = "Database"
    )]
    pub master_key_file: Option<PathBuf>,
}

impl DatabaseOptions {
    /// The database that is used where no other is named.
    pub const DEFAULT_URL: &'static str = "sqlite://kallima-webhooks.db";

    /// A database with this URL, and defaults for everything else.
    #[must_use]
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: CONNECTIONS_MAX,
            wait_s: 0,
            statement_timeout_ms: STATEMENT_TIMEOUT_MS,
            master_key: None,
            master_key_file: None,
        }
    }

    /// Whether the URL names SQLite.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// Whether the URL names PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres:") || self.url.starts_with("postgresql:")
    }
}

impl std::fmt::Debug for DatabaseOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the URL, which may contain a password, nor the key may reach a log.
        formatter
            .debug_struct("DatabaseOptions")
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}

/// Default of `--database-connections-max`.
const CONNECTIONS_MAX: u32 = 10;

/// Default statement timeout on PostgreSQL: our slowest statement, a batch of retention on a cold cache, takes a tenth of
/// it.
const STATEMENT_TIMEOUT_MS: u64 = 10_000;

/// Default limit of open connections per peer if no proxy is trusted: more than browsers and connection pools open, and a
/// sixteenth of all.
const CONNECTIONS_PER_PEER_MAX: u32 = 256;

/// Where `/metrics` is served by default: the port that is registered for exporters of this kind.
pub const METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Where `/metrics` is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsListen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for MetricsListen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        listen_address(text).map(Self::At)
    }
}

/// How to serve.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ServeOptions {
    /// Address to accept API connections on.
    #[arg(long, env = "KALLIMA_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen_address, help_heading = "API")]
    pub listen: SocketAddr,

    /// Trust the `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto` of proxies in this network (CIDR; may be
    /// repeated).
    #[arg(
        long = "trusted-proxy",
        env = "KALLIMA_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "API"
    )]
    pub trusted_proxies: Vec<IpNet>,

    #[command(flatten)]
    /// Limits of connections and requests, and which web pages may use the API.
    pub http: HttpOptions,

    /// Address to serve `/metrics` on, or `off` (default: 127.0.0.1:9464, unless something else listens there).
    #[arg(
        long,
        env = "KALLIMA_METRICS_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Metrics and traces"
    )]
    pub metrics_listen: Option<MetricsListen>,

    /// OpenTelemetry collector to export traces to, over OTLP/HTTP, such as `http://localhost:4318` (default: none).
    #[arg(
        long,
        env = "KALLIMA_OTLP_ENDPOINT",
        value_name = "URL",
        value_parser = collector::parse,
        help_heading = "Metrics and traces"
    )]
    pub otlp_endpoint: Option<Url>,

    /// Which events and attempts are logged one by one at `info`: failures, with one line per minute that counts the others,
    /// or all of them.
    #[arg(
        long,
        env = "KALLIMA_LOG_ATTEMPTS",
        value_enum,
        default_value = "summary",
        help_heading = "Log"
    )]
    pub log_attempts: LogAttempts,

    /// For development: allow http, and receivers on this machine (127.0.0.0/8 and `::1`).
    #[arg(long, env = "KALLIMA_DEV", value_parser = values::switch)]
    pub dev: bool,

    /// Start without the example data that a new `--dev` database gets, and without the inbox that receives its deliveries.
    #[arg(long, env = "KALLIMA_NO_EXAMPLES", value_parser = values::switch)]
    pub no_examples: bool,

    /// With `--dev`: the token of the first organization, instead of a generated one that is printed once.
    #[arg(long, env = "KALLIMA_DEV_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = parse_token)]
    pub dev_token: Option<Token>,

    /// On PostgreSQL: create the first organization in an empty database, and print a token for it. SQLite and `--dev` always
    /// do.
    #[arg(long, env = "KALLIMA_BOOTSTRAP", value_parser = values::switch)]
    pub bootstrap: bool,

    /// Allow http for webhooks, not only https.
    #[arg(long, env = "KALLIMA_ALLOW_HTTP", value_parser = values::switch, help_heading = "Destinations")]
    pub allow_http: bool,

    /// Allow deliveries to this network although it is not public (CIDR; may be repeated).
    #[arg(
        long = "allow-network",
        env = "KALLIMA_ALLOW_NETWORK",
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "Destinations"
    )]
    pub allowed_networks: Vec<IpNet>,

    /// Forbid deliveries to this network although it is public, or part of an allowed one (CIDR; may be repeated).
    #[arg(
        long = "deny-network",
        env = "KALLIMA_DENY_NETWORK",
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "Destinations"
    )]
    pub denied_networks: Vec<IpNet>,

    /// Allow deliveries only to this port (may be repeated; default: all ports).
    #[arg(
        long = "allow-port",
        env = "KALLIMA_ALLOW_PORT",
        value_name = "PORT",
        value_delimiter = ',',
        help_heading = "Destinations"
    )]
    pub allowed_ports: Vec<u16>,

    /// PEM file of certificate authorities to trust for deliveries and traces, in addition to the public ones.
    #[arg(
        long,
        env = "KALLIMA_TLS_CA_FILE",
        value_name = "FILE",
        help_heading = "Destinations"
    )]
    pub tls_ca_file: Option<PathBuf>,

    /// How long `/readyz` reports not ready before the server stops accepting requests, so that load balancers notice.
    #[arg(long, env = "KALLIMA_SHUTDOWN_DELAY_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=300_000), help_heading = "API")]
    pub shutdown_delay_ms: u64,

    /// How long events, deliveries and attempts are kept; 0 means forever. Pending deliveries stay, however old.
    #[arg(long, env = "KALLIMA_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=36_500), help_heading = "Retention")]
    pub retention_days: u64,

    /// Accept the time although it has jumped by more than a day since the server last ran, so that retention resumes
    /// deleting. Give it once, after a long downtime.
    #[arg(long, env = "KALLIMA_ACCEPT_CLOCK_JUMP", value_parser = values::switch, help_heading = "Retention")]
    pub accept_clock_jump: bool,

    /// Print every option with its value and the value's source, without secrets, and exit.
    #[arg(long)]
    pub print_config: bool,

    #[command(flatten)]
    /// The delivery engine's limits.
    pub engine: EngineOptions,
}

/// The delivery engine's limits.
#[derive(Args, Clone, Debug)]
pub struct EngineOptions {
    /// Deadline of one attempt: name resolution, connection, TLS, and the response to its last byte.
    #[arg(long, env = "KALLIMA_ATTEMPT_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..=ATTEMPT_TIMEOUT_MAX_MS), help_heading = "Deliveries")]
    pub attempt_timeout_ms: u64,

    /// Maximum number of attempts in progress on this node, plus an eighth for organizations that have less than their fair
    /// share.
    #[arg(long, env = "KALLIMA_ATTEMPTS_MAX", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Deliveries")]
    pub attempts_max: u32,

    /// Maximum number of attempts in progress for one webhook, across all nodes.
    #[arg(long, env = "KALLIMA_ATTEMPTS_PER_WEBHOOK_MAX", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000), help_heading = "Deliveries")]
    pub attempts_per_webhook_max: u64,

    /// How often a node looks for due work that it does not know of, such as what another node left.
    #[arg(long, env = "KALLIMA_POLL_INTERVAL_MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000), help_heading = "Deliveries")]
    pub poll_interval_ms: u64,

    /// Delays in seconds after attempt 1, 2, … (default: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h).
    #[arg(
        long = "retry-schedule-s",
        env = "KALLIMA_RETRY_SCHEDULE_S",
        value_name = "SECONDS,…",
        value_delimiter = ',',
        help_heading = "Deliveries"
    )]
    pub retry_schedule_s: Vec<u64>,

    /// Whether a webhook that keeps failing is held back. Not an option of `serve`: only a sandbox can switch it off.
    #[arg(skip = true)]
    pub has_breaker: bool,
}

/// How many deliveries one claim takes at most.
pub const CLAIM_BATCH_MAX: u64 = 128;

/// How much longer than an attempt's deadline its lease lasts when the attempt starts: time to record the outcome.
const RECORD_MARGIN: Duration = Duration::from_secs(5);

/// How long a leased delivery may wait in its lane before its lease has to be renewed.
const WAIT_MARGIN: Duration = Duration::from_secs(10);

/// The longest attempt deadline that can be configured, in milliseconds.
const ATTEMPT_TIMEOUT_MAX_MS: u64 = 120_000;

impl EngineOptions {
    /// Deadline of one attempt.
    #[must_use]
    pub fn attempt_timeout(&self) -> Duration {
        Duration::from_millis(self.attempt_timeout_ms)
    }

    /// How long a leased delivery belongs to its holder.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease_needed() + WAIT_MARGIN
    }

    /// How much of its lease an attempt needs when it starts.
    #[must_use]
    pub fn lease_needed(&self) -> Duration {
        self.attempt_timeout() + RECORD_MARGIN
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

/// Reads a token of the command line.
pub fn parse_token(text: &str) -> Result<Token, &'static str> {
    Token::parse(text).ok_or("must be ab_ and 48 letters and digits")
}

impl ServeOptions {
    /// Maximum number of open connections per peer; 0 means no limit. Behind a proxy, all clients share one peer.
    #[must_use]
    pub fn connections_per_peer_max(&self) -> usize {
        let usual = if self.trusted_proxies.is_empty() {
            CONNECTIONS_PER_PEER_MAX
        } else {
            0
        };
        let most = self.http.connections_per_peer_max.unwrap_or(usual);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// How long the server reports that it is not ready before it stops accepting requests.
    #[must_use]
    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_millis(self.shutdown_delay_ms)
    }

    /// How long events, deliveries and attempts are kept; `None` means forever.
    #[must_use]
    pub fn retention(&self) -> Option<Duration> {
        (self.retention_days > 0).then(|| Duration::from_hours(24 * self.retention_days))
    }

    /// This machine, as `--dev` allows deliveries to it.
    fn loopback() -> [IpNet; 2] {
        [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        ]
    }

    /// Which URLs and addresses deliveries may go to.
    #[must_use]
    pub fn destinations(&self) -> DestinationPolicy {
        let mut networks = self.allowed_networks.clone();
        if self.dev {
            networks.extend(Self::loopback());
        }
        // A delivery to the API itself would let a customer make requests from the operator's own address.
        let metrics = match self.metrics_listen {
            Some(MetricsListen::At(address)) => Some(address.ip()),
            Some(MetricsListen::Off) | None => None,
        };
        let (every, own): (Vec<_>, Vec<_>) = [Some(self.listen.ip()), metrics]
            .into_iter()
            .flatten()
            .partition(IpAddr::is_unspecified);
        let mut addresses = AddressPolicy::new(networks, own).denying(self.denied_networks.clone());
        if !every.is_empty() {
            addresses = addresses.refusing_own(machine::is_own);
        }
        DestinationPolicy {
            allow_http: self.allow_http || self.dev,
            addresses,
            allowed_ports: (!self.allowed_ports.is_empty()).then(|| self.allowed_ports.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        serve: ServeOptions,
    }

    #[test]
    fn behind_a_proxy_connections_are_not_counted_by_peer_unless_that_is_asked_for() {
        let per_peer = |arguments: &[&str]| {
            let arguments = [&["serve"], arguments].concat();
            Arguments::parse_from(arguments).serve.connections_per_peer_max()
        };
        let proxy = ["--trusted-proxy", "10.0.0.0/8"];
        let limit = ["--connections-per-peer-max", "7"];
        assert_eq!(per_peer(&[]), 256);
        assert_eq!(per_peer(&proxy), 0);
        assert_eq!(per_peer(&[proxy, limit].concat()), 7);
        assert_eq!(per_peer(&["--connections-per-peer-max", "0"]), 0);
    }
}
