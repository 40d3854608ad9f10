//! `GET /openapi.yaml`.

use kallima_webhooks::contract::OPENAPI_YAML;

use crate::support::App;

#[tokio::test]
async fn the_document_is_served_byte_for_byte() {
    let app = App::dev().await;
    let yaml = app.ask("GET", "/openapi.yaml").anonymous().send().await;
    assert_eq!(yaml.status, 200);
    assert_eq!(yaml.body, OPENAPI_YAML.as_bytes());
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
}
