//! `GET /signing-vectors.json`.

use kallima_webhooks::domain::signing_vectors::SIGNING_VECTORS;

use crate::support::App;

#[tokio::test]
async fn the_known_answers_are_served_byte_for_byte() {
    let app = App::dev().await;
    let vectors = app.ask("GET", "/signing-vectors.json").anonymous().send().await;
    assert_eq!(vectors.status, 200);
    assert_eq!(vectors.body, SIGNING_VECTORS.as_bytes());
    assert_eq!(vectors.header("content-type"), Some("application/json"));
}
