//! How each PostgreSQL server is connected to: TLS, connection settings, and the application name that the server's
//! administrator sees.

use std::{fs::File, net::IpAddr, path::Path};

use sea_orm::sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use url::Url;

use crate::{
    config::{DatabaseOptions, postgres_url},
    domain::id::NodeId,
    store::source::OpenError,
};

/// A candidate server.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Its host name and port, for messages.
    pub(super) name: String,
    pub(super) connect: PgConnectOptions,
    /// Whether connections are set up by their startup parameters, which a pooler in between may refuse.
    takes_settings: bool,
}

/// When a connection plans its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plans {
    /// Each time, for the tables as they are. The queue is empty one moment and long the next: a plan made for the former
    /// would read all of it for each batch of the latter, until the table is analyzed.
    Fresh,
    /// Once. For publishing, where planning takes longer than the statement itself: the only table that it searches is
    /// that of the webhooks, always by organization, so no plan becomes a bad one as tables grow.
    Kept,
}

impl Plans {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Fresh => &[("plan_cache_mode", "force_custom_plan")],
            // A plan that was made while there were few webhooks must not read all of them when there are many.
            Self::Kept => &[("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")],
        }
    }
}

impl Host {
    /// How to connect to it.
    pub(super) fn connect_options(&self, plans: Plans) -> PgConnectOptions {
        let connect = self.connect.clone();
        if self.takes_settings {
            connect.options(plans.settings().iter().copied())
        } else {
            connect
        }
    }
}

/// The servers of the URL, in the order in which they are tried.
pub(super) fn hosts(options: &DatabaseOptions, node: NodeId) -> Result<Vec<Host>, OpenError> {
    let urls = postgres_url::hosts(&options.url).map_err(OpenError::Url)?;
    urls.iter().map(|url| host(url, options, node)).collect()
}

fn host(url: &Url, options: &DatabaseOptions, node: NodeId) -> Result<Host, OpenError> {
    let wanted = TlsSettings::of(url);
    readable(url)?;
    let connect = PgConnectOptions::from_url(url).map_err(|cause| OpenError::Url(cause.to_string()))?;
    let connect = with_settings(connect, options, node);
    // The driver would resolve an address in brackets as a host name.
    let bare = connect.get_host().trim_matches(['[', ']']).to_owned();
    let connect = connect.host(&bare);
    let mode = wanted.mode(&connect);
    let connect = connect.ssl_mode(mode);
    let name = match connect.get_socket() {
        Some(folder) => folder.display().to_string(),
        None if bare.contains(':') => format!("[{bare}]:{}", connect.get_port()),
        None => format!("{bare}:{}", connect.get_port()),
    };
    Ok(Host {
        name,
        connect,
        takes_settings: options.statement_timeout_ms > 0,
    })
}

/// What the URL and libpq's variables say about TLS.
#[derive(Clone, Copy, Debug, Default)]
struct TlsSettings {
    mode: bool,
    authority: bool,
    client_certificate: bool,
}

