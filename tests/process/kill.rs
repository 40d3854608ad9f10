//! `kill -9` in the middle of a burst: every event that was acknowledged arrives.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Process;
use crate::support::{Receiver, app::eventually, client::Ask, database::TestDatabase};

/// Events in the burst.
const EVENTS: usize = 1000;

/// Publishers at once.
const PUBLISHERS: usize = 16;

/// Publishes until the burst is over or the server is gone, and keeps the ids that were acknowledged.
async fn publish(base: String, token: String, begun: Arc<AtomicUsize>, acknowledged: Arc<Mutex<HashSet<String>>>) {
    while begun.fetch_add(1, Ordering::SeqCst) < EVENTS {
        let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
        let ask = Ask::new("POST", &base, "/v1/events").token(&token).json(&body);
        // The server may be killed while it answers: then nothing was acknowledged.
        let Some(answer) = ask.try_send().await else { return };
        let event = answer.expect(202);
        acknowledged
            .lock()
            .await
            .insert(event["id"].as_str().unwrap().to_owned());
    }
}

async fn start(database: &TestDatabase) -> Process {
    // A short deadline: on PostgreSQL the leases of a killed node end by themselves.
    Process::start(&database.options.url, &["--attempt-timeout-ms", "1000"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_arrives_although_the_server_is_killed() {
    let database = TestDatabase::create().await;
    let receiver = Receiver::start([]).await;
    let mut server = start(&database).await;
    let token = server.printed_token().await;
    let register = Ask::new("POST", &server.base, "/v1/webhooks")
        .token(&token)
        .json(&json!({ "url": receiver.url }));
    let secret = register.send().await.expect(201)["secret"].as_str().unwrap().to_owned();

    let (begun, acknowledged) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(HashSet::new())));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            tokio::spawn(publish(
                server.base.clone(),
                token.clone(),
                begun.clone(),
                acknowledged.clone(),
            ))
        })
        .collect();
    eventually(|| async { (begun.load(Ordering::SeqCst) > EVENTS / 2).then_some(()) }).await;
    server.kill().await;
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let before = acknowledged.lock().await.clone();
    assert!(
        before.len() > EVENTS / 4 && before.len() < EVENTS,
        "killed in the middle: {} acknowledged",
        before.len()
    );

    // The rest of the burst goes to the server that is started again.
    let server = start(&database).await;
    begun.store(before.len(), Ordering::SeqCst);
    publish(server.base.clone(), token.clone(), begun, acknowledged.clone()).await;
    let acknowledged = acknowledged.lock().await.clone();
    let arrived = || {
        receiver
            .arrivals()
            .iter()
            .map(|arrival| arrival.header("webhook-id").to_owned())
            .collect::<HashSet<_>>()
    };
    eventually(|| async { acknowledged.is_subset(&arrived()).then_some(()) }).await;
    assert!(
        receiver
            .arrivals()
            .iter()
            .all(|arrival| arrival.is_signed_with(&secret)),
        "signatures survive the kill"
    );

    let pending = || async {
        let list = Ask::new("GET", &server.base, "/v1/webhook_deliveries?status=pending")
            .token(&token)
            .send()
            .await;
        (list.expect(200) == json!([])).then_some(())
    };
    eventually(pending).await;
    let numbers = attempt_numbers(&server, &token).await;
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "attempt numbers rise: {numbers:?}"
    );
    assert!(server.terminate().await.success());
}

/// The attempt numbers of the delivery that has most of them.
async fn attempt_numbers(server: &Process, token: &str) -> Vec<i64> {
    let ask = |path: String| Ask::new("GET", &server.base, &path).token(token).send();
    let deliveries = ask("/v1/webhook_deliveries?limit=200".to_owned()).await.expect(200);
    let most = deliveries
        .as_array()
        .unwrap()
        .iter()
        .max_by_key(|delivery| delivery["attempt_count"].as_i64());
    let id = most.unwrap()["id"].as_str().unwrap().to_owned();
    let attempts: Value = ask(format!("/v1/webhook_deliveries/{id}/attempts")).await.expect(200);
    attempts
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["number"].as_i64().unwrap())
        .collect()
}
