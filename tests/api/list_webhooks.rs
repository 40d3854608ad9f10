//! `GET /v1/webhooks`.

use crate::support::{
    App,
    pages::{pages, texts},
};

#[tokio::test]
async fn the_newest_come_first_and_pages_follow_by_link() {
    let app = App::dev().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(
            app.webhook("http://127.0.0.1:9/").await["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    made.reverse();
    let all = app.get("/v1/webhooks").await;
    let list = all.expect(200);
    assert_eq!(texts(&[list.as_array().unwrap().clone()], "id"), made);
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|webhook| webhook.get("secret").is_none())
    );
    assert_eq!(all.header("link"), None);

    assert_eq!(texts(&pages(&app, "/v1/webhooks?limit=2").await, "id"), made);
}

#[tokio::test]
async fn links_hold_wherever_the_server_is_reached() {
    let link = async |arguments: &[&str], headers: &[(&str, &str)]| {
        let app = App::builder().arguments(arguments).start().await;
        for _ in 0..2 {
            app.webhook("https://example.com/hook").await;
        }
        let mut ask = app.ask("GET", "/v1/webhooks?limit=1");
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        let response = ask.send().await;
        response.expect(200);
        if headers.is_empty() {
            let by_http2 = app.ask("GET", "/v1/webhooks?limit=1").http2().send().await;
            assert_eq!(by_http2.header("link"), response.header("link"));
        }
        response.header("link").unwrap().to_owned()
    };
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "api.example.com")];
    let own = "<http://127.0.0.1:";
    for (arguments, headers, begins) in [
        (&[][..], &[][..], own),
        // Forwarded addresses count only from a trusted proxy.
        (&[], &forwarded, own),
        (
            &["--trusted-proxy", "127.0.0.1/32"],
            &forwarded,
            "<https://api.example.com/v1/webhooks?",
        ),
        (&["--trusted-proxy", "127.0.0.1/32"], &[], own),
        (
            &["--public-url", "https://api.example.org/kallima/"],
            &forwarded,
            "<https://api.example.org/kallima/v1/webhooks?",
        ),
    ] {
        let found = link(arguments, headers).await;
        assert!(found.starts_with(begins), "{arguments:?} {headers:?}: {found}");
        assert!(found.contains("limit=1&after="), "{found}");
    }
}
