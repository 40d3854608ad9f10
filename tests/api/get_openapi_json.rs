//! `GET /openapi.json`.

use kallima_webhooks::contract::OPENAPI_YAML;
use serde_json::Value;

use crate::support::App;

#[tokio::test]
async fn the_document_is_served_as_json() {
    let app = App::dev().await;
    let json = app.ask("GET", "/openapi.json").anonymous().send().await;
    let written: Value = serde_norway::from_str(OPENAPI_YAML).unwrap();
    assert_eq!(json.expect(200), written);
}
