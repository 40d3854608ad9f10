//! `doctor`: one line per check, exit code 1 if one failed, and it never hangs.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tempfile::TempDir;

use super::{Process, run};
use crate::{
    hostile::{certificate, tls_receiver},
    support::{client::Ask, database::TestDatabase},
};

/// The URL of a receiver on this machine with a certificate, and the folder that holds its authority.
async fn receiver() -> (String, TempDir) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("authority.pem"), authority.pem()).unwrap();
    let port = tls_receiver(certificate(&authority, "localhost", 2090)).await;
    (format!("https://localhost:{port}/"), folder)
}

/// The same, with ports that are free: the test must not depend on what listens on this machine.
fn with_free_ports<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    [arguments, &ports].concat()
}

/// The line of a check.
fn line<'a>(printed: &'a str, check: &str) -> &'a str {
    let mut lines = printed
        .lines()
        .filter(|line| line.get(8..).is_some_and(|rest| rest.starts_with(check)));
    lines
        .next()
        .unwrap_or_else(|| panic!("no line of {check} in\n{printed}"))
}

/// How many checks fail because the server that the suite was given does not vacuum: the doctor is right about that.
fn without_autovacuum(printed: &str) -> usize {
    let lines = printed.lines().filter(|line| line.contains("set autovacuum = on"));
    lines.count()
}

#[tokio::test]
async fn everything_in_order_is_said_line_by_line() {
    let database = TestDatabase::create().await;
    let (url, folder) = receiver().await;
    let authority = folder.path().join("authority.pem");
    let arguments = with_free_ports(&["doctor", "--url", &url, "--tls-ca-file", authority.to_str().unwrap()]);
    let (done, printed, complaint) = run(&database, &arguments).await;
    let failed = without_autovacuum(&printed);
    assert_eq!(done, failed == 0, "{printed}{complaint}");
    let trouble = printed.lines().filter(|line| !line.starts_with("ok ")).count();
    assert_eq!(trouble, failed, "{printed}");
    for check in [
        "database",
        "migrations",
        "master key",
        "clock",
        "open files",
        "api port",
        "metrics port",
        "dns",
        "tls",
    ] {
        line(&printed, check);
    }
    if database.is_postgres() {
        for (check, expected) in [
            ("version", "PostgreSQL "),
            ("autovacuum", "is o"),
            ("connections", "1 nodes × "),
        ] {
            assert!(line(&printed, check).contains(expected), "{printed}");
        }
    } else {
        line(&printed, "disk");
        let files = std::fs::read_dir(database.sqlite_folder().unwrap()).unwrap();
        assert!(
            files
                .into_iter()
                .all(|file| !file.unwrap().file_name().to_string_lossy().contains("doctor")),
            "nothing is left behind"
        );
    }
}

#[tokio::test]
async fn a_master_key_that_does_not_open_the_stored_secrets_is_found() {
    let database = TestDatabase::create().await;
    let mut server = Process::start(&database.options.url, &[]).await;
    let token = server.printed_token().await;
    let ask = Ask::new("POST", &server.base, "/v1/webhooks").token(&token);
    ask.json(&json!({ "url": "http://127.0.0.1:9/" }))
        .send()
        .await
        .expect(201);
    let (url, folder) = receiver().await;
    let authority = folder.path().join("authority.pem");
    let arguments = with_free_ports(&["doctor", "--url", &url, "--tls-ca-file", authority.to_str().unwrap()]);
    let (done, printed, _) = run(&database, &arguments).await;
    let else_failed = without_autovacuum(&printed);
    assert!(
        done == (else_failed == 0) && line(&printed, "master key").contains("decrypts the stored secrets"),
        "{printed}"
    );
    let other = "2:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (done, printed, complaint) = run(&database, &[&arguments[..], &["--master-key", other]].concat()).await;
    assert!(!done && line(&printed, "master key").starts_with("FAILED"), "{printed}");
    assert_eq!(
        complaint.lines().last(),
        Some(
            format!(
                "error: {} of {} checks failed",
                1 + else_failed,
                printed.lines().count()
            )
            .as_str()
        )
    );
}