impl TlsSettings {
    fn of(url: &Url) -> Self {
        let given = |names: [&str; 3], variable: &str| {
            let is_named = url.query_pairs().any(|(name, _)| names.contains(&&*name));
            is_named || std::env::var_os(variable).is_some()
        };
        Self {
            mode: given(["sslmode", "ssl-mode", ""], "PGSSLMODE"),
            authority: given(["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
            client_certificate: given(["sslcert", "ssl-cert", ""], "PGSSLCERT"),
        }
    }

    /// Nothing is sent over a network in plaintext unless explicitly requested. As in libpq, sockets have no TLS, and a
    /// given certificate authority is used for verification.
    fn mode(self, connect: &PgConnectOptions) -> PgSslMode {
        if connect.get_socket().is_some() || connect.get_host().starts_with('/') {
            return PgSslMode::Disable;
        }
        let is_said = self.mode || self.authority || self.client_certificate;
        let mode = match connect.get_ssl_mode() {
            // TLS would protect nothing here, and cost time.
            _ if is_loopback(connect.get_host()) && !is_said => PgSslMode::Disable,
            mode @ (PgSslMode::Allow | PgSslMode::Prefer) if is_loopback(connect.get_host()) && self.mode => mode,
            PgSslMode::Allow | PgSslMode::Prefer => PgSslMode::Require,
            mode => mode,
        };
        match mode {
            PgSslMode::Require if self.authority => PgSslMode::VerifyCa,
            mode => mode,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Checks that the files named by the URL are readable; the first connection would report less.
fn readable(url: &Url) -> Result<(), OpenError> {
    const FILES: [&str; 7] = [
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
    ];
    for (parameter, value) in url.query_pairs() {
        // The URL may contain a certificate itself.
        if FILES.contains(&&*parameter) && !value.trim().starts_with("-----BEGIN") {
            let path = Path::new(&*value);
            File::open(path).map_err(|cause| OpenError::Certificate {
                parameter: parameter.to_string(),
                path: path.to_owned(),
                cause,
            })?;
        }
    }
    Ok(())
}

fn with_settings(connect: PgConnectOptions, options: &DatabaseOptions, node: NodeId) -> PgConnectOptions {
    // PgBouncer refuses unknown startup parameters, and this one changes nothing on PostgreSQL 12 and newer.
    let connect = connect.disable_statement_logging().extra_float_digits(None);
    let connect = match connect.get_application_name() {
        Some(_) => connect,
        None => connect.application_name(&format!("kallima-webhooks {node}")),
    };
    let timeout_ms = options.statement_timeout_ms;
    if timeout_ms == 0 {
        return connect;
    }
    let half = timeout_ms.div_ceil(2).to_string();
    connect.options([
        ("statement_timeout", timeout_ms.to_string()),
        ("lock_timeout", half.clone()),
        ("idle_in_transaction_session_timeout", half),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Vec<Host> {
        hosts(&DatabaseOptions::of(url), NodeId::NIL).unwrap()
    }

    #[test]
    fn only_loopback_is_plaintext_unless_requested() {
        use PgSslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.pem");
        File::create(&file).unwrap();
        let authority = format!("sslrootcert={}", file.display());
        for (host, parameters, expected) in [
            ("localhost", "", Disable),
            ("127.0.0.1:5433", "", Disable),
            ("[::1]", "", Disable),
            ("127.0.0.1", "sslmode=prefer", Prefer),
            ("127.0.0.1", "sslmode=allow", Allow),
            ("127.0.0.1", "sslmode=require", Require),
            ("127.0.0.1", authority.as_str(), VerifyCa),
            ("", "host=/run/postgresql&sslmode=require", Disable),
            ("db.example.com", "", Require),
            ("localhost.example.com", "", Require),
            ("10.0.0.1", "sslmode=prefer", Require),
            ("[fd00::1]", "sslmode=allow", Require),
            ("10.0.0.1", "sslmode=disable", Disable),
            ("10.0.0.1", authority.as_str(), VerifyCa),
            ("10.0.0.1", "sslmode=verify-ca", VerifyCa),
            ("10.0.0.1", "sslmode=verify-full", VerifyFull),
            ("127.0.0.1,10.0.0.1", "", Disable),
            ("10.0.0.1,127.0.0.1", "", Require),
        ] {
            let hosts = of(&format!("postgres://{host}/db?{parameters}"));
            let mode = hosts[0].connect.get_ssl_mode();
            assert_eq!(format!("{mode:?}"), format!("{expected:?}"), "{host} {parameters}");
        }
    }

    #[test]
    fn a_host_is_named_and_names_us() {
        let hosts = of("postgres://u@[fd00::1]:1,h2/db");
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["[fd00::1]:1", "h2:5432"]);
        let node = NodeId::NIL;
        let expected = format!("kallima-webhooks {node}");
        assert_eq!(hosts[0].connect.get_application_name(), Some(expected.as_str()));
        let own = of("postgres://u@h/db?application_name=mine");
        assert_eq!(own[0].connect.get_application_name(), Some("mine"));
    }

    #[test]
    fn only_publishing_keeps_its_plans_and_a_pooler_gets_no_settings() {
        let settings = |statement_timeout_ms, plans| {
            let options = DatabaseOptions {
                statement_timeout_ms,
                ..DatabaseOptions::of("postgres://u@h/db?sslmode=require")
            };
            let host = hosts(&options, NodeId::NIL).unwrap().remove(0);
            host.connect_options(plans).get_options().unwrap_or_default().to_owned()
        };
        assert!(settings(10_000, Plans::Fresh).ends_with("-c plan_cache_mode=force_custom_plan"));
        let kept = settings(10_000, Plans::Kept);
        assert!(kept.starts_with("-c statement_timeout=10000 "), "{kept}");
        assert!(
            kept.ends_with("-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"),
            "{kept}"
        );
        for plans in [Plans::Fresh, Plans::Kept] {
            assert_eq!(settings(0, plans), "");
        }
    }

    #[test]
    fn a_certificate_that_is_not_there_is_named() {
        let options = DatabaseOptions::of("postgres://u@h/db?sslrootcert=/nowhere/ca.pem");
        let fault = hosts(&options, NodeId::NIL).unwrap_err().to_string();
        assert!(fault.contains("sslrootcert /nowhere/ca.pem: No such file"), "{fault}");
    }
}
