//! Options: faults are one line each, and `--print-config` shows what would be used, without a secret.

use std::{process::Stdio, time::Duration};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{command, finish_with_log, kit::SECRET, run};
use crate::support::{
    database::{MASTER_KEY, TestDatabase},
    proxy::Proxy,
};

/// Runs the binary with these variables besides.
async fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command("sqlite://unused.db", &std::env::temp_dir())
        .envs(variables.iter().copied())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_effective_configuration_is_printed_without_secrets() {
    let variables = [
        (
            "KALLIMA_DATABASE_URL",
            "postgres://kallima:s3cret@db.example.com/kallima?sslmode=require",
        ),
        ("KALLIMA_ATTEMPTS_MAX", "7"),
        ("KALLIMA_BOOTSTRAP", "on"),
        ("KALLIMA_DEV", ""),
        ("KALLIMA_ALLOW_HTTP", "1"),
    ];
    for command in [&["--print-config"][..], &["serve", "--print-config"]] {
        let arguments = [command, &["--listen", "127.0.0.1:1234", "--allow-port", "443,8443"]].concat();
        let (code, printed, complaint) = run_with(&variables, &arguments).await;
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{printed}");
        for line in [
            "--database-url postgres://kallima:redacted@db.example.com/kallima?sslmode=require (KALLIMA_DATABASE_URL)",
            "--master-key [redacted] (KALLIMA_MASTER_KEY)",
            "--master-key-file (not set)",
            "--listen 127.0.0.1:1234 (command line)",
            "--allow-port 443,8443 (command line)",
            "--allow-network (not set)",
            "--connections-per-peer-max 256 (default)",
            "--metrics-listen 127.0.0.1:9464 (default, if it is free)",
            "--retry-schedule-s 5,300,1800,7200,18000,36000,50400,72000,86400 (default)",
            "--page-bytes-max 1048576 (default)",
            "--attempts-max 7 (KALLIMA_ATTEMPTS_MAX)",
            "--attempt-timeout-ms 15000 (default)",
            "--dev false (KALLIMA_DEV)",
            "--allow-http true (KALLIMA_ALLOW_HTTP)",
            "--bootstrap true (KALLIMA_BOOTSTRAP)",
        ] {
            assert!(
                printed.lines().any(|printed| printed == line),
                "no line {line:?} in\n{printed}"
            );
        }
        assert!(
            !printed.contains("s3cret") && !printed.contains(MASTER_KEY),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn what_follows_from_other_options_is_shown_with_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let run = command("sqlite://new.db", folder.path())
        .env_remove("KALLIMA_MASTER_KEY")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
        .args([
            "--print-config",
            "--dev",
            "--listen",
            "8081",
            "--trusted-proxy",
            "10.0.0.0/8",
        ])
        .output();
    let printed = String::from_utf8(run.await.unwrap().stdout).unwrap();
    for line in [
        "--listen 8081 (command line)",
        "--connections-per-peer-max 0 (--trusted-proxy)",
        "--allow-http true (--dev)",
        "--allow-network 127.0.0.0/8,::1/128 (--dev)",
        "--bootstrap true (--dev)",
        "--master-key-file new.db.key (default)",
        "--otlp-endpoint http://collector:4318/v1/traces (OTEL_EXPORTER_OTLP_ENDPOINT)",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "no line {line:?} in\n{printed}"
        );
    }
}

#[tokio::test]
async fn help_shows_the_options_of_a_command_alone_and_others_are_refused() {
    let (_, help, _) = run_with(&[], &["listen", "--help"]).await;
    assert!(help.contains("--forward") && !help.contains("--database-url"), "{help}");
    let (_, help, _) = run_with(&[], &["token", "list", "--help"]).await;
    assert!(
        help.contains("--database-url") && !help.contains("--database-wait-s"),
        "{help}"
    );
    let (_, help, _) = run_with(&[], &["--help"]).await;
    let is_lower = |value: &&str| value.starts_with(|letter: char| letter.is_ascii_lowercase());
    let odd = help.split('<').skip(1).find(is_lower);
    assert_eq!(odd, None, "names of values are in capitals");
    for heading in [
        "Database:",
        "API:",
        "Deliveries:",
        "Destinations:",
        "Retention:",
        "Log:",
    ] {
        assert!(help.contains(heading), "no {heading} in\n{help}");
    }
    let (code, _, complaint) = run_with(&[], &["sign", "--secret", SECRET, "--database-url", "sqlite://x.db"]).await;
    assert_eq!(code, Some(2));
    assert_eq!(complaint, "error: --database-url cannot be used with sign\n");
}

#[tokio::test]
async fn an_unknown_option_is_one_fault_among_the_others() {
    let arguments = ["--lisen", "8080", "--attempts-max", "0", "--zzz=1", "--dev"];
    let variables = [("KALLIMA_MASTER_KEY", "1:short"), ("KALLIMA_ALLOW_HTTP", "maybe")];
    let (code, printed, complaint) = run_with(&variables, &arguments).await;
    assert_eq!((code, printed.as_str()), (Some(2), ""), "{complaint}");
    assert_eq!(complaint.lines().count(), 5, "{complaint}");
    for text in [
        "error: --lisen: there is no such option; --listen is the nearest",
        "error: --zzz: there is no such option",
        "error: --attempts-max (KALLIMA_ATTEMPTS_MAX): invalid value '0'",
        "error: --allow-http (KALLIMA_ALLOW_HTTP): invalid value 'maybe': must be 1, on, yes or true",
        "error: --master-key (KALLIMA_MASTER_KEY): ",
    ] {
        assert!(
            complaint.lines().any(|line| line.starts_with(text)),
            "no {text:?} in\n{complaint}"
        );
    }
    assert!(!complaint.contains("short"), "{complaint}");
}

#[tokio::test]
async fn what_must_be_given_is_named_unless_it_was_given_wrong() {
    let (code, _, complaint) = run_with(&[], &["conform"]).await;
    assert_eq!(code, Some(2));
    let expected =
        "error: --url <URL> must be given\nerror: --secret <SECRET> (KALLIMA_WEBHOOK_SECRET) must be given\n";
    assert_eq!(complaint, expected);
    let (code, _, complaint) = run_with(&[], &["trigger", "--secret", "whsec_short", "--url", "ftp://x/"]).await;
    assert_eq!(code, Some(2));
    let lines: Vec<&str> = complaint.lines().collect();
    assert_eq!(lines.len(), 2, "{complaint}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("error: --secret (KALLIMA_WEBHOOK_SECRET): invalid value '[redacted]'"))
    );
    assert!(lines.iter().any(|line| line.contains("must be an http or https URL")));
}

#[tokio::test]
async fn what_a_value_must_be_is_said_in_words_and_by_the_command_s_own_variable() {
    let serve = [
        "--attempt-timeout-ms",
        "x",
        "--retry-schedule-s",
        "-1",
        "--retention-days",
        "-5",
    ];
    let (_, _, complaint) = run_with(&[], &[&serve[..], &["--allow-network", "10.0.0.0"]].concat()).await;
    let said = [
        "--attempt-timeout-ms (KALLIMA_ATTEMPT_TIMEOUT_MS): invalid value 'x': must be a whole number",
        "--retry-schedule-s (KALLIMA_RETRY_SCHEDULE_S): invalid value '-1': must be a whole number",
        "--retention-days (KALLIMA_RETENTION_DAYS): invalid value '-5': must be a whole number",
        "--allow-network (KALLIMA_ALLOW_NETWORK): invalid value '10.0.0.0': must be a network, such as 10.0.0.0/8 or \
         fd00::/8",
    ];
    let lines = said.map(|said| format!("error: {said}\n"));
    assert_eq!(sorted(&complaint), sorted(&lines.concat()));
    let sandbox = ["sandbox", "--listen", "x", "--secret", "y", "--organization-id", "42"];
    let (_, _, complaint) = run_with(&[], &sandbox).await;
    for said in [
        "--listen (KALLIMA_SANDBOX_LISTEN): invalid value 'x': must be a port,",
        "--secret (KALLIMA_SANDBOX_SECRET): invalid value '[redacted]': must be whsec_",
        "--organization-id (KALLIMA_SANDBOX_ORGANIZATION_ID): invalid value '42': must be a UUID, such as",
    ] {
        assert!(complaint.contains(said), "no {said:?} in\n{complaint}");
    }
    let (_, _, complaint) = run_with(&[], &["token", "revoke", "42"]).await;
    assert!(complaint.contains("'42' for '<ID>': must be a UUID"), "{complaint}");
}

fn sorted(lines: &str) -> Vec<&str> {
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_command_that_has_commands_of_its_own_lists_them() {
    for command in ["token", "organization", "keys"] {
        let (code, printed, complaint) = run_with(&[], &[command]).await;
        assert_eq!((code, printed.as_str()), (Some(2), ""));
        assert!(
            complaint.contains("Usage: ") && complaint.contains("list"),
            "{complaint}"
        );
    }
}

#[tokio::test]
async fn a_key_file_that_cannot_be_read_is_a_fault_like_others() {
    let variables = [("KALLIMA_POLL_INTERVAL_MS", "soon")];
    let mut command = command("sqlite://unused.db", &std::env::temp_dir());
    command.env_remove("KALLIMA_MASTER_KEY").envs(variables);
    let output = command
        .args(["--master-key-file", "no/such.key"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint.lines().count(), 2, "{complaint}");
    assert!(
        complaint.contains("--master-key-file (KALLIMA_MASTER_KEY_FILE): "),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_master_key_on_the_command_line_is_warned_of() {
    let database = TestDatabase::create().await;
    let list = ["organization", "list"];
    let warned = command(&database.options.url, &std::env::temp_dir());
    let arguments = [&list[..], &["--master-key", MASTER_KEY]].concat();
    let (done, _, complaint) = finish_with_log(warned, &arguments).await;
    assert!(
        done && complaint.contains("WARN") && complaint.contains("KALLIMA_MASTER_KEY or --master-key-file"),
        "{complaint}"
    );
    assert!(!complaint.contains(MASTER_KEY), "{complaint}");
    let (done, _, complaint) = run(&database, &list).await;
    assert!(done && complaint.is_empty(), "given by its variable: {complaint}");
}

#[tokio::test]
async fn help_shows_no_password() {
    let variables = [(
        "KALLIMA_DATABASE_URL",
        "postgres://kallima:s3cret@db.example.com/kallima",
    )];
    let (_, help, _) = run_with(&variables, &["--help"]).await;
    assert!(
        help.contains("KALLIMA_DATABASE_URL") && !help.contains("s3cret"),
        "{help}"
    );
}

#[tokio::test]
async fn every_fault_of_the_configuration_is_one_line() {
    let schedule = vec!["1"; 101].join(",");
    let arguments = [
        "--database-url",
        "mysql://x",
        "--allow-port",
        "0",
        "--retry-schedule-s",
        &format!("{schedule},2592001"),
    ];
    let (code, printed, complaint) = run_with(&[], &arguments).await;
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    let lines: Vec<&str> = complaint.lines().collect();
    assert_eq!(lines.len(), 4, "{complaint}");
    for (line, named) in lines.iter().zip([
        "--database-url",
        "--allow-port",
        "--retry-schedule-s",
        "--retry-schedule-s",
    ]) {
        assert!(line.starts_with("error: ") && line.contains(named), "{complaint}");
    }
}

#[tokio::test]
async fn a_database_url_that_cannot_be_meant_is_one_line() {
    for (url, expected) in [
        ("postgres://u:s3cret@h1:x,h2/db", "invalid port number"),
        ("postgres://u:s3cret@h/db?sslmode=yes", "sslmode must be one of disable"),
        (
            "postgres://u:s3cret@h/db?sslcert=c.pem",
            "sslcert and sslkey must be given together",
        ),
        (
            "postgres://u:s3cret@h1,h2/db?target_session_attrs=any",
            "target_session_attrs must be read-write",
        ),
    ] {
        let (code, _, complaint) = run_with(&[("KALLIMA_DATABASE_URL", url)], &["serve"]).await;
        assert_eq!((code, complaint.lines().count()), (Some(1), 1), "{complaint}");
        let is_reported = complaint.starts_with("error: --database-url (KALLIMA_DATABASE_URL): ");
        assert!(is_reported && complaint.contains(expected), "{complaint}");
        assert!(!complaint.contains("s3cret"), "{complaint}");
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_one_line_that_names_its_flag() {
    for (flag, value) in [
        ("--listen", "nowhere"),
        ("--attempts-max", "0"),
        ("--page-bytes-max", "1023"),
        ("--shutdown-delay-ms", "300001"),
        ("--database-connections-max", "3"),
        ("--allow-network", "10.0.0.0/33"),
    ] {
        let (code, _, complaint) = run_with(&[], &[flag, value]).await;
        assert_eq!(code, Some(2), "{complaint}");
        assert!(
            complaint.starts_with("error: ") && complaint.contains(flag),
            "{complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    let database = TestDatabase::create().await;
    let keys = ["--master-key", MASTER_KEY, "--master-key-file", "keys"];
    let (done, _, complaint) = run(&database, &keys).await;
    assert!(
        !done && complaint.lines().next().unwrap().contains("cannot be used with"),
        "{complaint}"
    );
    assert!(!complaint.contains(MASTER_KEY), "{complaint}");
}

#[tokio::test]
async fn all_faults_are_reported_at_once_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("none.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    let output = command("sqlite://new.db", folder.path())
        .envs([
            ("KALLIMA_ATTEMPS_MAX", "7"),
            ("KALLIMA_POLL_INTERVAL_MS", "soon"),
            ("KALLIMA_LOG_FORMAT", "xml"),
        ])
        .args(["--listen", "nowhere", "--log=garbage", "--allow-port", "0"])
        .args(["--otlp-endpoint", "http://user:s3cret@collector/", "--tls-ca-file"])
        .arg(&empty)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert_eq!(complaint.lines().count(), 8, "{complaint}");
    for parts in [
        ["KALLIMA_ATTEMPS_MAX", "KALLIMA_ATTEMPTS_MAX"],
        ["--poll-interval-ms (KALLIMA_POLL_INTERVAL_MS)", "soon"],
        ["--log-format (KALLIMA_LOG_FORMAT)", "must be one of human, json"],
        ["--listen (KALLIMA_LISTEN)", "nowhere"],
        ["--log (KALLIMA_LOG)", "`garbage` is neither a level"],
        [
            "--otlp-endpoint (KALLIMA_OTLP_ENDPOINT)",
            "http://user:redacted@collector/",
        ],
        ["--allow-port (KALLIMA_ALLOW_PORT)", "0 is not a port"],
        ["--tls-ca-file (KALLIMA_TLS_CA_FILE)", "it contains no certificate"],
    ] {
        let is_reported = |line: &str| line.starts_with("error: ") && parts.iter().all(|part| line.contains(part));
        assert!(complaint.lines().any(is_reported), "{parts:?} in {complaint}");
    }
    assert!(!complaint.contains("s3cret"), "{complaint}");
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "nothing was opened: {files:?}");
}

#[tokio::test]
async fn an_unknown_variable_is_refused_by_every_command() {
    for arguments in [&["--print-config"][..], &["token", "list"], &["migrate"]] {
        let (code, printed, complaint) = run_with(&[("KALLIMA_DATABSE_URL", "sqlite://x.db")], arguments).await;
        assert_eq!(code, Some(1), "{complaint}");
        assert!(complaint.contains("KALLIMA_DATABSE_URL is set") && complaint.contains("KALLIMA_DATABASE_URL"));
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(printed.is_empty() || arguments == ["--print-config"], "{printed}");
    }
}

#[tokio::test]
async fn a_url_where_none_belongs_is_not_printed() {
    for arguments in [
        &["postgres://user:s3cret@host/db"][..],
        &["--databse-url=postgres://user:s3cret@host/db"],
        &["serve", "postgres://user:s3cret@host/db"],
    ] {
        let (code, printed, complaint) = run_with(&[], arguments).await;
        assert_eq!(code, Some(2), "{complaint}");
        assert!(
            !printed.contains("s3cret") && !complaint.contains("s3cret"),
            "{complaint}"
        );
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_reported_with_its_reason_at_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let url = format!("postgres://user:s3cret@{address}/db");
    let variables = [
        ("KALLIMA_DATABASE_URL", url.as_str()),
        ("KALLIMA_MASTER_KEY", MASTER_KEY),
    ];
    let (code, _, complaint) = run_with(&variables, &["migrate"]).await;
    assert_eq!(code, Some(1));
    let expected = format!("error: cannot connect to PostgreSQL at {address}: Connection refused");
    assert!(
        complaint.starts_with(&expected) && complaint.lines().count() == 1,
        "{complaint}"
    );
    let database = TestDatabase::create().await;
    if !database.is_postgres() {
        return;
    }
    let mut url = url::Url::parse(&database.options.url).unwrap();
    url.set_path("/no_such_database");
    let variables = [
        ("KALLIMA_DATABASE_URL", url.as_str()),
        ("KALLIMA_MASTER_KEY", MASTER_KEY),
    ];
    let (_, _, complaint) = run_with(&variables, &["migrate", "--database-wait-s", "3600"]).await;
    let reason = "no_such_database";
    assert!(
        complaint.contains(reason) && complaint.lines().count() == 1,
        "waiting would be of no use: {complaint}"
    );
}

#[tokio::test]
async fn a_database_that_starts_at_the_same_time_is_waited_for() {
    let database = TestDatabase::create().await;
    if !database.is_postgres() {
        // SQLite is there.
        return;
    }
    let (proxy, through) = Proxy::before(&database.options.url).await;
    proxy.cut(true);
    let mut command = command(&through, &std::env::temp_dir());
    command
        .args(["migrate", "--database-wait-s", "3600"])
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = lines.next_line().await.unwrap().unwrap();
    assert!(waits.contains("waiting for the database"), "{waits}");
    proxy.cut(false);
    let ended = tokio::time::timeout(Duration::from_mins(1), child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
}
