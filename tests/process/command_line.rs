//! The command line: what it prints and what it refuses.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Process, command, kit::SECRET, run};
use crate::support::{app::eventually, client::Ask, database::TestDatabase};

async fn list_webhooks(base: &str, token: &str) -> u16 {
    Ask::new("GET", base, "/v1/webhooks")
        .token(token)
        .send()
        .await
        .status
        .as_u16()
}

#[tokio::test]
async fn a_new_database_gets_a_token_that_works_and_is_printed_once() {
    let database = TestDatabase::create().await;
    let mut server = Process::start(&database.options.url, &[]).await;
    let token = server.printed_token().await;
    let body = json!({ "url": "http://127.0.0.1:9/" });
    Ask::new("POST", &server.base, "/v1/webhooks")
        .token(&token)
        .json(&body)
        .send()
        .await
        .expect(201);
    assert!(server.terminate().await.success(), "SIGTERM ends it well");
    let mut server = Process::start(&database.options.url, &[]).await;
    assert_eq!(list_webhooks(&server.base, &token).await, 200);
    server.signal("TERM").await;
    let mut said = Vec::new();
    while let Some(line) = server.output.next_line().await.unwrap() {
        said.push(line);
    }
    assert!(
        said.len() == 3 && said[0].contains("/docs") && said[1].contains("/dashboard"),
        "a database that has tokens gets no other: {said:?}"
    );
    // The message says how to get another one, and that works.
    let another = said[2].split('`').nth(1).unwrap();
    let arguments: Vec<&str> = another
        .split_whitespace()
        .skip(1)
        .map(|word| word.trim_matches('\''))
        .collect();
    let (done, another, complaint) = run(&database, &arguments).await;
    assert!(done && another.starts_with("ab_"), "{complaint}");
}

