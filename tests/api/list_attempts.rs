//! `GET /v1/webhook_deliveries/{delivery_id}/attempts`.

use serde_json::{Value, json};

use crate::support::{
    App, Receiver, Reply,
    pages::{lengths, pages},
};

#[tokio::test]
async fn every_attempt_is_listed_by_its_number_over_the_pages() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let receiver = Receiver::start([Reply::status(500).body("no"), Reply::status(302), Reply::status(200)]).await;
    app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let path = format!("/v1/webhook_deliveries/{}", delivery["id"].as_str().unwrap());
    for _ in 0..2 {
        app.ask("POST", &format!("{path}/retry")).send().await.expect(200);
    }
    let found = pages(&app, &format!("{path}/attempts?limit=2")).await;
    assert_eq!(lengths(&found), [2, 1]);
    let members = ["number", "trigger", "response_status", "response_body", "error"];
    let shown = |attempt: &Value| Value::from_iter(members.map(|member| attempt[member].clone()));
    let seen: Vec<Value> = found.iter().flatten().map(shown).collect();
    assert_eq!(
        seen,
        [
            json!([1, "automatic", 500, "no", "response_status"]),
            json!([2, "manual", 302, "", "redirect"]),
            json!([3, "manual", 200, "", null]),
        ]
    );
}
