//! `GET /v1/webhooks`.

use serde_json::Value;

use crate::support::App;

/// The address of the next page, where there is one.
pub(crate) fn next(link: Option<&str>) -> Option<String> {
    let (target, relation) = link?.split_once(">; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    Some(target.strip_prefix('<').unwrap().to_owned())
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
        let answer = app.get(&page).await;
        seen.extend(ids(&answer.expect(200)));
        path = next(answer.header("link"));
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused_by_name() {
    let app = App::dev().await;
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=x", "after"),
        ("limt=1", "limt"),
    ] {
        let problem = app
            .get(&format!("/v1/webhooks?{query}"))
            .await
            .expect_problem(400, "bad_request");
        assert!(
            problem["detail"].as_str().unwrap().contains(named),
            "{query}: {problem}"
        );
    }
}
