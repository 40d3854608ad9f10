//! `--print-config`: every option of `serve`, with the value that would be used.
//!
//! The list comes from clap, so no option can be forgotten. A value that `--help` hides is a secret and is left out; of a
//! URL, only the password is.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use url::Url;

use crate::config::{Derived, postgres_url};

/// Printed instead of a secret.
const REDACTED: &str = "[redacted]";

/// One line per option: the flag, its value, and where that comes from. `derived` are the values of those that have no
/// fixed default.
pub(super) fn lines(command: &Command, matches: &ArgMatches, derived: &[Derived]) -> Vec<String> {
    command
        .get_arguments()
        .filter(|option| !["help", "version", "print_config"].contains(&option.get_id().as_str()))
        .filter_map(|option| Some(format!("--{} {}", option.get_long()?, value(option, matches, derived))))
        .collect()
}

fn value(option: &Arg, matches: &ArgMatches, derived: &[Derived]) -> String {
    let id = option.get_id().as_str();
    let source = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => "command line".to_owned(),
        Some(ValueSource::EnvVariable) => option.get_env().unwrap_or_default().to_string_lossy().into_owned(),
        source => {
            if let Some(Derived { value, source, .. }) = derived.iter().find(|derived| derived.id == id) {
                return format!("{value} ({source})");
            }
            if source.is_none() {
                return "(not set)".to_owned();
            }
            "default".to_owned()
        }
    };
    let given: Vec<String> = if matches!(option.get_action(), ArgAction::SetTrue) {
        // A switch is written in many ways.
        vec![matches.get_flag(id).to_string()]
    } else {
        let given = matches.get_raw(id).into_iter().flatten();
        given.map(|value| redacted(option, &value.to_string_lossy())).collect()
    };
    format!("{} ({source})", given.join(","))
}

/// A value in the form in which it may be shown.
pub(super) fn redacted(option: &Arg, value: &str) -> String {
    if let Some(url) = value.contains("://").then(|| redacted_url(value)) {
        return url;
    }
    if option.is_hide_env_values_set() {
        REDACTED.to_owned()
    } else {
        value.to_owned()
    }
}

/// A URL without its password, whether that is before the host or in the query. Works for several hosts, too.
fn redacted_url(value: &str) -> String {
    let several = postgres_url::parts(value).filter(|parts| parts.hosts.contains(','));
    let Some(several) = several.filter(|_| postgres_url::hosts(value).is_ok()) else {
        return redacted_single(value);
    };
    // Until then, one host stands for all of them.
    let single = redacted_single(&format!("{}host{}", several.before, several.after));
    match postgres_url::parts(&single) {
        Some(shown) => format!("{}{}{}", shown.before, several.hosts, shown.after),
        None => single,
    }
}

fn redacted_single(value: &str) -> String {
    let Ok(mut url) = Url::parse(value) else {
        // What cannot be parsed may contain anything.
        return REDACTED.to_owned();
    };
    if url.password().is_none() && url.query().is_none() {
        return value.to_owned();
    }
    if url.password().is_some() && url.set_password(Some("redacted")).is_err() {
        return REDACTED.to_owned();
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if pairs.iter().any(|(name, _)| is_secret(name)) {
        let shown = pairs.iter().map(|(name, value)| {
            let value = if is_secret(name) { "redacted" } else { value.as_str() };
            (name.as_str(), value)
        });
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    url.to_string()
}

/// Whether the value of a URL's parameter must be hidden: unless it is known to be harmless, as the name of a secret one
/// may be misspelled.
fn is_secret(parameter: &str) -> bool {
    const HARMLESS: [&str; 15] = [
        "application_name",
        "cache",
        "connect_timeout",
        "dbname",
        "host",
        "immutable",
        "mode",
        "options",
        "port",
        "sslcert",
        "sslmode",
        "sslrootcert",
        "statement-cache-capacity",
        "target_session_attrs",
        "user",
    ];
    !HARMLESS.contains(&parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("sqlite://kallima-webhooks.db", "sqlite://kallima-webhooks.db"),
            ("postgres://user@host/name", "postgres://user@host/name"),
            ("postgres://user:s3cret@host/name", "postgres://user:redacted@host/name"),
            (
                "postgres://user:p%40ss@host:5432/n?sslmode=require",
                "postgres://user:redacted@host:5432/n?sslmode=require",
            ),
            (
                "postgres://host/name?user=u&password=s3cret",
                "postgres://host/name?user=u&password=redacted",
            ),
            (
                "postgres://host/name?user=u&pasword=s3cret&mode=rwc",
                "postgres://host/name?user=u&pasword=redacted&mode=rwc",
            ),
            ("postgres://user:s3cret@ho st/name", REDACTED),
            (
                "postgres://user:s3cret@h1:1,h2:2/name?target_session_attrs=read-write",
                "postgres://user:redacted@h1:1,h2:2/name?target_session_attrs=read-write",
            ),
            (
                "postgres://h1,h2/name?password=s3cret",
                "postgres://h1,h2/name?password=redacted",
            ),
            ("postgres://user:s3cret@h1:x,h2/name", REDACTED),
        ] {
            assert_eq!(redacted_url(url), shown);
        }
    }
}
