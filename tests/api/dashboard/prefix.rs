use std::collections::{BTreeSet, VecDeque};

use serde_json::json;

use super::{Browser, id};
use crate::support::{App, Receiver, client::ApiResponse};

const PREFIX: &str = "/webhooks-api";

/// Where the proxy is.
const ORIGIN: &str = "http://hooks.example.org";

/// A server behind a proxy.
async fn server() -> App {
    let url = format!("{ORIGIN}{PREFIX}/");
    let arguments = ["--dev", "--public-url", &url];
    App::builder().arguments(&arguments).start().await
}

/// Where a response leads: links, forms and files of a page, links of a text, a redirection.
fn links(response: &ApiResponse) -> Vec<String> {
    let text = String::from_utf8_lossy(&response.body);
    let kind = response.header("content-type").unwrap_or_default();
    let marks = match kind.split(';').next().unwrap() {
        "text/html" => [(" href=\"", '"'), (" src=\"", '"'), (" action=\"", '"')].as_slice(),
        "text/markdown" | "application/yaml" | "application/json" => &[("](", ')')],
        _ => &[],
    };
    let found = marks.iter().flat_map(|(begin, end)| {
        let rests = text.split(begin).skip(1);
        rests.map(|rest| rest.split(*end).next().unwrap().replace("&amp;", "&"))
    });
    let location = response.header("location").map(str::to_owned);
    // A pattern of the document can look like a link.
    let is_link = |link: &String| !link.contains(['[', ' ']);
    found.filter(is_link).chain(location).collect()
}

/// The path of a link on this server; `None` of a link to elsewhere.
#[track_caller]
fn on_server(page: &str, link: &str) -> Option<String> {
    let path = link.strip_prefix(ORIGIN).unwrap_or(link).split('#').next().unwrap();
    if path.is_empty() || path.starts_with("https://") {
        return None;
    }
    assert!(path.starts_with(&format!("{PREFIX}/")), "{page} leads to {link}");
    Some(path.to_owned())
}

#[tokio::test]
async fn behind_a_prefix_every_link_of_every_page_has_it() {
    let app = server().await;
    let receiver = Receiver::start([]).await;
    let webhook = app.webhook(&receiver.url).await;
    let event = app.publish().await;
    let delivery = app.after_attempt(&event, 1).await;
    let browser = Browser::behind(&app, PREFIX);
    browser.sign_in(&app.token).await;
    let missing = format!("{PREFIX}/dashboard/nothing");
    let mut waiting: VecDeque<String> = [
        "/",
        "/docs",
        "/docs/",
        "/guide",
        "/reference",
        "/errors",
        "/llms.txt",
        "/openapi.yaml",
        "/openapi.json",
        "/dashboard/",
        "/dashboard/sign_in",
        "/dashboard/link?link=x",
        &format!("/dashboard/webhooks/{}", id(&webhook)),
        &format!("/dashboard/deliveries/{}", id(&delivery)),
        "/dashboard/deliveries?status=lost",
    ]
    .map(|path| format!("{PREFIX}{path}"))
    .into();
    waiting.push_back(missing.clone());
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let response = browser.get(&path).await;
        let is_missing = response.status == 404;
        assert_eq!(is_missing, path == missing || path.contains("link=x"), "{path}");
        waiting.extend(links(&response).iter().filter_map(|link| on_server(&path, link)));
    }
    assert!(seen.len() > 150, "{seen:?}");
}

#[tokio::test]
async fn behind_a_prefix_headers_documents_and_problems_have_it() {
    let app = server().await;
    let document = app.get("/openapi.json").await.expect(200);
    assert_eq!(document["servers"][0]["url"], PREFIX);
    let yaml = app.get("/openapi.yaml").await;
    let yaml: serde_json::Value = serde_norway::from_slice(&yaml.body).unwrap();
    assert_eq!(yaml, document);
    let location = &document["components"]["headers"]["Location"];
    for (text, begin) in [(&location["schema"]["pattern"], "^"), (&location["example"], "")] {
        let begin = format!("{begin}{PREFIX}/v1/");
        assert!(text.as_str().unwrap().starts_with(&begin), "{location}");
    }
    let body = json!({ "url": "https://receiver.example.com/" });
    for _ in 0..2 {
        let made = app.post("/v1/webhooks", &body).await;
        let expected = format!("{PREFIX}/v1/webhooks/{}", id(&made.expect(201)));
        assert_eq!(made.header("location"), Some(expected.as_str()));
    }
    let list = app.get("/v1/webhooks?limit=1").await;
    let next = list.header("link").unwrap();
    assert!(
        next.starts_with(&format!("<{ORIGIN}{PREFIX}/v1/webhooks?limit=1&after=")),
        "{next}"
    );
    let link = app
        .post("/v1/dashboard_links", &json!({ "access": "read" }))
        .await
        .expect(201);
    let url = link["url"].as_str().unwrap();
    assert!(
        url.starts_with(&format!("{ORIGIN}{PREFIX}/dashboard/link?link=")),
        "{url}"
    );
    let problem = app.get("/v1/nothing").await.expect_problem(404, "not_found");
    assert_eq!(problem["instance"], format!("{PREFIX}/v1/nothing"));
}

#[tokio::test]
async fn servers_under_prefixes_of_one_host_have_cookies_of_their_own() {
    let arguments = ["--public-url", "https://hooks.example.org/eu/webhooks"];
    let app = App::builder().arguments(&arguments).start().await;
    let answer = app.ask("GET", "/dashboard/sign_in").anonymous().send().await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-kallima_visitor.eu.webhooks=") && cookie.contains("; Path=/; "),
        "{cookie}"
    );
}
