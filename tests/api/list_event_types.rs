//! `GET /v1/event_types`.

use kallima_webhooks::contract::Contract;

use crate::support::{App, validate::validator};

#[tokio::test]
async fn the_catalog_is_the_webhooks_section_of_the_document() {
    let app = App::dev().await;
    let listed = app.get("/v1/event_types").await.expect(200);
    let documented = Contract::load().unwrap().document()["webhooks"].clone();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["type"].as_str().unwrap())
        .collect();
    assert_eq!(names, documented.as_object().unwrap().keys().collect::<Vec<_>>());
    for entry in listed.as_array().unwrap() {
        validator(&entry["data_schema"])
            .validate(&entry["example"]["data"])
            .expect("its own schema takes its example");
    }
}