#[tokio::test]
async fn no_way_out_is_a_failed_check_and_no_hang() {
    let database = TestDatabase::create().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("https://{}/", silent.local_addr().unwrap());
    for (url, dns, tls) in [
        ("https://nowhere.invalid/", "FAILED", "not tried"),
        (&silent, "ok", "timeout"),
        ("https://127.0.0.1:1/", "ok", "connection_refused"),
    ] {
        let began = Instant::now();
        let (done, printed, _) = run(
            &database,
            &with_free_ports(&["doctor", "--url", url, "--check-timeout-ms", "3000"]),
        )
        .await;
        // Ten checks of three seconds at most, and time for a slow machine to start a process.
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "{url} took {:?}",
            began.elapsed()
        );
        assert!(!done && line(&printed, "dns").starts_with(dns), "{url}\n{printed}");
        let tried = line(&printed, "tls");
        assert!(
            tried.starts_with("FAILED") && (tried.contains(tls) || tried.contains("no answer")),
            "{url}\n{printed}"
        );
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_not_made() {
    let database = TestDatabase::create().await;
    let folder = tempfile::tempdir().unwrap();
    let (absent, offline) = (folder.path().join("absent.db"), "https://127.0.0.1:1/");
    let url = format!("sqlite://{}", absent.display());
    let (done, printed, _) = run(&database, &["doctor", "--database-url", &url, "--url", offline]).await;
    assert!(!done && line(&printed, "database").starts_with("FAILED"), "{printed}");
    assert!(!absent.exists(), "a doctor changes nothing");
    let nobody = "postgres://postgres@127.0.0.1:1/nothing";
    let (done, printed, _) = run(&database, &["doctor", "--database-url", nobody, "--url", offline]).await;
    assert!(!done && line(&printed, "database").starts_with("FAILED"), "{printed}");
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_plainly() {
    let database = TestDatabase::create().await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let trusted = ["--tls-ca-file", file.to_str().unwrap()];
    for (name, year, trust, expected) in [
        ("localhost", 2090, &[][..], "unknown issuer"),
        ("localhost", 2020, &trusted[..], "has expired"),
        ("elsewhere.example", 2090, &trusted[..], "name mismatch"),
    ] {
        let port = tls_receiver(certificate(&authority, name, year)).await;
        let url = format!("https://localhost:{port}/");
        let arguments = with_free_ports(&[&["doctor", "--url", &url], trust].concat());
        let (done, printed, _) = run(&database, &arguments).await;
        let tls = line(&printed, "tls");
        assert!(
            !done && tls.starts_with("FAILED") && tls.contains(expected),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn a_port_is_free_or_a_servers_or_taken() {
    let database = TestDatabase::create().await;
    let server = Process::start(&database.options.url, &[]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, taken_by) = (
        server.base.replace("http://", ""),
        taken.local_addr().unwrap().to_string(),
    );
    // A listener that accepts connections and sends nothing must not make a check hang.
    let arguments = ["doctor", "--url", "https://127.0.0.1:1/", "--check-timeout-ms", "1000"];
    let ports = ["--listen", &own, "--metrics-listen", &taken_by];
    let (_, printed, _) = run(&database, &[&arguments[..], &ports].concat()).await;
    assert!(
        line(&printed, "api port").ends_with(&format!("a server answers on {own}")),
        "{printed}"
    );
    assert!(line(&printed, "metrics port").starts_with("FAILED"), "{printed}");
}

/// Writes a certificate for `api.example.com` and its key, valid from 2020 until then. Returns the options that name them.
fn api_certificate(folder: &Path, until: SystemTime) -> Vec<String> {
    let (authority, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, authority).unwrap();
    let mut params = CertificateParams::new(["api.example.com".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = until.into();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(path("tls.key"), key.serialize_pem()).unwrap();
    let options = ["--tls-cert", &path("tls.crt"), "--tls-key", &path("tls.key")];
    options.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn the_certificate_of_the_api_is_for_its_name_and_for_a_while() {
    let (database, folder) = (TestDatabase::create().await, tempfile::tempdir().unwrap());
    let (now, day) = (SystemTime::now(), Duration::from_hours(24));
    let long = now + 4000 * day;
    let other = tempfile::tempdir().unwrap();
    api_certificate(other.path(), long);
    let other_key = other.path().join("tls.key").display().to_string();
    let not_its_key = Err("it is not the key of the certificate");
    for (until, key, name, expected) in [
        (long, None, None, Ok("expires in 3999 days")),
        (
            long,
            None,
            Some("https://api.example.com/v2"),
            Ok("for api.example.com, "),
        ),
        (long, None, Some("http://elsewhere.example"), Ok("expires in 3999 days")),
        (long, None, Some("https://elsewhere.example"), Err("name mismatch")),
        (long, None, Some("https://127.0.0.1:8080"), Err("name mismatch")),
        (long, Some(other_key.as_str()), None, not_its_key),
        (long, Some("/nowhere"), None, Err("No such file")),
        (now + 100 * day, None, None, Err("expires in 99 days")),
        (now - day, None, None, Err("the certificate has expired")),
    ] {
        let mut options = api_certificate(folder.path(), until);
        if let Some(key) = key {
            key.clone_into(&mut options[3]);
        }
        options.extend(
            name.into_iter()
                .flat_map(|name| ["--public-url".to_owned(), name.to_owned()]),
        );
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let arguments = [&["doctor", "--url", "https://127.0.0.1:1/"], &options[..]].concat();
        let (_, printed, _) = run(&database, &with_free_ports(&arguments)).await;
        let found = line(&printed, "certificate");
        let (begin, part) = match expected {
            Ok(part) => ("ok ", part),
            Err(part) => ("FAILED ", part),
        };
        assert!(found.starts_with(begin) && found.contains(part), "{options:?}: {found}");
    }
    let alone = ["doctor", "--tls-cert", "tls.crt"];
    let (done, _, complaint) = run(&database, &alone).await;
    assert!(!done && complaint.contains("--tls-key"), "{complaint}");
}

#[tokio::test]
async fn a_server_behind_tls_is_recognized() {
    let (database, folder) = (TestDatabase::create().await, tempfile::tempdir().unwrap());
    let options = api_certificate(folder.path(), SystemTime::now() + Duration::from_hours(24 * 4000));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Process::start(&database.options.url, &options).await;
    let address = server.base.replace("https://", "");
    let arguments = [
        "doctor",
        "--url",
        "https://127.0.0.1:1/",
        "--listen",
        &address,
        "--metrics-listen",
        "off",
    ];
    for (options, expected) in [(&options[..], "ok "), (&[], "FAILED ")] {
        let (_, printed, _) = run(&database, &[&arguments[..], options].concat()).await;
        assert!(line(&printed, "api port").starts_with(expected), "{printed}");
    }
}
