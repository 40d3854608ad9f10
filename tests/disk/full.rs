//! A full disk: what cannot be written is refused with 503, nothing acknowledged is lost, and once there is space again the
//! server recovers by itself.

use std::collections::HashSet;

use rusqlite::Connection;
use serde_json::json;
use uuid::Uuid;

use super::Disk;
use crate::{
    campaign::journal::Journal,
    process::{Process, command},
    support::{
        app::eventually,
        client::{ApiResponse, Ask},
    },
};

/// Refusals in a row by which the disk is full for good: SQLite's log has room of its own at first, which it uses again.
const REFUSALS: usize = 10;

async fn publish(server: &Process, token: &str, key: &str) -> ApiResponse {
    let data = json!({ "job_id": Uuid::nil(), "text": "x".repeat(20_000) });
    let event = json!({ "type": "job.completed", "data": data });
    let ask = Ask::new("POST", &server.base, "/v1/events").token(token);
    ask.header("idempotency-key", key).json(&event).send().await
}

/// Registers a webhook, publishes, fills the disk until events are refused, and makes room again. Returns the events that
/// were acknowledged; all of them have arrived.
pub(super) async fn fill_and_make_room(server: &Process, token: &str, disk: &Disk) -> HashSet<String> {
    let (receiver, url) = Journal::start().await;
    let register = Ask::new("POST", &server.base, "/v1/webhooks").token(token);
    register.json(&json!({ "url": url })).send().await.expect(201);

    let mut acknowledged = HashSet::new();
    let mut keep = |response: &ApiResponse| {
        let event = response.expect(202)["id"].as_str().unwrap().to_owned();
        acknowledged.insert(event);
    };
    for number in 0..5 {
        keep(&publish(server, token, &format!("before {number}")).await);
    }
    disk.set_full(true);
    let mut refused = Vec::new();
    for number in 0.. {
        if refused.len() >= REFUSALS {
            break;
        }
        let key = format!("full {number}");
        let response = publish(server, token, &key).await;
        if response.status == 202 {
            keep(&response);
            refused.clear();
        } else {
            response.expect_problem(503, "service_unavailable");
            assert!(response.header("retry-after").is_some());
            refused.push(key);
        }
    }
    let events = Ask::new("GET", &server.base, "/v1/events").token(token).send().await;
    assert_ne!(events.expect(200), json!([]), "what is there can be read");

    disk.set_full(false);
    for key in refused {
        // The same request is done now, and it was not before.
        let response = eventually(async || {
            let response = publish(server, token, &key).await;
            (response.status != 503).then_some(response)
        });
        let response = response.await;
        assert_eq!(response.header("idempotency-replayed"), None);
        keep(&response);
    }
    receiver.all_arrived(&acknowledged).await;
    acknowledged
}

#[tokio::test]
async fn a_full_disk_is_503_and_the_server_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    let disk = Disk::new(folder.path());
    let mut command = command(&format!("sqlite://{}", file.display()), folder.path());
    disk.under(&mut command);
    let mut server = Process::launch(command, &[]).await;
    server.log.expect("the database is not available");
    // Whatever else writes says the same, and nothing worse.
    server.log.allow("database or disk is full");
    let token = server.printed_token().await;
    let acknowledged = fill_and_make_room(&server, &token, &disk).await;
    assert!(server.terminate().await.success());
    let connection = Connection::open(file).unwrap();
    let check = connection.query_one("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok");
    let mut stored = connection.prepare("SELECT id FROM events").unwrap();
    let stored = stored.query_map([], |row| row.get(0)).unwrap();
    let stored: HashSet<String> = stored.map(Result::unwrap).collect();
    assert_eq!(
        stored, acknowledged,
        "all that was acknowledged, and nothing that was refused"
    );
}
