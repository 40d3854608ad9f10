//! The kit for authors of receivers: `sign`, `verify`, `trigger`, `conform`.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
};
use kallima_webhooks::{
    clock::Clock,
    domain::{
        secret::Secret,
        verification::{Scheme, SignedHeaders, TOLERANCE_S, verify},
    },
};
use serde_json::Value;
use tempfile::TempDir;

use super::{command, finish};
use crate::support::receiver::{Receiver, Reply, nobody};

pub(super) const SECRET: &str = "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF";
const BODY: &str = r#"{"hello":"kallima"}"#;
const AT: &str = "1776938400";
const ID: &str = "evt_01JBAAAA000000000000000000";

/// Runs a command with the secret in the environment: whether it succeeded, its output and its complaints.
async fn kit(arguments: &[&str]) -> (bool, String, String) {
    let mut command = command("sqlite://unused.db", &std::env::temp_dir());
    command.env("KALLIMA_WEBHOOK_SECRET", SECRET).stdin(Stdio::null());
    finish(command, arguments).await
}

/// A folder with these files.
fn files(files: &[(&str, &str)]) -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let written = files.iter().map(|(name, text)| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let paths = written.collect();
    (folder, paths)
}

#[tokio::test]
async fn what_is_signed_is_the_known_answer_and_verifies() {
    let (folder, paths) = files(&[("body", BODY)]);
    let (done, signed, _) = kit(&["sign", "--body", &paths[0], "--id", ID, "--at", AT]).await;
    assert!(done);
    let expected = "Kallima-Signature: t=1776938400,v1=3ddf3c0af0b967e8936c584b5683cee33cb260c3903dc41e91b95b368cf4859b\n\
                    webhook-id: evt_01JBAAAA000000000000000000\n\
                    webhook-timestamp: 1776938400\n\
                    webhook-signature: v1,AHilxuGBtLHGr7W+jwsHChveo4iPt1zVu4BVO5/KMN4=\n";
    assert_eq!(signed, expected);
    let headers = folder.path().join("headers");
    fs::write(&headers, &signed).unwrap();
    let headers = headers.to_str().unwrap();
    let (done, said, _) = kit(&["verify", "--headers", headers, "--body", &paths[0], "--at", AT]).await;
    assert!(done && said.matches("verifies").count() == 2, "{said}");
    // Long ago, by the clock.
    let (done, said, complaint) = kit(&["verify", "--headers", headers, "--body", &paths[0]]).await;
    assert!(!done && said.matches("seconds old").count() == 2, "{said}");
    assert!(complaint.contains("a receiver must refuse this request"), "{complaint}");
}

