//! The same power cuts, under the test's own PostgreSQL server.

use std::{collections::HashSet, sync::Arc};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::json;

use super::{
    Disk,
    full::fill_and_make_room,
    journal::{Image, Left},
    power_cut::{publish_until_killed, rounds_and_seed},
    restore,
};
use crate::{
    campaign::journal::Journal,
    process::Process,
    support::{client::Ask, cluster::Cluster, database::TestDatabase},
};

/// Rounds that run with the suite.
const ROUNDS: u32 = 2;

/// What PostgreSQL writes through C's own buffers: caches and notes that it recreates at each start.
fn is_recreated(name: &str) -> bool {
    ["pg_internal.init", "postmaster.opts"]
        .iter()
        .any(|end| name.ends_with(end))
        || name.starts_with("pg_stat/")
}

/// Puts what a power cut leaves into the folder of a cluster that was stopped.
fn cut(cluster: &Cluster, image: &Image, left: Left, random: &mut StdRng) {
    let mut contents = image.cut(left, random);
    // It names the processes of the last server. A power cut ends them all, but here one may still be about to end.
    contents.remove("postmaster.pid");
    restore(&cluster.data(), &contents);
    cluster.adopt();
}

/// Starts a node after the last one was killed.
async fn node(cluster: &Cluster) -> Process {
    let mut node = Process::start(&cluster.url, &[]).await;
    node.log.allow("a node has died");
    node
}

/// Which of these events the server has lost.
async fn lost(cluster: &Cluster, events: &HashSet<String>) -> HashSet<String> {
    const KEPT: &str = "
        SELECT event_id FROM deliveries
        WHERE status = 'delivered' OR id IN (SELECT delivery_id FROM queue WHERE owed)";
    let connection = sea_orm::Database::connect(&cluster.url).await.unwrap();
    let kept = Statement::from_string(DbBackend::Postgres, KEPT);
    let kept = connection.query_all_raw(kept).await.unwrap();
    connection.close().await.unwrap();
    let kept: HashSet<String> = kept.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    events.difference(&kept).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_under_postgres_loses_nothing_that_was_acknowledged() {
    if !TestDatabase::create().await.is_postgres() {
        return;
    }
    let (rounds, seed) = rounds_and_seed(ROUNDS);
    let mut random = StdRng::seed_from_u64(seed);
    let (receiver, url) = Journal::start().await;
    let cluster = Cluster::start().await;
    let mut server = Process::start(&cluster.url, &[]).await;
    let token = server.printed_token().await;
    let register = Ask::new("POST", &server.base, "/v1/webhooks").token(&token);
    register.json(&json!({ "url": url })).send().await.expect(201);
    assert!(server.terminate().await.success());
    cluster.control(&["stop", "-m", "fast"], &[]).await;

    let mut acknowledged = HashSet::new();
    for round in 1..=rounds {
        let disk = Arc::new(Disk::new(&cluster.data()));
        cluster.start_with(&disk.variables()).await;
        let lost = lost(&cluster, &acknowledged).await;
        assert!(lost.is_empty(), "LOST before round {round}: {lost:?}");
        let server = node(&cluster).await;
        let new = publish_until_killed(server, &token, &disk, random.random_range(1..40)).await;
        cluster.control(&["stop", "-m", "immediate"], &[]).await;

        let (journal, mut image) = disk.read();
        image.replay(&journal);
        acknowledged.extend(new.into_iter().map(|new| new.event));
        let left = *[Left::Nothing, Left::Some].choose(&mut random).unwrap();
        cut(&cluster, &image, left, &mut random);
    }
    cluster.start_with(&[]).await;
    let lost = lost(&cluster, &acknowledged).await;
    assert!(lost.is_empty(), "LOST: {lost:?}");
    let _server = node(&cluster).await;
    receiver.all_arrived(&acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fsync_a_power_cut_under_postgres_loses_events() {
    if !TestDatabase::create().await.is_postgres() {
        return;
    }
    let (_receiver, url) = Journal::start().await;
    let cluster = Cluster::start().await;
    cluster.control(&["stop", "-m", "fast"], &[]).await;
    let publish = async |disk: Arc<Disk>, token: Option<String>| {
        cluster.start_with(&disk.variables()).await;
        let mut server = node(&cluster).await;
        let token = if let Some(token) = token {
            token
        } else {
            let token = server.printed_token().await;
            let register = Ask::new("POST", &server.base, "/v1/webhooks").token(&token);
            register.json(&json!({ "url": url })).send().await.expect(201);
            token
        };
        let new = publish_until_killed(server, &token, &disk, 5).await;
        cluster.control(&["stop", "-m", "immediate"], &[]).await;
        let (journal, mut image) = disk.read();
        image.replay(&journal);
        cut(&cluster, &image, Left::Nothing, &mut StdRng::seed_from_u64(1));
        (token, new.into_iter().map(|new| new.event).collect::<HashSet<_>>())
    };
    let (token, first) = publish(Arc::new(Disk::new(&cluster.data())), None).await;
    let (_, new) = publish(Arc::new(Disk::that_ignores_sync(&cluster.data())), Some(token)).await;
    cluster.start_with(&[]).await;
    assert!(lost(&cluster, &first).await.is_empty(), "what was there before stays");
    assert!(
        !lost(&cluster, &new).await.is_empty(),
        "the disk has kept what was never synced"
    );
}

#[tokio::test]
async fn a_full_disk_under_postgres_is_503_and_the_server_goes_on_once_there_is_room() {
    if !TestDatabase::create().await.is_postgres() {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.control(&["stop", "-m", "fast"], &[]).await;
    let disk = Disk::new(&cluster.data());
    cluster.start_with(&disk.variables()).await;
    let mut server = Process::start(&cluster.url, &[]).await;
    server.log.expect("the database is not available");
    // Whatever else writes says the same, and nothing worse.
    server.log.allow("could not extend file");
    let token = server.printed_token().await;
    let acknowledged = fill_and_make_room(&server, &token, &disk).await;
    assert!(lost(&cluster, &acknowledged).await.is_empty());
    assert!(server.terminate().await.success());
    cluster.control(&["stop", "-m", "fast"], &[]).await;
    let (journal, mut image) = disk.read();
    image.replay(&journal);
    disk.has_seen_all(&image, is_recreated);
}
