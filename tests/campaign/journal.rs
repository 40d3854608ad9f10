//! A receiver that records what it gets and when.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::HeaderMap};
use rand::RngExt as _;

/// What arrived.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) event: String,
    pub(crate) delivery: String,
    pub(crate) attempt: u32,
}

/// A receiver that always answers 200, within 20 ms.
#[derive(Clone, Default)]
pub(crate) struct Journal {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    entries: Vec<Entry>,
    first: HashMap<String, Instant>,
}

impl Journal {
    /// Starts it: the journal, and its URL.
    pub(crate) async fn start() -> (Self, String) {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        let journal = Self::default();
        let router = Router::new().fallback(receive).with_state(journal.clone());
        tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
        (journal, url)
    }

    /// All that arrived, in its order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.shared.lock().unwrap().entries.clone()
    }

    /// Those of these events that have not arrived.
    pub(crate) fn missing(&self, events: &HashSet<String>) -> HashSet<String> {
        let shared = self.shared.lock().unwrap();
        let missing = events.iter().filter(|event| !shared.first.contains_key(*event));
        missing.cloned().collect()
    }

    /// When the last of these events arrived for the first time, as soon as all of them have.
    pub(crate) async fn all_arrived(&self, events: &HashSet<String>) -> Instant {
        let patience = Instant::now() + Duration::from_mins(2);
        loop {
            if self.missing(events).is_empty() {
                let shared = self.shared.lock().unwrap();
                let times = events.iter().map(|event| shared.first[event]);
                return times.max().unwrap_or_else(Instant::now);
            }
            assert!(Instant::now() < patience, "LOST: {:?}", self.missing(events));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn receive(State(journal): State<Journal>, headers: HeaderMap) {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let entry = Entry {
        event: header("webhook-id"),
        delivery: header("kallima-delivery"),
        attempt: header("kallima-attempt").parse().unwrap(),
    };
    let pause = {
        let mut shared = journal.shared.lock().unwrap();
        shared.first.entry(entry.event.clone()).or_insert_with(Instant::now);
        shared.entries.push(entry);
        Duration::from_millis(rand::rng().random_range(0..20))
    };
    tokio::time::sleep(pause).await;
}
