//! Outcomes of attempts are recorded, however long the database is away; connections to it may be lost unnoticed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    App, Gate, Receiver, Reply,
    app::eventually,
    database::{TestDatabase, is_pooled},
    proxy::Proxy,
};

#[tokio::test]
async fn an_attempt_is_recorded_however_long_the_database_was_away() {
    let mut database = TestDatabase::create().await;
    if !database.is_postgres() {
        // Only a database elsewhere can be away.
        return;
    }
    let (proxy, through) = Proxy::before(&database.options.url).await;
    database.options.url = through;
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200).held_by(&gate)]).await;
    let app = App::builder()
        .arguments(&["--dev"])
        .manual_clock()
        .patient()
        .start_on(database)
        .await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    receiver.wait_for(1).await;

    proxy.cut(true);
    gate.open();
    eventually(|| async { (app.get("/readyz").await.status == 503).then_some(()) }).await;
    // The lease has ended long ago.
    app.clock.advance(Duration::from_hours(1));
    eventually(|| async { (app.get("/readyz").await.status == 503).then_some(()) }).await;
    proxy.cut(false);
    eventually(|| async { (app.get("/readyz").await.status == 200).then_some(()) }).await;
    // The heartbeat decides readiness; a connection that was cut off is noticed only by the request that uses it.
    eventually(|| async { (app.get("/v1/webhooks").await.status == 200).then_some(()) }).await;
    let delivered = app
        .delivery_when(&event, |delivery| delivery["status"] == "delivered")
        .await;
    assert_eq!(delivered["attempt_count"], json!(1));
    app.engine_has_looked().await;
    assert_eq!(receiver.arrivals().len(), 1, "the receiver got it once");
}

#[tokio::test]
async fn connections_that_a_firewall_has_forgotten_are_replaced() {
    let mut database = TestDatabase::create().await;
    if !database.is_postgres() || is_pooled() {
        return;
    }
    let (proxy, through) = Proxy::before(&database.options.url).await;
    database.options.url = through;
    database.options.statement_timeout_ms = 1000;
    let receiver = Receiver::start([]).await;
    let app = App::builder().arguments(&["--dev"]).start_on(database).await;
    app.webhook(&receiver.url).await;
    app.publish().await;
    receiver.wait_for(1).await;

    proxy.forget();
    let began = Instant::now();
    // In the middle of statements: an idle connection is tested before it is used.
    let publish = async || {
        let event = json!({ "type": "webhook.test", "data": {} });
        app.post("/v1/events", &event).await.status == 202
    };
    eventually(|| async { publish().await.then_some(()) }).await;
    eventually(|| async { (app.get("/readyz").await.status == 200).then_some(()) }).await;
    eventually(|| async { (app.get("/v1/webhooks").await.status == 200).then_some(()) }).await;
    receiver.wait_for(2).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
}
