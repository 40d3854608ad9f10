//! Master keys: listed, added, and every secret sealed again while the server runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use kallima_webhooks::{
    clock::Clock,
    config::DatabaseOptions,
    store::{
        Database,
        secrets::{Resealed, Sealed, key_use, reseal, stale_secrets},
    },
};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Process, command, finish};
use crate::support::{
    App, Receiver,
    client::Ask,
    database::{MASTER_KEY, TestDatabase},
};

/// A database whose master keys are in a file.
struct Site {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let site = Self {
            database: TestDatabase::create().await,
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(site.key_file(), MASTER_KEY).unwrap();
        site
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("master.key")
    }

    fn command(&self) -> Command {
        let mut command = command(&self.database.options.url, self.folder.path());
        command
            .env_remove("KALLIMA_MASTER_KEY")
            .env("KALLIMA_MASTER_KEY_FILE", self.key_file());
        command
    }

    async fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        finish(self.command(), arguments).await
    }

    async fn listed(&self) -> Vec<String> {
        let (done, listed, complaint) = self.run(&["keys", "list"]).await;
        assert!(done, "{complaint}");
        let mut lines = listed.lines();
        assert!(lines.next().unwrap().starts_with("KEY  SECRETS"), "{listed}");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.map(words).collect()
    }
}

async fn create(server: &Process, token: &str, url: &str) -> Value {
    let ask = Ask::new("POST", &server.base, "/v1/webhooks").token(token);
    ask.json(&json!({ "url": url })).send().await.expect(201)
}

