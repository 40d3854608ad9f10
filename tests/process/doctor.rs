//! `doctor`: one line a check, exit code 1 if one failed, and never a hang.

use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
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

/// The line of a check.
fn line<'a>(printed: &'a str, check: &str) -> &'a str {
    let mut lines = printed
        .lines()
        .filter(|line| line.get(8..).is_some_and(|rest| rest.starts_with(check)));
    lines
        .next()
        .unwrap_or_else(|| panic!("no line of {check} in\n{printed}"))
}

#[tokio::test]
async fn everything_in_order_is_said_line_by_line() {
    let database = TestDatabase::create().await;
    let (url, folder) = receiver().await;
    let authority = folder.path().join("authority.pem");
    let arguments = ["doctor", "--url", &url, "--tls-ca-file", authority.to_str().unwrap()];
    let (done, printed, complaint) = run(&database, &arguments).await;
    assert!(done && complaint.is_empty(), "{printed}{complaint}");
    assert!(printed.lines().all(|line| line.starts_with("ok ")), "{printed}");
    for check in ["database", "migrations", "master key", "clock", "dns", "tls"] {
        line(&printed, check);
    }
    if !database.is_postgres() {
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
    let arguments = ["doctor", "--url", &url, "--tls-ca-file", authority.to_str().unwrap()];
    let (done, printed, _) = run(&database, &arguments).await;
    assert!(
        done && line(&printed, "master key").contains("opens the stored secrets"),
        "{printed}"
    );
    let other = "2:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (done, printed, complaint) = run(&database, &[&arguments[..], &["--master-key", other]].concat()).await;
    assert!(!done && line(&printed, "master key").starts_with("FAILED"), "{printed}");
    assert_eq!(
        complaint.lines().last(),
        Some(format!("error: 1 of {} checks failed", printed.lines().count()).as_str())
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
        let (done, printed, _) = run(&database, &["doctor", "--url", url, "--check-timeout-ms", "3000"]).await;
        // Six checks of three seconds at most, and time for a slow machine to start a process.
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
