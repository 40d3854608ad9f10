//! A node that is paused past its lease and resumes: it changes nothing, and sends at most the attempt it had started.

use serde_json::json;
use uuid::Uuid;

use crate::{
    process::Process,
    support::{Gate, Receiver, Reply, app::eventually, client::Ask, database::TestDatabase},
};

#[tokio::test]
async fn a_node_that_slept_past_its_lease_changes_nothing() {
    let database = TestDatabase::create().await;
    if !database.is_postgres() {
        // An SQLite database has no other node that could take the lease.
        return;
    }
    let arguments = ["--attempt-timeout-ms", "60000"];
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(500).held_by(&gate)]).await;
    let mut sleeper = Process::start(&database.options.url, &arguments).await;
    let token = sleeper.printed_token().await;
    let ask = |base: &str, method: &str, path: &str| Ask::new(method, base, path).token(&token);
    let register = ask(&sleeper.base, "POST", "/v1/webhooks").json(&json!({ "url": receiver.url }));
    register.send().await.expect(201);
    let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
    ask(&sleeper.base, "POST", "/v1/events")
        .json(&body)
        .send()
        .await
        .expect(202);
    receiver.wait_for(1).await;
    sleeper.signal("STOP").await;

    let mut other = Process::start(&database.options.url, &arguments).await;
    other.log.expect("a node has died; its leases were released");
    sleeper.log.expect("the lease was lost during the attempt");
    let delivery = || async {
        let list = ask(&other.base, "GET", "/v1/webhook_deliveries")
            .send()
            .await
            .expect(200);
        list[0].clone()
    };
    receiver.wait_for(2).await;
    let delivered =
        eventually(|| async { Some(delivery().await).filter(|found| found["status"] == "delivered") }).await;
    assert_eq!(delivered["attempt_count"], 2, "the other node made the second attempt");
    // By now the sleeper's attempt has its response, or its deadline, and nowhere to record it.
    gate.open();
    sleeper.signal("CONT").await;
    // Its last heartbeat was long ago; it is ready with the next one.
    let ready = || Ask::new("GET", &sleeper.base, "/readyz").send();
    eventually(|| async { (ready().await.status == 200).then_some(()) }).await;
    assert!(
        sleeper.terminate().await.success(),
        "no attempt is in progress any more"
    );
    assert_eq!(delivery().await, delivered);
    let numbers: Vec<_> = receiver
        .arrivals()
        .iter()
        .map(|arrival| arrival.header("kallima-attempt").to_owned())
        .collect();
    assert_eq!(numbers, ["1", "2"], "nothing was sent twice");
    let path = format!("/v1/webhook_deliveries/{}/attempts", delivered["id"].as_str().unwrap());
    let attempts = ask(&other.base, "GET", &path).send().await.expect(200);
    let recorded: Vec<_> = attempts
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["number"].as_u64().unwrap())
        .collect();
    assert_eq!(recorded, [2], "the attempt of the lost lease is no history");
}
