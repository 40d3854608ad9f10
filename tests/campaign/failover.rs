//! A failover: the primary is killed under load, its synchronous standby is promoted, and nodes that know both continue.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait as _, Statement};

use super::{journal::Journal, nodes::Nodes};
use crate::support::{app::eventually, client::Ask, cluster::Cluster, database::is_on_postgres};

/// How soon the service is back after the promotion, and how much longer a machine with other work may take.
const BACK_MAX: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_synchronous_standby_loses_nothing() {
    if !is_on_postgres() {
        return;
    }
    let primary = Cluster::start().await;
    let standby = primary.synchronous_standby().await;
    // The standby comes first: a server that accepts no writes is skipped.
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        standby.port, primary.port
    );
    let (journal, receiver) = Journal::start().await;
    let mut nodes = Nodes::start(url, 2, &receiver).await;
    nodes.publish_more();
    eventually(|| async { (nodes.acknowledged().len() >= 50).then_some(()) }).await;

    let killed = Instant::now();
    primary.kill().await;
    for base in nodes.bases() {
        eventually(|| async {
            let ready = Ask::new("GET", &base, "/readyz").send().await;
            (ready.status == 503).then_some(())
        })
        .await;
    }
    println!("not ready {:?} after the primary was killed", killed.elapsed());
    let before = nodes.acknowledged();
    standby.promote().await;
    let promoted = Instant::now();
    nodes.publish_more();
    eventually(|| async { nodes.acknowledged().difference(&before).next().map(drop) }).await;
    for base in nodes.bases() {
        eventually(|| async {
            let ready = Ask::new("GET", &base, "/readyz").send().await;
            (ready.status == 200).then_some(())
        })
        .await;
    }
    let back = promoted.elapsed();
    let acknowledged = nodes.stop_publishing().await;
    journal.all_arrived(&acknowledged).await;
    let survivor = sea_orm::Database::connect(&standby.url).await.unwrap();
    eventually(|| async {
        let leased = "SELECT 1 FROM queue WHERE lease_token IS NOT NULL";
        let leased = Statement::from_string(survivor.get_database_backend(), leased);
        survivor.query_one_raw(leased).await.unwrap().is_none().then_some(())
    })
    .await;
    let entries = journal.entries();
    let attempts: HashSet<_> = entries.iter().map(|entry| (&entry.delivery, entry.attempt)).collect();
    let deliveries: HashSet<_> = entries.iter().map(|entry| &entry.delivery).collect();
    println!(
        "failover: {} acknowledged, 0 lost, {} duplicates, back {back:?} after the promotion",
        acknowledged.len(),
        entries.len() - deliveries.len(),
    );
    assert_eq!(attempts.len(), entries.len(), "no attempt is made twice");
    assert_eq!(
        deliveries.len(),
        entries.len(),
        "what was sent is recorded, and not sent again"
    );
    assert!(back <= BACK_MAX + PATIENCE, "back {back:?} after the promotion");
}
