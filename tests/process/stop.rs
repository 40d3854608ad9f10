//! SIGTERM: first not ready, then nothing new, then finish what is in progress; a second signal ends it at once.

use std::time::{Duration, Instant};

use kallima_webhooks::{clock::Clock, store::Database};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::Process;
use crate::support::{
    Gate, Receiver, Reply,
    app::eventually,
    client::Ask,
    database::{TestDatabase, is_on_postgres},
    proxy::Proxy,
};

async fn publish(base: &str, token: &str) -> u16 {
    let body = json!({ "type": "job.completed", "data": { "job_id": Uuid::new_v4() } });
    let ask = Ask::new("POST", base, "/v1/events").token(token).json(&body);
    ask.send().await.status.as_u16()
}

async fn register(base: &str, token: &str, url: &str) {
    let ask = Ask::new("POST", base, "/v1/webhooks").token(token);
    ask.json(&json!({ "url": url })).send().await.expect(201);
}

/// How many deliveries meet a condition.
async fn count(database: &TestDatabase, rows: &str) -> i64 {
    let connection = database.connect().await;
    let sql = format!("SELECT count(*) FROM {rows}");
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_is_not_ready_but_serves_until_a_second_signal() {
    let database = TestDatabase::create().await;
    let mut server = Process::start(&database.options.url, &["--shutdown-delay-ms", "300000"]).await;
    let token = server.printed_token().await;
    let ready = || Ask::new("GET", &server.base, "/readyz").send();
    ready().await.expect(200);
    server.signal("TERM").await;
    let problem = eventually(|| async { Some(ready().await).filter(|response| response.status == 503) }).await;
    let problem = problem.expect_problem(503, "service_unavailable");
    assert_eq!(problem["detail"], "The service is stopping.");
    assert_eq!(publish(&server.base, &token).await, 202, "requests are still taken");
    assert_eq!(
        Ask::new("GET", &server.base, "/healthz").send().await.status,
        200,
        "it is alive"
    );
    let began = Instant::now();
    server.log.expect("error: a second signal ended it at once");
    assert!(!server.terminate().await.success(), "cut off is no good end");
    assert!(
        began.elapsed() < Duration::from_mins(1),
        "the second signal ends it at once, not after the five minutes of the delay"
    );
}

#[tokio::test]
async fn a_hangup_is_no_reason_to_stop() {
    let database = TestDatabase::create().await;
    let server = Process::start(&database.options.url, &["--log", "info"]).await;
    for _ in 0..3 {
        server.signal("HUP").await;
        Ask::new("GET", &server.base, "/readyz").send().await.expect(200);
    }
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn after_the_delay_it_stops_by_itself() {
    let database = TestDatabase::create().await;
    let server = Process::start(&database.options.url, &["--shutdown-delay-ms", "300"]).await;
    let began = Instant::now();
    assert!(server.terminate().await.success());
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "not before the delay is over"
    );
}

#[tokio::test]
async fn at_its_end_attempts_in_progress_are_recorded_and_no_lease_is_left() {
    let database = TestDatabase::create().await;
    // In progress when the signal comes, and fewer at once than there are.
    let gate = Gate::new();
    let receiver = Receiver::start((0..4).map(|_| Reply::status(200).held_by(&gate))).await;
    let arguments = ["--attempts-max", "4", "--attempt-timeout-ms", "120000"];
    let mut server = Process::start(&database.options.url, &arguments).await;
    let token = server.printed_token().await;
    register(&server.base, &token, &receiver.url).await;
    for _ in 0..12 {
        assert_eq!(publish(&server.base, &token).await, 202);
    }
    receiver.wait_for(4).await;
    server.signal("TERM").await;
    let address = server.base.trim_start_matches("http://");
    eventually(|| async { TcpStream::connect(address).await.is_err().then_some(()) }).await;
    gate.open();
    assert!(server.ended().await.success());
    assert_eq!(
        count(&database, "queue WHERE lease_token IS NOT NULL").await,
        0,
        "no lease is left behind"
    );
    let delivered = count(&database, "deliveries WHERE status = 'delivered'").await;
    assert!(delivered >= 4, "what was in progress is recorded: {delivered}");
    let db = Database::open(&database.options, &Clock::system()).await.unwrap();
    assert!(db.takes_writes().await.unwrap());
    let arrivals = receiver.arrivals().len();
    assert_eq!(
        i64::try_from(arrivals).unwrap(),
        delivered,
        "every attempt that was made is recorded"
    );
}

#[tokio::test]
async fn a_database_that_hangs_holds_up_no_stop() {
    if !is_on_postgres() {
        return;
    }
    let database = TestDatabase::create().await;
    let (proxy, through) = Proxy::before(&database.options.url).await;
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200).held_by(&gate)]).await;
    let mut server = Process::start(&through, &["--attempt-timeout-ms", "3000"]).await;
    let token = server.printed_token().await;
    register(&server.base, &token, &receiver.url).await;
    assert_eq!(publish(&server.base, &token).await, 202);
    receiver.wait_for(1).await;
    proxy.freeze();
    gate.open();
    let troubles = [
        "the database",
        "takes writes",
        "the heartbeat failed",
        "could not",
        "leases",
    ];
    for trouble in troubles {
        server.log.allow(trouble);
    }
    server.log.expect("the database does not answer: stopping without it");
    let began = Instant::now();
    assert!(server.terminate().await.success());
    // An attempt and ten seconds, as docs/operations.md says, and time for a slow machine.
    assert!(
        began.elapsed() < Duration::from_secs(3 + 10 + 5),
        "{:?}",
        began.elapsed()
    );
}
