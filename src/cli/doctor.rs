//! `doctor`: checks everything that serving needs, one line per check.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use url::{Host, Url};

use super::{
    CommandResult,
    certificate::{CertificateOptions, plain},
    outbound,
    report::{Found, Report},
    surroundings,
};
use crate::{
    clock::Clock,
    config::{DatabaseOptions, MetricsListen, listen_address},
    delivery::resolver::Resolver,
    domain::timestamp::Timestamp,
    store::{Database, secrets::check, upkeep::checks},
};

/// The oldest PostgreSQL that is still maintained, as its `server_version_num`.
const POSTGRES_VERSION_MIN: i32 = 140_000;

/// How far this machine's clock may be from the database's: nodes compare their leases, and each lease is five seconds
/// longer than the attempt it is for.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(super) struct DoctorOptions {
    /// A receiver to test the network with: its name is resolved and a TLS connection is made. No request is sent.
    #[arg(long, default_value = "https://example.com/", value_parser = https)]
    url: Url,

    /// PEM file of certificate authorities to trust, besides the public ones.
    #[arg(long, env = "KALLIMA_TLS_CA_FILE", value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// The address on which the API is, or will be, served.
    #[arg(long, env = "KALLIMA_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen_address)]
    listen: SocketAddr,

    /// The address on which `/metrics` is, or will be, served, or `off`.
    #[arg(
        long,
        env = "KALLIMA_METRICS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9464"
    )]
    metrics_listen: MetricsListen,

    #[command(flatten)]
    certificate: CertificateOptions,

    /// How long each check may take.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    check_timeout_ms: u64,
}

fn https(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|cause| cause.to_string())?;
    if url.scheme() == "https" && url.host().is_some() {
        Ok(url)
    } else {
        Err("must be an https URL".to_owned())
    }
}

/// Runs every check. Fails if one did.
pub(super) async fn run(options: DoctorOptions, database: &DatabaseOptions, clock: &Clock) -> CommandResult {
    let mut report = Report::new(Duration::from_millis(options.check_timeout_ms));
    check_database(&mut report, database, clock).await;
    if let Some(written) = checks::try_disk(database) {
        let found = written.map(|()| "a file next to the database could be written".to_owned());
        report.tell("disk", &found.map_err(Into::into));
    }
    if let Some(found) = options.certificate.check(clock.wall()) {
        report.tell("certificate", &found);
    }
    let is_tls = options.certificate.is_tls();
    surroundings::check(&mut report, options.listen, is_tls, options.metrics_listen).await;
    check_way_out(&mut report, &options).await;
    report.conclude()
}

async fn check_database(report: &mut Report, options: &DatabaseOptions, clock: &Clock) {
    // Opening would create them, and a doctor changes nothing.
    if let Some(path) = checks::missing_files(options).first() {
        report.tell("database", &Err(format!("there is no file {}", path.display()).into()));
        return;
    }
    let mut opened = None;
    let found = report.check("database", async {
        let db = Database::open_existing(options, clock).await?;
        let answer = if db.takes_writes().await? {
            Ok(format!("{} answers and accepts writes", engine(options)))
        } else {
            Err(format!("{} answers, but does not accept writes", engine(options)))
        };
        opened = Some(db);
        Ok(answer?)
    });
    found.await;
    let Some(db) = opened else { return };
    if options.is_postgres() {
        let connection = async { Ok(db.describe_connection().await?.unwrap_or_default()) };
        report.check("connection", connection).await;
    }
    report
        .check("migrations", async {
            if db.has_every_migration().await? {
                Ok("all migrations are applied".to_owned())
            } else {
                Err("some are missing; `migrate` applies them".into())
            }
        })
        .await;
    report
        .check("master key", async {
            if let Some(fault) = check::check(&db).await? {
                return Err(fault.into());
            }
            Ok(match checks::open_secrets(&db).await? {
                0 => "can be read; there is no secret to decrypt yet".to_owned(),
                _ => "decrypts the stored secrets".to_owned(),
            })
        })
        .await;
    report.check("clock", check_clock(&db, clock)).await;
    check_settings(report, &db, options).await;
}

