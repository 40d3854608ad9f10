//! PostgreSQL's URLs, with several hosts as libpq writes them: `postgres://user@host1:5432,host2/name`.

use url::Url;

/// What libpq accepts for `sslmode`, from no TLS to a server whose name is verified.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The parameters that a URL may have, besides `target_session_attrs` and `options[NAME]`.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// What `target_session_attrs` may be: only a server that accepts writes is of use here.
const SESSION_ATTRIBUTES: [&str; 2] = ["read-write", "primary"];

/// A URL split around its list of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The scheme, the user and the password.
    pub before: &'a str,
    /// The hosts with their ports, separated by commas.
    pub hosts: &'a str,
    /// The database and the parameters.
    pub after: &'a str,
}

/// Splits a URL around its hosts; `None` if it has no authority.
#[must_use]
pub fn parts(url: &str) -> Option<Parts<'_>> {
    let authority = url.find("://")? + "://".len();
    let end = url[authority..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |end| authority + end);
    let hosts = url[authority..end]
        .rfind('@')
        .map_or(authority, |at| authority + at + 1);
    Some(Parts {
        before: &url[..hosts],
        hosts: &url[hosts..end],
        after: &url[end..],
    })
}

/// One URL per host, in the order in which they are tried, without `target_session_attrs`, which is always honored.
///
/// # Errors
/// One line that says what is wrong with the URL, without any part that could be a secret.
pub fn hosts(url: &str) -> Result<Vec<Url>, String> {
    let Some(parts) = parts(url) else {
        return Err("must be postgres://USER@HOST/NAME".to_owned());
    };
    let after = without_session_attributes(parts.after);
    let of = |host: &str| {
        let read = Url::parse(&format!("{}{host}{after}", parts.before));
        read.map_err(|cause| format!("cannot be parsed: {cause}"))
    };
    let written = parts.hosts.split(',');
    if written.clone().count() > 1 && written.clone().any(str::is_empty) {
        return Err("has an empty host next to a comma".to_owned());
    }
    let hosts: Vec<Url> = written.map(of).collect::<Result<_, _>>()?;
    if let Some(first) = hosts.first() {
        check(first)?;
    }
    check_session_attributes(parts.after)?;
    Ok(hosts)
}

fn check(url: &Url) -> Result<(), String> {
    let mut has = [false; 2];
    for (name, value) in url.query_pairs() {
        match &*name {
            "sslmode" | "ssl-mode" if !SSL_MODES.contains(&&*value) => {
                return Err(format!("sslmode must be one of {}", SSL_MODES.join(", ")));
            }
            "host" | "hostaddr" | "port" if value.contains(',') => {
                return Err("several hosts go before the name: postgres://USER@HOST1,HOST2/NAME".to_owned());
            }
            "sslcert" | "ssl-cert" => has[0] = true,
            "sslkey" | "ssl-key" => has[1] = true,
            name if PARAMETERS.contains(&name) || name.starts_with("options[") => {}
            // Neither name nor value is printed: either may be a password.
            _ => return Err(format!("has an unknown parameter; known are {}", PARAMETERS.join(", "))),
        }
    }
    if has[0] == has[1] {
        Ok(())
    } else {
        Err("sslcert and sslkey must be given together".to_owned())
    }
}

/// The parameters of what follows the hosts.
fn parameters(after: &str) -> impl Iterator<Item = &str> {
    let query = after.split('#').next().unwrap_or_default().split_once('?');
    query.map(|(_, query)| query).unwrap_or_default().split('&')
}

fn is_session_attributes(parameter: &str) -> bool {
    parameter.split('=').next() == Some("target_session_attrs")
}

fn check_session_attributes(after: &str) -> Result<(), String> {
    let given = parameters(after).filter(|parameter| is_session_attributes(parameter));
    let mut values = given.map(|parameter| parameter.split_once('=').unwrap_or_default().1);
    if values.all(|value| SESSION_ATTRIBUTES.contains(&value)) {
        Ok(())
    } else {
        Err("target_session_attrs must be read-write: the service writes".to_owned())
    }
}

fn without_session_attributes(after: &str) -> String {
    let Some((path, _)) = after.split_once('?') else {
        return after.to_owned();
    };
    let kept: Vec<&str> = parameters(after)
        .filter(|parameter| !is_session_attributes(parameter))
        .collect();
    format!("{path}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Vec<String> {
        hosts(url).unwrap().into_iter().map(String::from).collect()
    }

    #[test]
    fn each_host_has_a_url_of_its_own() {
        for (url, expected) in [
            ("postgres://h/db", &["postgres://h/db"][..]),
            (
                "postgres://u:p%40@h1:1,h2:2/db?sslmode=require&target_session_attrs=read-write",
                &[
                    "postgres://u:p%40@h1:1/db?sslmode=require",
                    "postgres://u:p%40@h2:2/db?sslmode=require",
                ],
            ),
            (
                "postgresql://u@[::1]:1,h2/db?target_session_attrs=primary",
                &["postgresql://u@[::1]:1/db?", "postgresql://u@h2/db?"],
            ),
            (
                "postgres:///db?host=/run/postgresql",
                &["postgres:///db?host=/run/postgresql"],
            ),
        ] {
            assert_eq!(of(url), expected);
        }
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_one_line() {
        for (url, expected) in [
            ("postgres:db", "must be postgres://USER@HOST/NAME"),
            ("postgres://u@h1:x/db", "cannot be parsed: invalid port number"),
            ("postgres://u@h1,,h2/db", "has an empty host next to a comma"),
            ("postgres://u@h/db?sslmode=yes", "sslmode must be one of"),
            ("postgres://u@h/db?host=a,b", "several hosts go before the name"),
            (
                "postgres://u@h/db?sslcert=a",
                "sslcert and sslkey must be given together",
            ),
            ("postgres://u@h1,h2/db?target_session_attrs=any", "must be read-write"),
            ("postgres://u@h/db?passwrod=s3cret", "has an unknown parameter"),
            ("postgres://u@h/db?s3cret", "has an unknown parameter"),
        ] {
            let fault = hosts(url).unwrap_err();
            assert!(fault.contains(expected), "{url}: {fault}");
            assert!(!fault.contains("s3cret"), "{fault}");
        }
    }

    #[test]
    fn the_hosts_are_found_beside_a_password_that_looks_like_them() {
        let found = parts("postgres://u:a,b@h1:1,h2:2?sslmode=require").unwrap();
        assert_eq!(
            (found.before, found.hosts, found.after),
            ("postgres://u:a,b@", "h1:1,h2:2", "?sslmode=require")
        );
        assert_eq!(parts("sqlite:file.db"), None);
    }
}