#[tokio::test]
async fn a_request_that_does_not_verify_is_explained() {
    let signature = "t=1776938400,v1=3ddf3c0af0b967e8936c584b5683cee33cb260c3903dc41e91b95b368cf4859b";
    let request = format!("POST / HTTP/1.1\r\nKALLIMA-SIGNATURE: {signature}\r\n\r\n{BODY}\n");
    let (_folder, paths) = files(&[("request", &request)]);
    let (done, said, _) = kit(&["verify", &paths[0], "--at", AT]).await;
    assert!(!done);
    for text in [
        "does not match",
        "expected",
        "received",
        "without the line break",
        "webhook-id is missing",
    ] {
        assert!(said.contains(text), "no {text:?} in\n{said}");
    }
    let (done, json, _) = kit(&["verify", &paths[0], "--at", AT, "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(!done);
    assert_eq!(json[0]["reason"], "signature_mismatch");
    assert_eq!(json[0]["received"], signature);
    assert_ne!(json[0]["expected"], json[0]["received"]);
    assert_eq!(json[1]["reason"], "missing_header");
    // One signature is enough, and a header can be given in curl's format.
    let header = format!("kallima-signature: {signature}");
    let (_folder, paths) = files(&[("body", BODY)]);
    assert!(kit(&["verify", "-H", &header, "--body", &paths[0], "--at", AT]).await.0);
    let (done, _, complaint) = kit(&["verify", "--headers", "-", "--body", "-"]).await;
    assert!(
        !done && complaint.contains("cannot both be standard input"),
        "{complaint}"
    );
}

#[tokio::test]
async fn an_example_of_any_type_is_sent_signed() {
    let receiver = Receiver::start([]).await;
    let (done, said, complaint) = kit(&["trigger", "humanization.failed", "--url", &receiver.url]).await;
    assert!(done && said.contains("→  200"), "{said}{complaint}");
    let data = r#"{"job_id":"7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11"}"#;
    let with_data = [
        "trigger",
        "humanization.completed",
        "--data",
        data,
        "--url",
        &receiver.url,
    ];
    assert!(kit(&with_data).await.0);
    let arrivals = receiver.arrivals();
    assert_eq!(arrivals.len(), 2);
    assert!(arrivals.iter().all(|arrival| arrival.is_signed_with(SECRET)));
    assert_eq!(arrivals[0].header("kallima-event"), "humanization.failed");
    assert_eq!(
        arrivals[1].payload()["data"]["job_id"],
        "7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11"
    );

    receiver.then(Reply::status(500).body("broken"));
    let (done, said, complaint) = kit(&["trigger", "--url", &receiver.url]).await;
    assert!(
        !done && said.contains("broken") && complaint.contains("did not accept it: 500"),
        "{complaint}"
    );
    let (_, _, complaint) = kit(&["trigger", "humanisation.completed", "--url", &receiver.url]).await;
    assert!(
        complaint.contains("did you mean humanization.completed?"),
        "{complaint}"
    );
    let wrong = [
        "trigger",
        "humanization.completed",
        "--data",
        "[]",
        "--url",
        &receiver.url,
    ];
    assert!(kit(&wrong).await.2.contains("--data: "));
    let (socket, address) = nobody();
    let (_, said, _) = kit(&["trigger", "--url", &format!("http://{address}/")]).await;
    assert!(said.contains("no answer (connection_refused)"), "{said}");
    drop(socket);
}

/// What a receiver under test does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Checks this signature, as it should.
    Checks(Scheme),
    /// Checks whichever signature is there.
    ChecksEither,
    /// Accepts everything.
    TakesAll,
    /// Fails instead of refusing.
    Crashes,
    /// Refuses an event that it has seen.
    RefusesDuplicates,
    /// Parses and reserializes the body before it verifies.
    WritesAgain,
}

type Shared = (Habit, Arc<Mutex<HashSet<String>>>);

async fn examined(habit: Habit) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let shared: Shared = (habit, Arc::default());
    let router = Router::new()
        .fallback(receive)
        .layer(DefaultBodyLimit::disable())
        .with_state(shared);
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    url
}

async fn receive(State((habit, known)): State<Shared>, headers: HeaderMap, mut body: Bytes) -> StatusCode {
    let signed = SignedHeaders::read(|name| headers.get(name)?.to_str().ok().map(str::to_owned));
    if habit == Habit::WritesAgain {
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        body = serde_json::to_vec(&value).unwrap().into();
    }
    let secret = Secret::parse(SECRET).unwrap();
    let now_s = Clock::system().now().as_unix_seconds();
    let checks = |scheme| verify(scheme, &secret, &signed, &body, now_s, TOLERANCE_S).is_ok();
    let is_good = match habit {
        Habit::Checks(scheme) => checks(scheme),
        Habit::TakesAll => true,
        _ => Scheme::ALL.into_iter().any(checks),
    };
    let is_new = is_good && known.lock().unwrap().insert(signed.webhook_id.unwrap_or_default());
    match habit {
        Habit::Crashes if !is_good => StatusCode::INTERNAL_SERVER_ERROR,
        _ if !is_good => StatusCode::BAD_REQUEST,
        Habit::RefusesDuplicates if !is_new => StatusCode::CONFLICT,
        _ => StatusCode::NO_CONTENT,
    }
}

