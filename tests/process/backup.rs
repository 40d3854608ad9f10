//! `backup`: copying the database of a server under load, and serving from the copy.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
};

use kallima_webhooks::store::upkeep::backup::{self, Progress};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinSet};

use super::{Process, command, finish, run};
use crate::support::{
    Receiver, Reply,
    app::eventually,
    beside,
    client::Ask,
    database::TestDatabase,
    receiver::{Arrival, Gate},
};

/// A command on an SQLite file whose key is the file beside it.
fn on(path: &Path) -> Command {
    let mut command = command(&format!("sqlite://{}", path.display()), &std::env::temp_dir());
    command.env_remove("KALLIMA_MASTER_KEY");
    command
}

/// The ids of events that were acknowledged.
type Acknowledged = Arc<Mutex<Vec<String>>>;

/// Publishes until the task is aborted, one event after the other.
async fn publish(base: String, token: String, acknowledged: Acknowledged) {
    loop {
        let body = json!({ "type": "job.completed", "data": { "job_id": uuid::Uuid::new_v4() } });
        let response = Ask::new("POST", &base, "/v1/events").token(&token).json(&body);
        let event = response.send().await.expect(202);
        let id = event["id"].as_str().unwrap().to_owned();
        acknowledged.lock().unwrap().push(id);
    }
}

async fn register(server: &Process, token: &str, receiver: &Receiver) -> String {
    let ask = Ask::new("POST", &server.base, "/v1/webhooks").token(token);
    let webhook: Value = ask.json(&json!({ "url": receiver.url })).send().await.expect(201);
    webhook["secret"].as_str().unwrap().to_owned()
}

fn events_of(arrivals: &[Arrival]) -> BTreeSet<String> {
    arrivals
        .iter()
        .map(|arrival| arrival.header("webhook-id").to_owned())
        .collect()
}

