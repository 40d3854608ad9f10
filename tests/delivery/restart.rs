//! Deliveries that are pending when a server stops are picked up by the next one.

use std::time::Duration;

use kallima_webhooks::domain::token::Scope;
use tokio::net::TcpStream;

use crate::support::{App, Gate, Receiver, Reply, app::eventually};

#[tokio::test]
async fn a_new_server_goes_on_where_the_last_one_stopped() {
    let receiver = Receiver::start([Reply::status(500), Reply::status(500), Reply::status(500)]).await;
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "1,1,1"])
        .manual_clock()
        .start()
        .await;
    let secret = app.webhook(&receiver.url).await["secret"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        let event = app.publish().await;
        app.after_attempt(&event, 1).await;
    }
    let (organization, clock) = (app.organization, app.clock.clone());
    let database = app.stop().await;
    clock.advance(Duration::from_secs(2));
    let failed = receiver.arrivals().len();
    assert_eq!(failed, 3);

    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "1,1,1"])
        .clock(clock)
        .start_on(database)
        .await;
    let arrivals = receiver.wait_for(6).await;
    assert!(arrivals.iter().all(|arrival| arrival.is_signed_with(&secret)));
    let (token, _) = app.new_token(Some(organization), &[Scope::WebhooksRead]).await;
    for arrival in &arrivals[3..] {
        assert_eq!(arrival.header("kallima-attempt"), "2");
        let path = format!("/v1/webhook_deliveries/{}", arrival.header("kallima-delivery"));
        eventually(|| async {
            let delivery = app.ask("GET", &path).token(&token).send().await.expect(200);
            (delivery["status"] == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn stopping_lets_the_attempt_in_progress_finish() {
    let gate = Gate::new();
    let receiver = Receiver::start([Reply::status(200).held_by(&gate)]).await;
    let app = App::builder().arguments(&["--dev"]).patient().start().await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    receiver.wait_for(1).await;
    let (organization, base) = (app.organization, app.base.clone());
    let stopping = async {
        // Once it accepts no more connections, it has begun to stop, and the attempt is still in progress.
        let address = base.trim_start_matches("http://");
        eventually(|| async { TcpStream::connect(address).await.is_err().then_some(()) }).await;
        gate.open();
    };
    let (database, ()) = tokio::join!(app.stop(), stopping);
    let app = App::builder().arguments(&["--dev"]).start_on(database).await;
    let (token, _) = app.new_token(Some(organization), &[Scope::WebhooksRead]).await;
    let path = format!("/v1/webhook_deliveries?event_id={event}");
    let delivery = app.ask("GET", &path).token(&token).send().await.expect(200)[0].clone();
    assert_eq!(
        (&delivery["status"], &delivery["attempt_count"]),
        (&"delivered".into(), &1.into())
    );
    assert_eq!(receiver.arrivals().len(), 1, "it was not sent again");
}
