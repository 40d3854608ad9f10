//! `GET /v1/webhooks`.

use serde_json::Value;

use crate::support::App;

/// The address of the next page, where there is one.
pub(crate) fn next(link: Option<&str>) -> Option<String> {
    let (target, relation) = link?.split_once(">; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    let address = target.strip_prefix("<http://").expect("an absolute address");
    let path = address.find('/').unwrap();
    Some(address[path..].to_owned())
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

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
    assert_eq!(ids(&list), made);
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|webhook| webhook.get("secret").is_none())
    );
    assert_eq!(all.header("link"), None);

    let mut seen = Vec::new();
    let mut path = Some("/v1/webhooks?limit=2".to_owned());
    while let Some(page) = path {
        let response = app.get(&page).await;
        seen.extend(ids(&response.expect(200)));
        path = next(response.header("link"));
    }
    assert_eq!(seen, made);
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
