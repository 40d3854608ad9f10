//! `GET /readyz`. What else a node needs to be ready is tested where it is lost: `delivery::clocks`, `delivery::master_keys`,
//! `process::stop`.

use serde_json::json;

use crate::support::{App, app::eventually};

#[tokio::test]
async fn the_service_is_ready_as_long_as_it_has_its_database() {
    let app = App::dev().await;
    let ready = async || app.ask("GET", "/readyz").anonymous().send().await;
    assert_eq!(ready().await.expect(200), json!({ "status": "ready" }));
    app.db.clone().close().await.unwrap();
    // It returns what the last heartbeats found.
    let not_ready = eventually(async || Some(ready().await).filter(|response| response.status.as_u16() != 200)).await;
    not_ready.expect_problem(503, "service_unavailable");
    assert_eq!(not_ready.header("retry-after"), Some("1"));
}
