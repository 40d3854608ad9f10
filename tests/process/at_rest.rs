//! Secrets and tokens never appear in plain text in the database, in the logs, or in any response except the one that
//! issues them.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _};

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use super::{Process, command, finish};
use crate::support::{
    Receiver,
    client::{ApiResponse, Ask},
    database::TestDatabase,
};

/// Everything in the database, as bytes: SQLite's files, or PostgreSQL's rows as text.
async fn contents(database: &TestDatabase) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(folder) = database.sqlite_folder() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "key") {
                bytes.extend(fs::read(path).unwrap());
            }
        }
        return bytes;
    }
    let connection = database.connect().await;
    let engine = connection.get_database_backend();
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    for table in connection
        .query_all_raw(Statement::from_string(engine, tables))
        .await
        .unwrap()
    {
        let table: String = table.try_get_by_index(0).unwrap();
        let rows = format!("SELECT coalesce(string_agg(t::text, ''), '') FROM {table} t");
        let rows = connection
            .query_one_raw(Statement::from_string(engine, rows))
            .await
            .unwrap();
        bytes.extend(rows.unwrap().try_get_by_index::<String>(0).unwrap().into_bytes());
    }
    bytes
}

fn holds(contents: &[u8], text: &str) -> bool {
    // PostgreSQL shows a column of bytes in hexadecimal.
    let mut hex = String::new();
    for byte in text.bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    [text, &hex]
        .iter()
        .any(|text| contents.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// A client that keeps every response except those that issue a secret.
struct Client {
    base: String,
    token: String,
    responses: Vec<u8>,
}

impl Client {
    async fn send(&mut self, method: &str, path: &str, body: &Value, key: &str) -> ApiResponse {
        let ask = Ask::new(method, &self.base, path).token(&self.token);
        let ask = if body.is_null() { ask } else { ask.json(body) };
        ask.header("idempotency-key", key).send().await
    }

    async fn ask(&mut self, method: &str, path: &str, body: &Value) -> ApiResponse {
        let key = uuid::Uuid::new_v4().to_string();
        let response = self.send(method, path, body, &key).await;
        self.responses.extend(format!("{:?}", response.headers).bytes());
        self.responses.extend(&response.body);
        response
    }
}

/// Creates, rotates, reads and deletes webhooks, and makes requests that are refused. Returns the secrets that were issued.
async fn tour(client: &mut Client, url: &str) -> Vec<String> {
    let nothing = Value::Null;
    let body = json!({ "url": url });
    // Each once more with the same key: a response that is stored for a repetition must not contain the secret in plain text.
    let created = client.send("POST", "/v1/webhooks", &body, "first").await.expect(201);
    let again = client.send("POST", "/v1/webhooks", &body, "first").await.expect(201);
    let webhook = format!("/v1/webhooks/{}", created["id"].as_str().unwrap());
    let rotate = format!("{webhook}?rotate_secret=true");
    let rotated = client.send("PATCH", &rotate, &json!({}), "second").await.expect(200);
    for (method, path, body) in [
        ("GET", "/v1/webhooks".to_owned(), &nothing),
        ("GET", webhook.clone(), &nothing),
        ("PATCH", webhook.clone(), &json!({ "description": "Lab" })),
        ("POST", format!("{webhook}/test"), &nothing),
        ("GET", "/v1/webhook_deliveries".to_owned(), &nothing),
        ("GET", format!("{webhook}/audit"), &nothing),
        (
            "POST",
            "/v1/events".to_owned(),
            &json!({ "type": "webhook.test", "data": {} }),
        ),
        ("PUT", webhook.clone(), &nothing),
        ("GET", format!("{webhook}/audit?limit=0"), &nothing),
        ("DELETE", webhook.clone(), &nothing),
        ("GET", format!("{webhook}/audit"), &nothing),
    ] {
        client.ask(method, &path, body).await;
    }
    let secret = rotated["secret"].as_str().unwrap();
    let strange = format!("Bearer {} and {secret}", client.token);
    let ask = Ask::new("GET", &client.base, "/v1/webhooks").header("authorization", &strange);
    let refused = ask.send().await.expect_problem(401, "unauthorized");
    client.responses.extend(refused.to_string().bytes());
    assert!(holds(&client.responses, created["id"].as_str().unwrap()));
    let kept = client.send("POST", "/v1/webhooks", &body, "third").await.expect(201);
    [created, again, rotated, kept]
        .iter()
        .map(|webhook| webhook["secret"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn secrets_and_tokens_are_nowhere_as_they_are() {
    let receiver = Receiver::start([]).await;
    let database = TestDatabase::create().await;
    let logs = tempfile::tempdir().unwrap();
    let tell = || {
        let mut command = command(&database.options.url, logs.path());
        command.env("KALLIMA_LOG", "debug");
        if database.sqlite_folder().is_some() {
            command.env_remove("KALLIMA_MASTER_KEY");
        }
        command
    };
    let mut server = Process::launch(tell(), &[]).await;
    let token = server.printed_token().await;
    let mut client = Client {
        base: server.base.clone(),
        token: token.clone(),
        responses: Vec::new(),
    };
    let mut hidden = tour(&mut client, &receiver.url).await;
    hidden.push(token);
    let mut said = String::new();
    let commands: [&[&str]; 4] = [
        &["token", "list"],
        &["keys", "add"],
        &["keys", "rotate"],
        &["keys", "list"],
    ];
    for arguments in commands {
        let (_, output, complaint) = finish(tell(), arguments).await;
        said += &output;
        said += &complaint;
    }
    // As a power cut would leave it: what is in SQLite's log stays there.
    let log = server.kill_with_log().await;

    let contents = contents(&database).await;
    assert!(
        holds(&contents, &receiver.url),
        "the search sees what is there in clear"
    );
    assert!(holds(log.as_bytes(), "kallima.request.id"), "the log says something");
    for hidden in hidden {
        let (_, random) = hidden.split_once('_').unwrap();
        for (location, bytes) in [
            ("the database", contents.as_slice()),
            ("the log", log.as_bytes()),
            ("a response", client.responses.as_slice()),
            ("what a command says", said.as_bytes()),
        ] {
            assert!(
                !holds(bytes, random),
                "a secret or a token is in {location} in plain text"
            );
        }
    }
    if let Some(folder) = database.sqlite_folder() {
        let key = fs::metadata(folder.join("test.db.key")).expect("the key file was made");
        assert_eq!(key.permissions().mode() & 0o777, 0o600, "for the owner's eyes alone");
    }
}
