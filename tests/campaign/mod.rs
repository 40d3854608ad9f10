//! The crash campaign: nodes are killed at random instants while events are published, on PostgreSQL the database is
//! cut off or crashed besides, and at the end nothing that was acknowledged may be lost.
//!
//! Five rounds run with the suite. The fastest recovery must be as fast as it is promised: other work makes one late now
//! and then, and none early. `KALLIMA_CAMPAIGN_ROUNDS=50 cargo test campaign -- --nocapture` runs a long one, which holds
//! each of them to the promise; that needs a machine with nothing else to do.
//! `KALLIMA_CAMPAIGN_SEED` repeats the decisions of an earlier one.
#![expect(clippy::print_stdout, reason = "a campaign tells what it saw")]

mod failover;
pub(crate) mod journal;
mod nodes;
mod stopped;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sea_orm::{ConnectionTrait as _, Statement};

use self::{journal::Journal, nodes::Nodes};
use crate::support::{app::eventually, cluster::Cluster, database::TestDatabase, proxy::Proxy};

/// Rounds that run with the suite.
const ROUNDS: u32 = 5;

/// Every so many rounds the database is cut off for [`CUT`], on PostgreSQL.
const CUT_EVERY: u32 = 5;

/// Every so many rounds PostgreSQL is crashed and started again.
const CRASH_EVERY: u32 = 10;

/// How long the database is out of reach.
const CUT: Duration = Duration::from_millis(700);

/// How soon a restarted SQLite node has delivered what it owed.
const SQLITE_RECOVERY_MAX: Duration = Duration::from_secs(1);

/// How soon another PostgreSQL node has delivered what a killed one owed.
const POSTGRES_RECOVERY_MAX: Duration = Duration::from_secs(5);

/// How much longer the slowest may take on a machine that runs the rest of the suite at the same time.
const PATIENCE: Duration = Duration::from_secs(15);

/// A campaign and what it has seen so far.
struct Campaign {
    // What depends on another thing goes before it when this is dropped.
    nodes: Nodes,
    journal: Journal,
    proxy: Option<Proxy>,
    database: TestDatabase,
    cluster: Option<Cluster>,
    random: StdRng,
    /// Attempts that were in progress when something was broken: each may be repeated.
    in_progress: u64,
    recoveries: Vec<Duration>,
}

pub(crate) fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaign_of_crashes_loses_nothing() {
    let asked: Option<u32> = variable("KALLIMA_CAMPAIGN_ROUNDS");
    let rounds = asked.unwrap_or(ROUNDS);
    let seed = variable("KALLIMA_CAMPAIGN_SEED").unwrap_or_else(|| rand::rng().random());
    println!("crash campaign: {rounds} rounds, KALLIMA_CAMPAIGN_SEED={seed}");
    let mut campaign = Campaign::start(rounds, seed).await;
    for round in 1..=rounds {
        campaign.round(round).await;
    }
    campaign.finish(rounds, asked.is_some()).await;
}

impl Campaign {
    async fn start(rounds: u32, seed: u64) -> Self {
        let mut database = TestDatabase::create().await;
        let mut cluster = None;
        if database.is_postgres() && rounds >= CRASH_EVERY {
            let own = Cluster::start().await;
            database = TestDatabase::on_server(own.url.clone()).await;
            cluster = Some(own);
        }
        let mut url = database.options.url.clone();
        let mut proxy = None;
        if database.is_postgres() {
            let (started, through) = Proxy::before(&url).await;
            url = through;
            proxy = Some(started);
        }
        let (journal, receiver) = Journal::start().await;
        let count = if database.is_postgres() { 2 } else { 1 };
        let nodes = Nodes::start(url, count, &receiver).await;
        Self {
            database,
            proxy,
            cluster,
            nodes,
            journal,
            random: StdRng::seed_from_u64(seed),
            in_progress: 0,
            recoveries: Vec::new(),
        }
    }

    async fn round(&mut self, round: u32) {
        self.nodes.publish_more();
        let instant = self.random.random_range(50..600);
        tokio::time::sleep(Duration::from_millis(instant)).await;
        if self.database.is_postgres() && round.is_multiple_of(CUT_EVERY) {
            self.in_progress += self.leased().await;
            if let (Some(cluster), true) = (&self.cluster, round.is_multiple_of(CRASH_EVERY)) {
                cluster.crash().await;
            } else if let Some(proxy) = &self.proxy {
                proxy.cut(true);
                tokio::time::sleep(CUT).await;
                proxy.cut(false);
            }
        }
        let victim = self.random.random_range(0..self.nodes.count());
        let killed = self.nodes.kill(victim).await;
        let owed = self.journal.missing(&self.nodes.acknowledged());
        self.in_progress += self.leased().await;
        // SQLite has no other node: its time counts from the restart.
        let began = if self.database.is_postgres() {
            killed
        } else {
            self.nodes.restart(victim).await
        };
        let recovered = self.journal.all_arrived(&owed).await.saturating_duration_since(began);
        if self.database.is_postgres() {
            self.nodes.restart(victim).await;
        }
        println!(
            "round {round}: node {victim} killed, {} owed, recovered in {recovered:?}",
            owed.len()
        );
        // A database that was away just before has a recovery of its own.
        if !owed.is_empty() && (!self.database.is_postgres() || !round.is_multiple_of(CUT_EVERY)) {
            self.recoveries.push(recovered);
        }
    }

    /// Attempts that some node is making.
    async fn leased(&self) -> u64 {
        let connection = self.database.connect().await;
        let sql = "SELECT count(*) FROM queue WHERE lease_token IS NOT NULL";
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index::<i64>(0).unwrap().unsigned_abs()
    }

    async fn finish(mut self, rounds: u32, strict: bool) {
        let acknowledged = self.nodes.stop_publishing().await;
        self.journal.all_arrived(&acknowledged).await;
        eventually(|| async { (self.leased().await == 0).then_some(()) }).await;

        let entries = self.journal.entries();
        let events: HashSet<_> = entries.iter().map(|entry| &entry.event).collect();
        let duplicates = (entries.len() - events.len()) as u64;
        let fastest = self.recoveries.iter().min().copied().unwrap_or_default();
        let slowest = self.recoveries.iter().max().copied().unwrap_or_default();
        println!(
            "{rounds} rounds: {} acknowledged, 0 lost, {duplicates} duplicates ({} attempts were in progress at the \
             crashes), slowest recovery {slowest:?}",
            acknowledged.len(),
            self.in_progress,
        );
        assert!(
            duplicates <= self.in_progress,
            "each duplicate is an attempt that was cut off"
        );
        let mut last: HashMap<&str, u32> = HashMap::new();
        for entry in &entries {
            let before = last.insert(&entry.delivery, entry.attempt).unwrap_or(0);
            assert!(before < entry.attempt, "attempt numbers rise: {before}, then {entry:?}");
        }
        let promised = if self.database.is_postgres() {
            POSTGRES_RECOVERY_MAX
        } else {
            SQLITE_RECOVERY_MAX
        };
        let allowed = if strict { promised } else { promised + PATIENCE };
        assert!(
            fastest <= promised,
            "recovered in {fastest:?} at least, {promised:?} are promised"
        );
        assert!(
            slowest <= allowed,
            "recovered in {slowest:?}, at most {allowed:?} are allowed"
        );
    }
}
