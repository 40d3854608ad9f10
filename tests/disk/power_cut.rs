//! The power is cut at random instants while events are published to a server with SQLite: none that was acknowledged is lost, and the database
//! is sound.
//!
//! Each round kills the server, takes from its files what the disk need not have kept, and starts it again on the rest.
//! Besides, each round looks at what a cut at earlier instants would have left. A few rounds run with the suite,
//! `KALLIMA_POWER_CUT_ROUNDS=100 cargo test power_cut -- --nocapture` runs more.
#![expect(clippy::print_stdout, reason = "it tells what it saw, as the campaign does")]

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use rusqlite::Connection;
use serde_json::json;
use tokio::{process::Command, task::JoinSet};
use uuid::Uuid;

use super::{
    Disk, is_shared_memory,
    journal::{Contents, Left},
    restore,
};
use crate::{
    campaign::{journal::Journal, variable},
    process::{Process, command},
    support::{app::eventually, client::Ask, database::MASTER_KEY},
};

/// Rounds that run with the suite.
const ROUNDS: u32 = 4;

/// Earlier instants that each round looks at.
const INSTANTS: usize = 8;

const PUBLISHERS: usize = 6;

/// An event that was acknowledged, and how far the disk's journal went by then.
pub(super) struct Acknowledged {
    pub(super) event: String,
    written: usize,
}

/// A server's folder, and what it has promised so far.
struct Site {
    folder: tempfile::TempDir,
    token: String,
    receiver: String,
    acknowledged: HashSet<String>,
}

impl Site {
    /// A folder without a database: the first round makes it, and its master key.
    fn new(receiver: String) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            token: String::new(),
            receiver,
            acknowledged: HashSet::new(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self) -> Command {
        let url = format!("sqlite://{}", self.path().join("test.db").display());
        let mut command = command(&url, &std::env::temp_dir());
        command.env_remove("KALLIMA_MASTER_KEY");
        command
    }

    /// Starts the server on a disk. The first time it gets a token and a webhook.
    async fn start(&mut self, disk: &Disk) -> Process {
        let mut command = self.command();
        disk.under(&mut command);
        let mut server = Process::launch(command, &[]).await;
        if self.token.is_empty() {
            self.token = server.printed_token().await;
            let register = Ask::new("POST", &server.base, "/v1/webhooks").token(&self.token);
            register.json(&json!({ "url": self.receiver })).send().await.expect(201);
        }
        server
    }
}

/// Publishes until so many events are acknowledged, and kills the server in the midst of more.
pub(super) async fn publish_until_killed(
    server: Process,
    token: &str,
    disk: &Arc<Disk>,
    count: usize,
) -> Vec<Acknowledged> {
    let (acknowledged, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (base, token, disk) = (server.base.clone(), token.to_owned(), Arc::clone(disk));
        let (acknowledged, is_over) = (Arc::clone(&acknowledged), Arc::clone(&is_over));
        publishers.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                // Large enough that SQLite moves its log into the database in most rounds.
                let data = json!({ "job_id": Uuid::new_v4(), "text": "x".repeat(150_000) });
                let ask = Ask::new("POST", &base, "/v1/events").token(&token);
                let event = ask.json(&json!({ "type": "job.completed", "data": data }));
                let Some(response) = event.try_send().await else { return };
                let event = response.expect(202)["id"].as_str().unwrap().to_owned();
                let written = disk.written();
                acknowledged.lock().unwrap().push(Acknowledged { event, written });
            }
        });
    }
    eventually(async || (acknowledged.lock().unwrap().len() >= count).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..30))).await;
    let held = disk.hold();
    server.kill().await;
    drop(held);
    is_over.store(true, Ordering::SeqCst);
    publishers.join_all().await;
    std::mem::take(&mut *acknowledged.lock().unwrap())
}

/// How many rounds to run, and the seed of what happens in them.
pub(super) fn rounds_and_seed(in_the_suite: u32) -> (u32, u64) {
    let rounds = variable("KALLIMA_POWER_CUT_ROUNDS").unwrap_or(in_the_suite);
    let seed = variable("KALLIMA_POWER_CUT_SEED").unwrap_or_else(|| rand::rng().random());
    println!("power cuts: {rounds} rounds, KALLIMA_POWER_CUT_SEED={seed}");
    (rounds, seed)
}