/// Sends a test event and verifies its signature with the secret.
async fn is_signed(server: &Process, token: &str, webhook: &Value, receiver: &Receiver) {
    let path = format!("/v1/webhooks/{}/test", webhook["id"].as_str().unwrap());
    let response = Ask::new("POST", &server.base, &path).token(token).send().await;
    assert_eq!(response.expect(200)["status"], "delivered");
    let arrival = receiver.arrivals().pop().unwrap();
    assert!(arrival.is_signed_with(webhook["secret"].as_str().unwrap()));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_master_key_is_changed_while_the_server_runs() {
    let receiver = Receiver::start([]).await;
    let site = Site::new().await;
    let mut server = Process::launch(site.command(), &[]).await;
    let token = server.printed_token().await;
    let mut webhooks = Vec::new();
    for _ in 0..4 {
        webhooks.push(create(&server, &token, &receiver.url).await);
    }
    assert_eq!(site.listed().await, ["1 4 0 - seals every new secret"]);

    let (done, said, complaint) = site.run(&["keys", "add"]).await;
    assert!(done && said.contains("Key 2 is now the first"), "{said}{complaint}");
    let text = fs::read_to_string(site.key_file()).unwrap();
    assert!(
        text.starts_with("2:") && text.lines().nth(1) == Some(MASTER_KEY),
        "the old key stays"
    );
    assert_eq!(mode(&site.key_file()), 0o600, "for the owner's eyes alone");
    is_signed(&server, &token, &webhooks[0], &receiver).await;
    // The server seals with the new key from now on, without being restarted.
    webhooks.push(create(&server, &token, &receiver.url).await);
    let expected = ["2 1 0 - seals every new secret", "1 4 0 -"];
    assert_eq!(site.listed().await, expected);

    // A secret that its owner rotates in the meantime is left alone.
    let rotations = async {
        let path = format!(
            "/v1/webhooks/{}?rotate_secret=true",
            webhooks[3]["id"].as_str().unwrap()
        );
        let mut last = Value::Null;
        for _ in 0..20 {
            let response = Ask::new("PATCH", &server.base, &path).token(&token).send().await;
            last = response.expect(200);
        }
        last
    };
    let ((done, said, complaint), rotated) = tokio::join!(site.run(&["keys", "rotate"]), rotations);
    assert!(done && said.contains("Key 2 seals every secret"), "{said}{complaint}");
    webhooks[3] = rotated;
    let (done, said, _) = site.run(&["keys", "rotate"]).await;
    assert!(
        done && said.starts_with("0 secrets were sealed again"),
        "again changes nothing: {said}"
    );
    let expected = ["2 5 0 - seals every new secret", "1 0 0 - no longer needed"];
    assert_eq!(site.listed().await, expected);

    // The old key can be removed: neither this server nor the next one needs it.
    fs::write(site.key_file(), text.lines().next().unwrap()).unwrap();
    for webhook in &webhooks {
        is_signed(&server, &token, webhook, &receiver).await;
    }
    assert!(server.terminate().await.success());
    let server = Process::launch(site.command(), &[]).await;
    for webhook in &webhooks {
        is_signed(&server, &token, webhook, &receiver).await;
    }
}

#[tokio::test]
async fn a_key_that_is_not_there_is_named() {
    let site = Site::new().await;
    let mut server = Process::launch(site.command(), &[]).await;
    let token = server.printed_token().await;
    let ask = Ask::new("POST", &server.base, "/v1/webhooks").token(&token);
    let ask = ask.header("idempotency-key", "one");
    ask.json(&json!({ "url": "http://127.0.0.1:9/" }))
        .send()
        .await
        .expect(201);
    let other = MASTER_KEY.replacen("1:", "7:", 1);
    fs::write(site.key_file(), other).unwrap();
    let listed = site.listed().await;
    assert_eq!(listed[0], "7 0 0 - seals every new secret");
    let (_, json, _) = site.run(&["keys", "list", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["key_id"], 7);
    assert_eq!((&json[1]["is_given"], &json[1]["secrets"]), (&json!(false), &json!(1)));
    assert!(
        listed[1].starts_with("1 1 1 20") && listed[1].ends_with("+00:00 MISSING: what it seals cannot be opened"),
        "{listed:?}"
    );
    let (done, _, complaint) = site.run(&["keys", "rotate"]).await;
    assert!(
        !done && complaint.contains("no given key opens the secrets"),
        "{complaint}"
    );

    let mut given = site.command();
    given
        .env_remove("KALLIMA_MASTER_KEY_FILE")
        .env("KALLIMA_MASTER_KEY", MASTER_KEY);
    let (done, _, complaint) = finish(given, &["keys", "add"]).await;
    assert!(!done && complaint.contains("given by --master-key"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
}

#[tokio::test]
async fn keys_that_are_added_at_once_all_stand_in_the_file() {
    let site = Site::new().await;
    let add = || site.run(&["keys", "add"]);
    let (first, second, third) = tokio::join!(add(), add(), add());
    for (done, _, complaint) in [first, second, third] {
        assert!(done, "{complaint}");
    }
    let text = fs::read_to_string(site.key_file()).unwrap();
    let ids: Vec<&str> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(ids, ["4", "3", "2", "1"]);
}

#[tokio::test]
async fn a_key_file_behind_a_link_stays_there() {
    let site = Site::new().await;
    let (real, link) = (site.folder.path().join("elsewhere.key"), site.key_file());
    fs::rename(&link, &real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let (done, _, complaint) = site.run(&["keys", "add"]).await;
    assert!(done, "{complaint}");
    assert!(
        fs::symlink_metadata(&link).unwrap().is_symlink(),
        "the link is one still"
    );
    assert_eq!(fs::read_to_string(&real).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_server_with_a_key_that_opens_nothing_does_not_start() {
    let site = Site::new().await;
    let mut server = Process::launch(site.command(), &[]).await;
    let token = server.printed_token().await;
    create(&server, &token, "http://127.0.0.1:9/").await;
    assert!(server.terminate().await.success());
    let wrong = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    for (keys, named) in [
        (format!("1:{wrong}"), "master key 1 is not the one"),
        (format!("2:{wrong}"), "sealed with master key 1, which is not given"),
    ] {
        fs::write(site.key_file(), keys).unwrap();
        let arguments = ["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"];
        let (done, printed, complaint) = site.run(&arguments).await;
        assert!(!done && printed.is_empty() && complaint.contains(named), "{complaint}");
        assert_eq!(
            complaint.lines().last().unwrap().matches("error: ").count(),
            1,
            "{complaint}"
        );
    }
    fs::write(site.key_file(), MASTER_KEY).unwrap();
    assert!(Process::launch(site.command(), &[]).await.terminate().await.success());
}

#[tokio::test]
async fn a_key_file_that_was_just_made_is_not_read_again() {
    let database = TestDatabase::sqlite().await;
    let folder = database.sqlite_folder().unwrap();
    fs::remove_file(folder.join("test.db.key")).unwrap();
    let mut command = command(&database.options.url, folder);
    command.env_remove("KALLIMA_MASTER_KEY").env("KALLIMA_LOG", "info");
    let mut server = Process::launch(command, &[]).await;
    let token = server.printed_token().await;
    create(&server, &token, "http://127.0.0.1:9/").await;
    server.signal("TERM").await;
    let (status, said) = server.ended_with_log().await;
    assert!(
        status.success() && said.contains("stopping") && !said.contains("read again"),
        "{said}"
    );
}

/// The app's database, as a node sees it whose first key is number 9.
async fn beside(app: &App) -> Database {
    let old = app.database.sqlite_folder().map_or_else(
        || MASTER_KEY.to_owned(),
        |folder| fs::read_to_string(folder.join("test.db.key")).unwrap(),
    );
    let new = MASTER_KEY.replacen("1:", "9:", 1);
    let options = DatabaseOptions {
        master_key: Some(format!("{new} {old}")),
        ..app.database.options.clone()
    };
    Database::open(&options, &Clock::system()).await.unwrap()
}

#[tokio::test]
async fn a_kept_response_holds_its_key_until_it_expires() {
    let app = App::builder().manual_clock().start().await;
    let ask = || app.ask("POST", "/v1/webhooks").header("idempotency-key", "one");
    let ask = || ask().json(&json!({ "url": "https://example.com/" }));
    let webhook = ask().send().await.expect(201);
    let beside = beside(&app).await;
    let expiry = app.clock.now().plus(Duration::from_hours(24));
    let page = stale_secrets(&beside, None, 100).await.unwrap();
    assert_eq!(reseal(&beside, page.stale).await.unwrap().resealed, 1);
    let (new, old) = (
        Sealed {
            key_id: 9,
            secrets: 1,
            ..Sealed::default()
        },
        Sealed {
            key_id: 1,
            responses: 1,
            responses_until: Some(expiry),
            ..Sealed::default()
        },
    );
    let given = async |now| key_use(&beside, now).await.unwrap().given;
    assert_eq!(given(expiry.minus(Duration::from_millis(1))).await, [new, old]);
    let unused = Sealed {
        key_id: 1,
        ..Sealed::default()
    };
    assert_eq!(given(expiry).await, [new, unused]);
    // With the old key in its keyring, the service returns the stored response, even if the secret has changed.
    let again = ask().send().await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(201), webhook);
}

#[tokio::test]
async fn a_secret_that_was_rotated_or_deleted_since_it_was_read_is_left_alone() {
    let receiver = Receiver::start([]).await;
    let app = App::dev().await;
    let rotated = app.webhook(&receiver.url).await;
    let deleted = app.webhook(&receiver.url).await;
    let beside = beside(&app).await;
    let page = stale_secrets(&beside, None, 100).await.unwrap();
    assert_eq!((page.stale.len(), page.cursor), (2, None));

    let path = |webhook: &Value| format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let rotate = format!("{}?rotate_secret=true", path(&rotated));
    let rotated = app.ask("PATCH", &rotate).send().await.expect(200);
    app.delete(&path(&deleted)).await.expect(204);
    let expected = Resealed {
        overtaken: 2,
        ..Resealed::default()
    };
    assert_eq!(reseal(&beside, page.stale).await.unwrap(), expected);
    app.publish().await;
    let arrival = receiver.wait_for(1).await.remove(0);
    assert!(arrival.is_signed_with(rotated["secret"].as_str().unwrap()));
}
