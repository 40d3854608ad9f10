//! Secrets and tokens are nowhere in the database as they are.

use std::{fs, os::unix::fs::PermissionsExt as _};

use sea_orm::{ConnectionTrait as _, Statement};

use crate::support::{App, Receiver, database::TestDatabase};

/// All that the database holds, as bytes: SQLite's files, or PostgreSQL's rows as text.
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
    for table in [
        "organizations",
        "tokens",
        "webhooks",
        "events",
        "deliveries",
        "attempts",
    ] {
        // Bytes are shown as they are where they can be, so that a secret would be seen.
        let sql = format!("SELECT encode(convert_to(string_agg(t::text, ''), 'UTF8'), 'escape') FROM {table} t");
        let row = connection
            .query_one_raw(Statement::from_string(connection.get_database_backend(), sql))
            .await
            .unwrap();
        bytes.extend(
            row.unwrap()
                .try_get_by_index::<Option<String>>(0)
                .unwrap()
                .unwrap_or_default()
                .into_bytes(),
        );
    }
    let sealed = "SELECT encode(secret, 'escape') FROM webhooks";
    for row in connection
        .query_all_raw(Statement::from_string(connection.get_database_backend(), sealed))
        .await
        .unwrap()
    {
        bytes.extend(row.try_get_by_index::<String>(0).unwrap().into_bytes());
    }
    bytes
}

fn holds(contents: &[u8], text: &str) -> bool {
    contents.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn secrets_and_tokens_are_not_in_the_database_as_they_are() {
    let receiver = Receiver::start([]).await;
    let app = App::dev().await;
    let webhook = app.webhook(&receiver.url).await;
    let rotate = format!("/v1/webhooks/{}?rotate_secret=true", webhook["id"].as_str().unwrap());
    let rotated = app.ask("PATCH", &rotate).send().await.expect(200);
    app.publish().await;
    let arrivals = receiver.wait_for(1).await;
    let secrets = [&webhook["secret"], &rotated["secret"]].map(|secret| secret.as_str().unwrap().to_owned());
    assert!(arrivals[0].is_signed_with(&secrets[1]), "what is sealed opens again");
    let token = app.token.clone();
    let database = app.stop().await;

    let contents = contents(&database).await;
    assert!(
        holds(&contents, &receiver.url),
        "the search sees what is there in clear"
    );
    for hidden in secrets.iter().chain([&token]) {
        let (_, random) = hidden.split_once('_').unwrap();
        assert!(
            !holds(&contents, random),
            "a secret or a token is in the database as it is"
        );
    }
    if let Some(folder) = database.sqlite_folder() {
        let key = fs::metadata(folder.join("test.db.key")).expect("the key file was made");
        assert_eq!(key.permissions().mode() & 0o777, 0o600, "for the owner's eyes alone");
    }
}