/// Which of these events a disk with these files has lost. Its database must be sound.
fn lost(contents: &Contents, events: &HashSet<String>) -> HashSet<String> {
    const KEPT: &str = "
        SELECT event_id FROM deliveries
        WHERE status = 'delivered' OR id IN (SELECT delivery_id FROM queue WHERE owed)";
    if events.is_empty() {
        return HashSet::new();
    }
    let folder = tempfile::tempdir().unwrap();
    restore(folder.path(), contents);
    let connection = Connection::open(folder.path().join("test.db")).unwrap();
    let check = connection.query_one("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok");
    let Ok(mut kept) = connection.prepare(KEPT) else {
        // There are no tables.
        return events.clone();
    };
    let kept = kept.query_map([], |row| row.get(0)).unwrap();
    let kept: HashSet<String> = kept.map(Result::unwrap).collect();
    events.difference(&kept).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let (rounds, seed) = rounds_and_seed(ROUNDS);
    let mut random = StdRng::seed_from_u64(seed);
    let (receiver, url) = Journal::start().await;
    let mut site = Site::new(url);
    for round in 1..=rounds {
        let disk = Arc::new(Disk::new(site.path()));
        let server = site.start(&disk).await;
        let new = publish_until_killed(server, &site.token, &disk, random.random_range(1..40)).await;
        let (journal, before) = disk.read();

        for _ in 0..INSTANTS {
            let instant = random.random_range(0..=journal.len());
            let mut image = before.clone();
            image.replay(&journal[..instant]);
            let left = *[Left::Nothing, Left::Some, Left::All].choose(&mut random).unwrap();
            let mut promised = site.acknowledged.clone();
            promised.extend(
                new.iter()
                    .filter(|new| new.written <= instant)
                    .map(|new| new.event.clone()),
            );
            let lost = lost(&image.cut(left, &mut random), &promised);
            assert!(
                lost.is_empty(),
                "LOST at {instant} of {}, {left:?}: {lost:?}",
                journal.len()
            );
        }

        let mut image = before;
        image.replay(&journal);
        disk.has_seen_all(&image, is_shared_memory);
        let left = *[Left::Nothing, Left::Some].choose(&mut random).unwrap();
        let contents = image.cut(left, &mut random);
        site.acknowledged.extend(new.into_iter().map(|new| new.event));
        let lost = lost(&contents, &site.acknowledged);
        assert!(lost.is_empty(), "LOST in round {round}, {left:?}: {lost:?}");
        restore(site.path(), &contents);
        println!(
            "round {round}: {} acknowledged by now, {left:?} left of what was not synced, {} kB moved out of SQLite's log, \
             0 lost",
            site.acknowledged.len(),
            contents["test.db"].as_ref().map_or(0, Vec::len) / 1000
        );
    }
    // Its master key is there, too: everything is signed and delivered.
    let _server = Process::launch(site.command(), &[]).await;
    receiver.all_arrived(&site.acknowledged).await;
}

#[tokio::test]
async fn a_master_key_is_on_disk_before_it_seals_anything() {
    let site = Site::new(String::new());
    // The database and its log are there and durable before the key is: SQLite must sync the folder once more for it.
    let mut with_key = site.command();
    with_key.env("KALLIMA_MASTER_KEY", MASTER_KEY);
    let mut server = Process::launch(with_key, &[]).await;
    let token = server.printed_token().await;
    server.kill().await;

    let disk = Disk::new(site.path());
    let mut command = site.command();
    disk.under(&mut command);
    let server = Process::launch(command, &[]).await;
    let register = Ask::new("POST", &server.base, "/v1/webhooks").token(&token);
    register
        .json(&json!({ "url": "http://127.0.0.1:9/" }))
        .send()
        .await
        .expect(201);
    let held = disk.hold();
    server.kill().await;
    drop(held);
    let (journal, mut image) = disk.read();
    image.replay(&journal);
    disk.has_seen_all(&image, is_shared_memory);
    let contents = image.cut(Left::Nothing, &mut rand::rng());
    let names: Vec<_> = contents.keys().collect();
    assert!(
        matches!(contents.get("test.db.key"), Some(Some(key)) if !key.is_empty()),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fsync_a_power_cut_loses_events() {
    let (_receiver, url) = Journal::start().await;
    let mut site = Site::new(url);
    let disk = Arc::new(Disk::new(site.path()));
    let server = site.start(&disk).await;
    let first = publish_until_killed(server, &site.token, &disk, 5).await;
    let disk = Arc::new(Disk::that_ignores_sync(site.path()));
    let server = site.start(&disk).await;
    let new = publish_until_killed(server, &site.token, &disk, 5).await;
    let (journal, mut image) = disk.read();
    image.replay(&journal);
    let contents = image.cut(Left::Nothing, &mut rand::rng());
    let events = |acknowledged: Vec<Acknowledged>| acknowledged.into_iter().map(|new| new.event).collect();
    assert!(
        lost(&contents, &events(first)).is_empty(),
        "what was there before stays"
    );
    assert!(
        !lost(&contents, &events(new)).is_empty(),
        "the disk has kept what was never synced"
    );
}