/// PostgreSQL's version, its autovacuum, and whether it accepts the connections of every node.
async fn check_settings(report: &mut Report, db: &Database, options: &DatabaseOptions) {
    if !options.is_postgres() {
        return;
    }
    let asked = tokio::time::timeout(report.deadline(), checks::server_settings(db)).await;
    let settings = match asked {
        Ok(Ok(Some(settings))) => settings,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            report.tell("settings", &Err(error.into()));
            return;
        }
        Err(_) => {
            report.tell("settings", &Err("the database did not answer in time".into()));
            return;
        }
    };
    let (version, wanted) = (&settings.version, POSTGRES_VERSION_MIN / 10_000);
    let found = if settings.version_number >= POSTGRES_VERSION_MIN {
        Ok(format!("PostgreSQL {version}"))
    } else {
        Err(format!("PostgreSQL {version} is too old: use {wanted} or newer").into())
    };
    report.tell("version", &found);
    let found = if settings.autovacuum {
        Ok("is on".to_owned())
    } else {
        Err("is off: set autovacuum = on and track_counts = on, or the queue keeps getting slower".into())
    };
    report.tell("autovacuum", &found);
    let (nodes, each, max) = (settings.nodes.max(1), options.connections_max, settings.connections_max);
    let needed = nodes * i64::from(each);
    let found = if needed <= max {
        Ok(format!(
            "{nodes} nodes × {each} = {needed}, of {max} that PostgreSQL takes"
        ))
    } else {
        let advice = "raise max_connections there, or lower --database-connections-max";
        Err(
            format!("{nodes} nodes × {each} = {needed} is more than the {max} that PostgreSQL accepts: {advice}")
                .into(),
        )
    };
    report.tell("connections", &found);
}

fn engine(options: &DatabaseOptions) -> &'static str {
    if options.is_postgres() { "PostgreSQL" } else { "SQLite" }
}

async fn check_clock(db: &Database, clock: &Clock) -> Found {
    let before = clock.wall();
    let Some(theirs) = checks::server_time(db).await? else {
        return Ok("SQLite uses this machine's clock".to_owned());
    };
    let after = clock.wall();
    let skew = skew(before, theirs, after);
    let said = format!(
        "{} ms off the database's (limit {} ms)",
        skew.as_millis(),
        CLOCK_SKEW_MAX.as_millis()
    );
    if skew <= CLOCK_SKEW_MAX {
        Ok(said)
    } else {
        Err(said.into())
    }
}

/// How far off a clock is that read `theirs` at some time between our `before` and `after`. When exactly is unknown, so
/// that interval is not counted.
fn skew(before: Timestamp, theirs: Timestamp, after: Timestamp) -> Duration {
    before.since(theirs).max(theirs.since(after))
}

async fn check_way_out(report: &mut Report, options: &DoctorOptions) {
    let resolver = Resolver::system();
    let found = match options.url.host() {
        Some(Host::Domain(name)) => report.check("dns", resolve(&resolver, name)).await,
        _ => report.tell(
            "dns",
            &Ok("the URL has an address, so there is no name to resolve".to_owned()),
        ),
    };
    if !found {
        report.tell("tls", &Err("not tried: the name did not resolve".into()));
        return;
    }
    report
        .check("tls", async {
            let timeout = Duration::from_millis(options.check_timeout_ms);
            let sender = outbound::sender(resolver, timeout, options.tls_ca_file.as_deref())?;
            match sender.connect(&options.url).await {
                Ok(()) => Ok(format!(
                    "connected to {}, whose certificate is trusted",
                    host(&options.url)
                )),
                Err(cause) => Err(format!("no TLS connection to {}: {}", host(&options.url), plain(&cause)).into()),
            }
        })
        .await;
}

async fn resolve(resolver: &Resolver, name: &str) -> Found {
    let addresses: Vec<IpAddr> = resolver
        .look_up(name)
        .await
        .map_err(|cause| format!("{name} does not resolve: {cause}"))?;
    match addresses.first() {
        Some(first) => Ok(format!("{name} resolves to {first}")),
        None => Err(format!("{name} has no address").into()),
    }
}

fn host(url: &Url) -> impl fmt::Display + '_ {
    url.host_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_the_question_cannot_explain() {
        let at = Timestamp::from_millis;
        for (theirs, expected) in [(100, 0), (150, 0), (200, 0), (90, 10), (5200, 5000)] {
            assert_eq!(
                skew(at(100), at(theirs), at(200)),
                Duration::from_millis(expected),
                "{theirs}"
            );
        }
    }
}
