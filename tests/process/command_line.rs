//! The command line: what it prints, what it refuses.

use serde_json::json;

use super::{Process, run};
use crate::support::{client::Ask, database::TestDatabase};

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
    server
        .output
        .next_line()
        .await
        .unwrap()
        .expect("the address of the docs");
    let silence = tokio::time::timeout(std::time::Duration::from_millis(200), server.output.next_line()).await;
    assert!(
        silence.is_err(),
        "a database that has tokens gets no other: {silence:?}"
    );
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
    assert!(
        line.contains("[webhooks:read]") && line.contains(organization),
        "{line}"
    );
    let id = line.split_whitespace().next().unwrap();
    assert!(run(&database, &["token", "revoke", id]).await.0);
    assert_eq!(list_webhooks(&server.base, token).await, 401);
    let (done, _, complaint) = run(&database, &["token", "revoke", id]).await;
    assert!(!done && complaint.contains("no valid token"), "{complaint}");
    assert!(run(&database, &["organization", "list"]).await.1.contains("Lab"));
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
        !done && complaint.starts_with("error: database URL must begin with"),
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
