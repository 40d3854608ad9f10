//! The nodes of a campaign, and publishers that use whichever is alive.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::seq::IndexedRandom as _;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{process::Process, support::client::Ask};

/// Publishers at once.
const PUBLISHERS: usize = 8;

/// Events that may be published in a round: a bound to the load, reached only where a round takes long.
const EVENTS_A_ROUND: i64 = 400;

/// Short attempts, so that leases are short; but none so short that a machine with other work reaches its deadline: the
/// receiver would have got it, and would get it once more.
const ARGUMENTS: [&str; 4] = ["--attempt-timeout-ms", "5000", "--attempts-per-webhook-max", "32"];

/// What a node may warn of while other nodes die and its database goes away.
const TROUBLE: [&str; 15] = [
    "terminating connection due to immediate shutdown",
    "error communicating with database",
    "a node has died",
    "the heartbeat failed",
    "the database is not available",
    "the connection broke while a write was committed",
    "due deliveries could not be claimed; retrying soon",
    "an attempt could not be recorded yet",
    "leases could not be renewed",
    "ended leases could not be released",
    "retrying later",
    "switched to another PostgreSQL server",
    "no PostgreSQL server takes writes",
    // A commit that the database's end leaves in doubt: of a claim or a publication, whose leases then end by themselves,
    // or of a record, which is written again and finds its lease gone.
    "leases ended without a record",
    "the lease was lost",
];

async fn start(url: &str) -> Process {
    let mut node = Process::start(url, &ARGUMENTS).await;
    for text in TROUBLE {
        node.log.allow(text);
    }
    node
}

pub(crate) struct Nodes {
    url: String,
    processes: Vec<Option<Process>>,
    shared: Arc<Shared>,
    publishers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    token: String,
    /// Where the living nodes are.
    bases: Mutex<Vec<Option<String>>>,
    acknowledged: Mutex<HashSet<String>>,
    /// Events that may still be published.
    budget: AtomicI64,
    ended: AtomicBool,
}

impl Nodes {
    /// Starts so many nodes on a database, one webhook, and the publishers.
    pub(crate) async fn start(url: String, count: usize, receiver: &str) -> Self {
        let mut first = start(&url).await;
        let token = first.printed_token().await;
        let register = Ask::new("POST", &first.base, "/v1/webhooks").token(&token);
        register.json(&json!({ "url": receiver })).send().await.expect(201);
        let mut processes = vec![Some(first)];
        while processes.len() < count {
            processes.push(Some(start(&url).await));
        }
        let bases = processes.iter().flatten().map(|node| Some(node.base.clone())).collect();
        let shared = Arc::new(Shared {
            token,
            bases: Mutex::new(bases),
            ..Shared::default()
        });
        let mut publishers = JoinSet::new();
        for _ in 0..PUBLISHERS {
            publishers.spawn(publish(Arc::clone(&shared)));
        }
        Self {
            url,
            processes,
            shared,
            publishers,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.processes.len()
    }

    /// Where the living nodes are.
    pub(crate) fn bases(&self) -> Vec<String> {
        self.shared.bases.lock().unwrap().iter().flatten().cloned().collect()
    }

    /// Lets the publishers begin the events of another round.
    pub(crate) fn publish_more(&self) {
        self.shared.budget.store(EVENTS_A_ROUND, Ordering::SeqCst);
    }

    /// The events that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> HashSet<String> {
        self.shared.acknowledged.lock().unwrap().clone()
    }

    /// Kills a node, and says when.
    pub(crate) async fn kill(&mut self, victim: usize) -> Instant {
        self.shared.bases.lock().unwrap()[victim] = None;
        let process = self.processes[victim].take().unwrap();
        let killed = Instant::now();
        process.kill().await;
        killed
    }

    /// Starts a killed node again, and says when it was there.
    pub(crate) async fn restart(&mut self, victim: usize) -> Instant {
        let process = start(&self.url).await;
        self.shared.bases.lock().unwrap()[victim] = Some(process.base.clone());
        self.processes[victim] = Some(process);
        Instant::now()
    }

    /// Ends publishing, once what was begun is answered: all that was acknowledged.
    pub(crate) async fn stop_publishing(&mut self) -> HashSet<String> {
        self.shared.ended.store(true, Ordering::SeqCst);
        while let Some(ended) = self.publishers.join_next().await {
            ended.unwrap();
        }
        self.acknowledged()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.publishers.abort_all();
    }
}

/// Publishes through any living node, and writes down what was acknowledged.
async fn publish(shared: Arc<Shared>) {
    while !shared.ended.load(Ordering::SeqCst) {
        let base = {
            let bases = shared.bases.lock().unwrap();
            let alive: Vec<_> = bases.iter().flatten().cloned().collect();
            alive.choose(&mut rand::rng()).cloned()
        };
        let (Some(base), true) = (base, shared.budget.fetch_sub(1, Ordering::SeqCst) > 0) else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
        let ask = Ask::new("POST", &base, "/v1/events").token(&shared.token).json(&body);
        match ask.try_send().await {
            Some(response) if response.status == 202 => {
                let id = response.json()["id"].as_str().unwrap().to_owned();
                shared.acknowledged.lock().unwrap().insert(id);
            }
            // Without its database a node says so; without a response nothing was promised.
            unsure => {
                assert!(unsure.is_none_or(|response| response.status == 503));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
