//! What was pending when the server stopped is picked up by the next one.

use std::time::Duration;

use kallima_webhooks::domain::token::Scope;

use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn a_new_server_goes_on_where_the_last_one_stopped() {
    let receiver = Receiver::start([Reply::status(500), Reply::status(500), Reply::status(500)]).await;
    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "1,1,1"])
        .start()
        .await;
    let secret = app.webhook(&receiver.url).await["secret"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        let event = app.publish().await;
        app.after_attempt(&event, 1).await;
    }
    let organization = app.organization;
    let database = app.stop().await;
    let failed = receiver.arrivals().len();
    assert_eq!(failed, 3);

    let app = App::builder()
        .arguments(&["--dev", "--retry-schedule-s", "1,1,1"])
        .start_on(database)
        .await;
    let arrivals = receiver.wait_for(6).await;
    assert!(arrivals.iter().all(|arrival| arrival.is_signed_with(&secret)));
    let (token, _) = app.new_token(Some(organization), &[Scope::WebhooksRead]).await;
    for arrival in &arrivals[3..] {
        assert_eq!(arrival.header("kallima-attempt"), "2");
        let path = format!("/v1/webhook_deliveries/{}", arrival.header("kallima-delivery"));
        crate::support::app::eventually(|| async {
            let delivery = app.ask("GET", &path).token(&token).send().await.expect(200);
            (delivery["status"] == "delivered").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn stopping_lets_the_attempt_under_way_finish() {
    let receiver = Receiver::start([Reply::status(200).after(Duration::from_millis(400))]).await;
    let app = App::dev().await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    receiver.wait_for(1).await;
    let organization = app.organization;
    let database = app.stop().await;
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