/// The states of the deliveries that a copy has of an event.
async fn states(copy: &sea_orm::DatabaseConnection, event: &str) -> Vec<String> {
    let states = Statement::from_sql_and_values(
        copy.get_database_backend(),
        "SELECT status FROM deliveries WHERE event_id = $1",
        [event.into()],
    );
    let rows = copy.query_all_raw(states).await.unwrap();
    rows.iter().map(|row| row.try_get("", "status").unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_is_delivered_or_pending_in_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (live, copy) = (folder.path().join("live.db"), folder.path().join("copy.db"));
    let mut server = Process::launch(on(&live), &[]).await;
    let token = server.printed_token().await;
    // One responds at once. The other holds what it gets, so that the copy has leased and waiting deliveries.
    let gate = Gate::new();
    let held = std::iter::repeat_n(Reply::status(200).held_by(&gate), 1000);
    let (prompt, slow) = (Receiver::start([]).await, Receiver::start(held).await);
    register(&server, &token, &prompt).await;
    let secret = register(&server, &token, &slow).await;
    let acknowledged = Acknowledged::default();
    let mut load = JoinSet::new();
    for _ in 0..2 {
        load.spawn(publish(server.base.clone(), token.clone(), Arc::clone(&acknowledged)));
    }
    let count = || acknowledged.lock().unwrap().len();
    eventually(|| async { (count() >= 60).then_some(()) }).await;
    let held = events_of(&slow.wait_for(10).await);
    let before = acknowledged.lock().unwrap().clone();
    let arguments = ["backup", "--with-key", "--to", copy.to_str().unwrap()];
    let (done, said, complaint) = finish(on(&live), &arguments).await;
    assert!(
        done && said.contains("read it back and checked it"),
        "{said}{complaint}"
    );
    assert!(complaint.is_empty(), "{complaint}");
    eventually(|| async { (count() > before.len()).then_some(()) }).await;
    load.shutdown().await;
    server.kill().await;
    slow.forget();

    let key = folder.path().join("copy.db.key");
    assert_eq!((mode(&copy), mode(&key)), (0o600, 0o600));
    assert!(fs::read(&key).unwrap() == fs::read(folder.path().join("live.db.key")).unwrap());
    let copied = beside::connect(&format!("sqlite://{}", copy.display())).await;
    let arrived = events_of(&prompt.arrivals());
    for event in &before {
        let states = states(&copied, event).await;
        assert_eq!(states.len(), 2, "{event} is owed to two webhooks");
        for state in states {
            assert!(["delivered", "pending"].contains(&state.as_str()), "{event} is {state}");
        }
    }
    copied.close().await.unwrap();
    let restored = Process::launch(on(&copy), &[]).await;
    let before: BTreeSet<String> = before.into_iter().collect();
    let again = slow.arrivals().len();
    eventually(|| async { before.is_subset(&events_of(&slow.arrivals())).then_some(()) }).await;
    eventually(|| async { before.is_subset(&events_of(&prompt.arrivals())).then_some(()) }).await;
    eventually(|| async { held.is_subset(&events_of(&slow.arrivals()[again..])).then_some(()) }).await;
    assert!(!arrived.is_empty());
    // A repeated delivery has the same event id, by which receivers recognize it, and the same bytes.
    let arrivals = slow.arrivals();
    for event in &held {
        let of_event = |arrival: &&Arrival| arrival.header("webhook-id") == event;
        let bodies: BTreeSet<_> = arrivals.iter().filter(of_event).map(|arrival| &arrival.body).collect();
        assert!(
            bodies.len() == 1 && arrivals.iter().filter(of_event).count() >= 2,
            "{event}"
        );
    }
    assert!(
        arrivals.iter().all(|arrival| arrival.is_signed_with(&secret)),
        "the key opens the secrets"
    );
    assert!(restored.terminate().await.success());
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_leaves_the_key_out() {
    let database = TestDatabase::sqlite().await;
    let live = database.sqlite_folder().unwrap().join("test.db");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    let to = copy.to_str().unwrap();
    let (done, said, complaint) = finish(on(&live), &["backup", "--to", to]).await;
    assert!(done && complaint.is_empty(), "{complaint}");
    assert!(said.contains("The master keys are not included"), "{said}");
    let files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files, std::slice::from_ref(&copy), "one file, and nothing beside it");
    assert_eq!(mode(&copy), 0o600);

    let before = fs::read(&copy).unwrap();
    let other = folder.path().join("other.db");
    fs::write(folder.path().join("other.db-journal"), "of a database that was here").unwrap();
    fs::write(folder.path().join("third.db.key"), "of another").unwrap();
    let third = folder.path().join("third.db");
    for (to, with_key, taken) in [
        (&copy, false, "copy.db exists already"),
        (&other, false, "other.db-journal exists already"),
        (&third, true, "third.db.key exists already"),
        (&folder.path().join("none/copy.db"), false, "cannot write"),
    ] {
        let mut arguments = vec!["backup", "--to", to.to_str().unwrap()];
        arguments.extend(with_key.then_some("--with-key"));
        let (done, _, complaint) = finish(on(&live), &arguments).await;
        assert!(!done && complaint.contains(taken), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    assert!(fs::read(&copy).unwrap() == before && !other.exists() && !third.exists());
}

#[tokio::test]
async fn a_backup_reports_how_much_is_copied_and_when_it_reads_the_copy_back() {
    let database = TestDatabase::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let mut reported = Vec::new();
    let made = backup::make(&database.options, &folder.path().join("copy.db"), false, |progress| {
        reported.push(progress);
    });
    made.unwrap();
    let last = reported.pop();
    assert_eq!(last, Some(Progress::Checking), "{reported:?}");
    let copied = reported.last();
    assert!(
        matches!(copied, Some(Progress::Copied { pages, total }) if pages == total && *total > 0),
        "{reported:?}"
    );
}

#[tokio::test]
async fn of_postgres_it_says_how() {
    let database = TestDatabase::create().await;
    if !database.is_postgres() {
        return;
    }
    let (done, _, complaint) = run(&database, &["backup", "--to", "/tmp/never-made.db"]).await;
    assert!(
        !done && complaint.contains("pg_dump --format=custom") && complaint.contains("pg_restore"),
        "{complaint}"
    );
}
