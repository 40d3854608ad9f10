//! `DELETE /v1/webhooks/{webhook_id}`.

use std::time::Duration;

use crate::support::{App, Receiver, Reply};

#[tokio::test]
async fn what_is_pending_is_canceled_and_the_log_stays() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(503)]).await;
    let path = format!(
        "/v1/webhooks/{}",
        app.webhook(&receiver.url).await["id"].as_str().unwrap()
    );
    let event = app.publish().await;
    app.after_attempt(&event, 1).await;
    let response = app.delete(&path).await;
    response.expect(204);
    for ask in [app.get(&path).await, app.delete(&path).await] {
        ask.expect_problem(404, "not_found");
    }
    let delivery = app.delivery_of(&event).await;
    assert_eq!(
        (&delivery["status"], &delivery["response_status"]),
        (&"canceled".into(), &503.into()),
        "{delivery}"
    );
    let log = format!("/v1/webhook_deliveries/{}", delivery["id"].as_str().unwrap());
    assert_eq!(
        app.get(&format!("{log}/attempts"))
            .await
            .expect(200)
            .as_array()
            .unwrap()
            .len(),
        1
    );
    app.ask("POST", &format!("{log}/retry"))
        .send()
        .await
        .expect_problem(409, "conflict");

    app.advance(Duration::from_hours(1)).await;
    let other = Receiver::start([]).await;
    app.webhook(&other.url).await;
    app.publish().await;
    other.wait_for(1).await;
    assert_eq!(
        receiver.arrivals().len(),
        1,
        "a canceled delivery is never attempted again"
    );
}