#[tokio::test]
async fn a_good_receiver_conforms_whichever_signature_it_checks() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    for habit in [
        Habit::Checks(Scheme::Kallima),
        Habit::Checks(Scheme::StandardWebhooks),
        Habit::ChecksEither,
    ] {
        let url = examined(habit).await;
        let (done, said, complaint) = kit(&["conform", "--url", &url, "--junit", report.to_str().unwrap()]).await;
        assert!(done && said.contains("checks passed"), "{habit:?}: {said}{complaint}");
        let skipped = usize::from(habit != Habit::ChecksEither);
        assert_eq!(
            said.lines().filter(|line| line.starts_with("skipped")).count(),
            skipped,
            "{said}"
        );
        let xml = fs::read_to_string(&report).unwrap();
        let checks = said.lines().filter(|line| line.contains(" ms")).count();
        assert!(checks > 20 && xml.contains("failures=\"0\""), "{said}{xml}");
        assert_eq!(xml.matches("<testcase ").count(), checks, "{xml}");
        let (done, said, _) = kit(&["conform", "--url", &url, "--scheme", "both"]).await;
        assert_eq!(done, habit == Habit::ChecksEither, "{said}");
    }
}

#[tokio::test]
async fn what_a_receiver_does_wrong_is_named() {
    for (habit, wrong) in [
        (Habit::TakesAll, "signed with another secret (Kallima-Signature)"),
        (Habit::TakesAll, "a timestamp six minutes old (Standard Webhooks)"),
        (Habit::TakesAll, "an empty request"),
        (Habit::Crashes, "words instead of a signature (Kallima-Signature)"),
        (
            Habit::RefusesDuplicates,
            "a duplicate (the same event again, as attempt 2)",
        ),
        (
            Habit::WritesAgain,
            "a body that was parsed and written again (Kallima-Signature)",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report.xml");
        let url = examined(habit).await;
        let (done, said, complaint) = kit(&["conform", "--url", &url, "--junit", report.to_str().unwrap()]).await;
        assert!(!done && complaint.contains("checks failed"), "{said}{complaint}");
        let is_reported = |line: &str| line.starts_with("FAILED") && line.contains(wrong);
        assert!(said.lines().any(is_reported), "{habit:?}: no {wrong:?} in\n{said}");
        let failed = said.lines().filter(|line| line.starts_with("FAILED")).count();
        let xml = fs::read_to_string(&report).unwrap();
        assert_eq!(xml.matches("<failure").count(), failed, "{xml}");
    }
    let (socket, address) = nobody();
    let (done, said, _) = kit(&["conform", "--url", &format!("http://{address}/")]).await;
    assert!(!done && said.contains("no answer (connection_refused)"), "{said}");
    assert!(said.contains("not tried, since 3 in a row had no answer"), "{said}");
    let columns: HashSet<_> = said.lines().filter_map(|line| line.find(" ms")).collect();
    assert_eq!(
        columns.len(),
        1,
        "a long answer does not move what is beside it:\n{said}"
    );
    drop(socket);
}

#[tokio::test]
async fn header_names_are_sent_in_both_spellings() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            let mut length = 0;
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                *seen.lock().unwrap() += &std::mem::take(&mut line);
            }
            stream.read_exact(&mut vec![0; length]).unwrap();
            let response = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.get_mut().write_all(response.as_bytes()).unwrap();
        }
    });
    assert!(!kit(&["conform", "--url", &url]).await.0, "it takes everything");
    let heads = heads.lock().unwrap();
    for name in [
        "\nwebhook-id: ",
        "\nWebhook-Id: ",
        "\nkallima-signature: ",
        "\nKallima-Signature: ",
    ] {
        assert!(heads.contains(name), "no {name:?}");
    }
}
