//! `GET /healthz`.

use serde_json::json;

use crate::support::App;

#[tokio::test]
async fn the_service_is_alive_with_and_without_its_database() {
    let app = App::dev().await;
    let alive = async || app.ask("GET", "/healthz").anonymous().send().await.expect(200);
    assert_eq!(alive().await, json!({ "status": "ok" }));
    app.db.clone().close().await.unwrap();
    assert_eq!(alive().await, json!({ "status": "ok" }));
}