#[tokio::test]
async fn a_shell_and_a_manual_know_every_command() {
    let database = TestDatabase::create().await;
    for shell in ["bash", "zsh", "fish"] {
        let (done, script, complaint) = run(&database, &["completions", shell]).await;
        assert!(
            done && script.contains("migrate-data") && script.contains("conform"),
            "{complaint}"
        );
    }
    let (done, page, _) = run(&database, &["man"]).await;
    assert!(done && page.contains(".TH kallima"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    assert!(
        run(&database, &["man", "--dir", folder.path().to_str().unwrap()])
            .await
            .0
    );
    let pages = std::fs::read_dir(folder.path()).unwrap();
    let names: Vec<_> = pages
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().any(|name| name == "kallima-webhooks-token-create.1"),
        "{names:?}"
    );
    let manual = std::fs::read_to_string(folder.path().join("kallima-webhooks-listen.1")).unwrap();
    assert!(manual.contains("forward") && !manual.contains("database"), "{manual}");
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_while_the_server_runs() {
    let database = TestDatabase::create().await;
    let server = Process::start(&database.options.url, &[]).await;
    let (done, organization, _) = run(&database, &["organization", "create", "--name", "Lab"]).await;
    assert!(done);
    let organization = organization.trim();
    let make = [
        "token",
        "create",
        "--organization",
        organization,
        "--scope",
        "webhooks:read",
        "--name",
        "reader",
    ];
    let (done, token, _) = run(&database, &make).await;
    assert!(done);
    let token = token.trim();
    assert_eq!(token.len(), 51);
    assert_eq!(list_webhooks(&server.base, token).await, 200);

    let (done, listed, _) = run(&database, &["token", "list"]).await;
    assert!(done);
    assert!(!listed.contains(token), "a token is shown once");
    let line = listed.lines().find(|line| line.contains("reader")).unwrap();
    assert!(line.contains("webhooks:read") && line.contains(organization), "{line}");
    assert!(listed.starts_with("ID  ") && listed.lines().next().unwrap().ends_with("NAME"));
    let (_, json, _) = run(&database, &["token", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let reader = json
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["name"] == "reader")
        .unwrap();
    assert_eq!(reader["scopes"], json!(["webhooks:read"]));
    assert_eq!(reader["organization_id"], organization);
    eventually(|| async {
        let (_, listed, _) = run(&database, &["token", "list"]).await;
        let line = listed.lines().find(|line| line.contains("reader")).unwrap();
        (!line.contains("never")).then_some(())
    })
    .await;
    let id = line.split_whitespace().next().unwrap();
    assert!(run(&database, &["token", "revoke", id]).await.0);
    // At once on SQLite; within two seconds on PostgreSQL, where nodes cache tokens for that long.
    if !database.is_postgres() {
        assert_eq!(list_webhooks(&server.base, token).await, 401);
    }
    eventually(|| async { (list_webhooks(&server.base, token).await == 401).then_some(()) }).await;
    let (done, _, complaint) = run(&database, &["token", "revoke", id]).await;
    assert!(!done && complaint.contains("no valid token"), "{complaint}");
    assert!(run(&database, &["organization", "list"]).await.1.contains("Lab"));
}

#[tokio::test]
async fn limits_of_an_organization_are_set_shown_and_changed() {
    let database = TestDatabase::create().await;
    let (done, id, _) = run(
        &database,
        &["organization", "create", "--name", "Lab", "--plan", "team"],
    )
    .await;
    assert!(done);
    let id = id.trim();
    let listed = || async { run(&database, &["organization", "list"]).await.1 };
    let row = |listed: String| {
        let line = listed.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
        let words = line.split_whitespace().skip(2).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    assert_eq!(row(listed().await), ["60", "25000", "Lab"]);
    let (_, json, _) = run(&database, &["organization", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let lab = json.as_array().unwrap().iter().find(|it| it["id"] == id).unwrap();
    assert_eq!(
        (&lab["requests_per_minute"], &lab["writes_per_month"]),
        (&json!(60), &json!(25_000))
    );
    let change = |arguments: &[&str]| {
        let arguments: Vec<String> = ["organization", "limits", id]
            .iter()
            .chain(arguments)
            .map(ToString::to_string)
            .collect();
        let database = &database;
        async move { run(database, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let (done, shown, _) = change(&["--requests-per-minute", "none"]).await;
    assert!(
        done && shown.contains("[requests/minute: unlimited, writes/month: 25000]"),
        "{shown}"
    );
    let (done, shown, _) = change(&["--requests-per-minute", "90", "--writes-per-month", "none"]).await;
    assert!(
        done && shown.contains("[requests/minute: 90, writes/month: unlimited]"),
        "{shown}"
    );
    assert_eq!(row(listed().await), ["90", "unlimited", "Lab"]);
    for wrong in ["0", "-1", "1000000001", "many"] {
        let (done, _, complaint) = change(&[&format!("--writes-per-month={wrong}")]).await;
        assert!(
            !done && complaint.contains("from 1 to 1000000000, or none"),
            "{wrong}: {complaint}"
        );
    }
    let nobody = "00000000-0000-7000-8000-000000000000";
    let (done, _, complaint) = run(&database, &["organization", "limits", nobody]).await;
    assert!(
        !done && complaint.starts_with("error: there is no organization"),
        "{complaint}"
    );
}

#[tokio::test]
async fn what_cannot_work_is_refused_in_one_clear_line() {
    let database = TestDatabase::create().await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    let (done, _, complaint) = run(&database, &["token", "create", "--organization", nobody]).await;
    assert!(
        !done && complaint.starts_with("error: there is no organization"),
        "{complaint}"
    );
    let (done, _, complaint) = run(&database, &["--listen", "192.0.2.1:80"]).await;
    assert!(
        !done && complaint.starts_with("error: cannot listen on 192.0.2.1:80"),
        "{complaint}"
    );
    let (done, _, complaint) = run(&database, &["migrate", "--database-url", "mysql://x"]).await;
    assert!(
        !done && complaint.starts_with("error: --database-url (KALLIMA_DATABASE_URL) must start with sqlite://"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let (done, _, complaint) = run(&database, &["migrate", "--master-key", "1:short"]).await;
    assert!(
        !done && complaint.contains("a master key is written as ID:BASE64"),
        "{complaint}"
    );
    assert!(!complaint.contains("1:short"), "a key is never shown: {complaint}");
}

#[tokio::test]
async fn an_sqlite_database_has_one_server() {
    let database = TestDatabase::create().await;
    if database.is_postgres() {
        // PostgreSQL has any number of them, which other tests use.
        return;
    }
    let _server = Process::start(&database.options.url, &[]).await;
    let (done, _, complaint) = run(&database, &["--listen", "127.0.0.1:0"]).await;
    assert!(
        !done && complaint.contains("in use by another kallima-webhooks process"),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_command_whose_output_nobody_reads_any_more_ends_quietly() {
    for arguments in [
        &["--print-config"][..],
        &["man"],
        &["completions", "zsh"],
        &["sign", "--secret", SECRET],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command("sqlite://unused.db", &std::env::temp_dir());
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped());
        let output = output.spawn().unwrap().wait_with_output().await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*complaint), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_server_serves_although_nobody_reads_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let url = format!("sqlite://{}/kallima.db", folder.path().display());
    let mut server = command(&url, folder.path())
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .env("KALLIMA_LOG", "info")
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    loop {
        let line = log.next_line().await.unwrap().expect("the server goes on");
        if line.contains(" ready ") {
            break;
        }
    }
    assert!(server.try_wait().unwrap().is_none());
}
