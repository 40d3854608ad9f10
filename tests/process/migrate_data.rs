//! From SQLite to PostgreSQL: everything is copied, verified, and continues where it stopped.

use std::process::Stdio;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::{Process, command, finish, run};
use crate::support::{
    Receiver, Reply,
    app::eventually,
    client::Ask,
    database::{MASTER_KEY, TestDatabase},
};

/// Retries far enough apart that most machines make the first one on PostgreSQL, and so many that a slow one, which
/// comes to it on SQLite, has more.
const RETRY: [&str; 2] = ["--retry-schedule-s", "6,6,6,6,6,6,6,6,6,6"];

/// Runs `migrate-data` and returns its result.
async fn migrate(from: &TestDatabase, to: &TestDatabase) -> (bool, String, String) {
    let output = command("sqlite://unused.db", &std::env::temp_dir())
        .env("KALLIMA_MASTER_KEY", MASTER_KEY)
        .args(["migrate-data", "--from", &from.options.url, "--to", &to.options.url])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn ask(base: &str, token: &str, method: &str, path: &str) -> Ask {
    Ask::new(method, base, path).token(token)
}

/// All deliveries, as soon as each of them is `wanted`.
async fn deliveries_when(base: &str, token: &str, wanted: fn(&Value) -> bool) {
    eventually(|| async {
        let list = ask(base, token, "GET", "/v1/webhook_deliveries")
            .send()
            .await
            .expect(200);
        list.as_array().unwrap().iter().all(wanted).then_some(())
    })
    .await;
}

/// Serves from SQLite until three events had an attempt each: the token and the webhook. All but the first fail for as
/// long as that lasts.
async fn serve_on_sqlite(from: &TestDatabase, to: &TestDatabase, receiver: &Receiver) -> (String, Value) {
    let mut server = Process::start(&from.options.url, &RETRY).await;
    let token = server.printed_token().await;
    let register = json!({ "url": receiver.url, "events": ["job.*"], "description": "é ✓" });
    let register = ask(&server.base, &token, "POST", "/v1/webhooks").json(&register);
    let webhook = register.send().await.expect(201);
    for job in 0..3 {
        let job_id = format!("7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e1{job}");
        let body = json!({ "type": "job.completed", "data": { "job_id": job_id } });
        let publish = ask(&server.base, &token, "POST", "/v1/events").json(&body);
        publish.send().await.expect(202);
        receiver.wait_for(job + 1).await;
    }
    let (done, _, complaint) = migrate(from, to).await;
    assert!(
        !done && complaint.contains("in use by another"),
        "not while it is served: {complaint}"
    );
    deliveries_when(&server.base, &token, |delivery| {
        delivery["status"] == "delivered" || delivery["response_status"] == 500
    })
    .await;
    assert!(server.terminate().await.success());
    (token, webhook)
}

#[tokio::test]
async fn everything_goes_from_sqlite_to_postgres_and_pending_deliveries_arrive() {
    let (from, to) = (TestDatabase::sqlite().await, TestDatabase::empty().await);
    if !to.is_postgres() {
        let (done, _, complaint) = migrate(&from, &to).await;
        assert!(
            !done && complaint.contains("from sqlite://… to postgres://…"),
            "{complaint}"
        );
        return;
    }
    let failures = std::iter::repeat_n(Reply::status(500), 100);
    let receiver = Receiver::start([Reply::status(200)].into_iter().chain(failures)).await;
    let (token, webhook) = serve_on_sqlite(&from, &to, &receiver).await;
    receiver.forget();
    let attempts = receiver.arrivals().len();

    let (done, _, complaint) = migrate(&from, &to).await;
    assert!(
        !done && complaint.contains("the PostgreSQL database lacks migrations"),
        "{complaint}"
    );
    let (done, _, complaint) = run(&to, &["migrate"]).await;
    assert!(done, "{complaint}");
    let (done, output, complaint) = migrate(&from, &to).await;
    assert!(done, "{complaint}");
    for (table, rows) in [
        ("webhooks", "1"),
        ("events", "3"),
        ("deliveries", "3"),
        ("attempts", &attempts.to_string()),
    ] {
        let found = output.lines().map(|line| line.split_whitespace().take(2));
        assert!(
            found.into_iter().any(|words| words.eq([table, rows])),
            "{table}: {output}"
        );
    }
    let (done, _, complaint) = migrate(&from, &to).await;
    assert!(!done && complaint.contains("the target is not empty"), "{complaint}");

    let server = Process::start(&to.options.url, &RETRY).await;
    let arrivals = receiver.wait_for(attempts + 2).await;
    let secret = webhook["secret"].as_str().unwrap();
    assert!(
        arrivals.iter().all(|arrival| arrival.is_signed_with(secret)),
        "the secret opens"
    );
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let mut copied = ask(&server.base, &token, "GET", &path).send().await.expect(200);
    copied["secret"] = webhook["secret"].clone();
    assert_eq!(copied, webhook);
    deliveries_when(&server.base, &token, |delivery| delivery["status"] == "delivered").await;
}

#[tokio::test]
async fn a_table_or_a_column_that_only_one_of_them_has_stops_the_copy() {
    let (from, to) = (TestDatabase::sqlite().await, TestDatabase::create().await);
    if !to.is_postgres() {
        return;
    }
    let source = from.connect().await;
    source
        .execute_unprepared("ALTER TABLE events ADD COLUMN extra TEXT")
        .await
        .unwrap();
    source
        .execute_unprepared("CREATE TABLE forgotten (id INTEGER)")
        .await
        .unwrap();
    let (done, _, complaint) = migrate(&from, &to).await;
    assert!(
        !done && complaint.contains("the two schemas differ: events.extra, forgotten.id"),
        "{complaint}"
    );
}

#[tokio::test]
async fn the_key_beside_the_source_is_found_whatever_follows_the_name_of_the_file() {
    let (from, to) = (TestDatabase::sqlite().await, TestDatabase::create().await);
    if !to.is_postgres() {
        return;
    }
    let source = format!("{}?mode=rwc", from.options.url);
    let mut command = command("sqlite://unused.db", &std::env::temp_dir());
    command.env_remove("KALLIMA_MASTER_KEY");
    let arguments = ["migrate-data", "--from", &source, "--to", &to.options.url];
    let (done, output, complaint) = finish(command, &arguments).await;
    assert!(done, "{complaint}");
    let key_file = from.sqlite_folder().unwrap().join("test.db.key");
    let option = format!("--master-key-file {}", key_file.display());
    assert!(output.contains(&option), "{output}");
}
