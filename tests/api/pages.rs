//! The pages for people: where they are, that browsers keep them and confine them. How they look is tested in a real
//! browser, by `.ci/browser`.

use std::{
    collections::{BTreeSet, VecDeque},
    io::Read as _,
};

use flate2::read::GzDecoder;
use kallima_webhooks::contract::Contract;
use tokio::task::JoinSet;

use crate::support::{App, client::ApiResponse};

async fn page(app: &App, path: &str) -> ApiResponse {
    app.ask("GET", path).anonymous().send().await
}

#[tokio::test]
async fn the_root_and_the_folder_lead_to_swagger_ui() {
    let app = App::dev().await;
    for path in ["/", "/docs/"] {
        let response = page(&app, path).await;
        assert!(response.status.is_redirection(), "{path}");
        assert_eq!(response.header("location"), Some("/docs"), "{path}");
    }
    let shown = page(&app, "/docs").await;
    assert_eq!(shown.status, 200);
    let text = String::from_utf8_lossy(&shown.body).into_owned();
    assert!(text.contains("<title>Kallima Webhooks API</title>"), "{text}");
    assert!(
        text.contains("swagger-ui-bundle.js") && !text.contains("//cdn"),
        "{text}"
    );
}

#[tokio::test]
async fn a_token_is_taken_from_the_address_in_development_alone() {
    let marked = async |arguments: &[&str]| {
        let app = App::builder().arguments(arguments).start().await;
        String::from_utf8_lossy(&page(&app, "/docs").await.body).contains("data-dev=\"true\"")
    };
    assert!(marked(&["--dev"]).await);
    assert!(!marked(&[]).await);
}

#[tokio::test]
async fn every_page_is_confined_and_kept_until_the_server_changes() {
    let app = App::dev().await;
    for path in [
        "/docs",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "/docs/docs.js",
    ] {
        let first = page(&app, path).await;
        assert_eq!(first.status, 200, "{path}");
        let policy = first.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        let tag = first.header("etag").unwrap();
        let again = app
            .ask("GET", path)
            .anonymous()
            .header("if-none-match", tag)
            .send()
            .await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
        let other = app
            .ask("GET", path)
            .anonymous()
            .header("if-none-match", "\"0\"")
            .send()
            .await;
        assert_eq!(other.body, first.body, "{path}");
    }
}

#[tokio::test]
async fn a_large_file_is_compressed_for_whoever_takes_that() {
    let app = App::dev().await;
    for path in ["/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/docs.js"] {
        let with = async |encodings: &str| {
            let ask = app.ask("GET", path).anonymous();
            let response = ask.header("accept-encoding", encodings).send().await;
            assert_eq!(
                (response.status.as_u16(), response.header("vary")),
                (200, Some("accept-encoding"))
            );
            response
        };
        let plain = page(&app, path).await;
        for encodings in ["gzip", "br, GZIP;q=0.5, deflate"] {
            let response = with(encodings).await;
            if path.ends_with("docs.js") {
                assert_eq!(
                    (response.header("content-encoding"), &response.body),
                    (None, &plain.body)
                );
                continue;
            }
            assert_eq!(response.header("content-encoding"), Some("gzip"), "{path}: {encodings}");
            assert_ne!(response.header("etag"), plain.header("etag"), "{path}");
            assert!(
                response.body.len() * 3 < plain.body.len(),
                "{path}: {}",
                response.body.len()
            );
            let mut text = Vec::new();
            GzDecoder::new(&response.body[..]).read_to_end(&mut text).unwrap();
            assert_eq!(text, plain.body, "{path}");
        }
        for encodings in ["identity", "gzip;q=0, br", "gzip; q=0.000", "x-gzip-like", ""] {
            let response = with(encodings).await;
            assert_eq!(
                (response.header("content-encoding"), &response.body),
                (None, &plain.body),
                "{path}: {encodings}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_on_pages_too() {
    let app = App::dev().await;
    for path in [
        "/docs/nothing.js",
        "/docs/..%2f..%2fetc%2fpasswd",
        "/docs/a/b",
        "/docs/%ff",
        "/guide/nothing",
        "/guide/..%2frequests",
        "/reference/nothing.md",
        "/reference/events/nothing",
        "/reference/update_webhook/",
        "/reference/update_webhook.md.md",
        "/errors/nothing",
    ] {
        page(&app, path).await.expect_problem(404, "not_found");
    }
    app.ask("POST", "/docs")
        .send()
        .await
        .expect_problem(405, "method_not_allowed");
}

fn text(response: &ApiResponse) -> String {
    assert_eq!(response.status, 200);
    String::from_utf8(response.body.to_vec()).unwrap()
}

/// The addresses of this server that a page leads to.
fn links(html: &str) -> impl Iterator<Item = String> {
    let targets = html
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    let ours = targets.filter(|target| target.starts_with('/'));
    ours.map(|target| target.split('#').next().unwrap().to_owned())
}

#[tokio::test]
async fn every_page_that_a_page_leads_to_is_there_as_markdown_too() {
    let app = App::dev().await;
    let mut waiting: VecDeque<String> = ["/guide", "/reference", "/errors"].map(str::to_owned).into();
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop_front() {
        // The dashboard is for those who sign in.
        if path == "/dashboard" || !seen.insert(path.clone()) {
            continue;
        }
        let response = page(&app, &path).await;
        let shown = text(&response);
        match response.header("content-type").unwrap() {
            "text/html; charset=utf-8" => waiting.extend(links(&shown)),
            kind => assert_eq!(
                kind == "text/markdown; charset=utf-8",
                path.rsplit_once('.').is_some_and(|(_, extension)| extension == "md"),
                "{path}: {kind}"
            ),
        }
    }
    let document = Contract::load().unwrap().document().clone();
    let words = |schema: &str| {
        document["components"]["schemas"][schema]["enum"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let mut expected: Vec<String> = Vec::new();
    for (section, folder) in [("paths", "/reference"), ("webhooks", "/reference/events")] {
        for (path, item) in document[section].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let name = if section == "paths" {
                    operation["operationId"].as_str().unwrap()
                } else {
                    path
                };
                expected.push(format!("{folder}/{name}"));
            }
        }
    }
    for code in words("ProblemCode").into_iter().chain(words("FaultCode")) {
        expected.push(format!("/errors/{}", code.as_str().unwrap()));
    }
    assert!(expected.len() > 50, "{expected:?}");
    let index = text(&page(&app, "/llms.txt").await);
    for path in expected {
        assert!(
            seen.contains(&path) && seen.contains(&format!("{path}.md")),
            "nothing leads to {path}"
        );
        assert!(index.contains(&format!("{path}.md)")), "/llms.txt does not list {path}");
    }
}

#[tokio::test]
async fn the_page_of_an_operation_says_what_the_given_page_says() {
    let app = App::dev().await;
    let shown = text(&page(&app, "/reference/update_webhook.md").await);
    for part in [
        "# Update a webhook endpoint",
        "`PATCH /v1/webhooks/{webhook_id}`",
        "Bearer authentication header of the form `Bearer <token>`, where `<token>` is your auth token.",
        "- **`webhook_id`** `string<uuid>` **required**",
        "- **`rotate_secret`** `boolean`\n\n  Issue a new signing secret.\n\n  Default `false`.",
        "Body for PATCH /v1/webhooks/{id}.",
        "- **`url`** `string<iri> | null`",
        "- **`events`** `string[] | null`",
        "- **`enabled`** `boolean | null`\n\n  Enable or disable delivery.",
        "## Response 200\n\nSuccessful Response",
        "Whether deliveries are being attempted.",
        "\"enabled\": false",
    ] {
        assert!(shown.contains(part), "{part}\nis not in\n{shown}");
    }
    for language in ["curl", "Python", "TypeScript", "Go", "Rust"] {
        assert!(shown.contains(&format!("\n## {language}\n\n```")), "{language}");
    }
}

#[tokio::test]
async fn samples_name_the_server_that_was_asked_and_no_host_that_breaks_out_of_them() {
    let app = App::dev().await;
    let asked = async |host: &str| {
        let ask = app
            .ask("GET", "/reference/get_webhook")
            .anonymous()
            .header("host", host);
        text(&ask.send().await)
    };
    assert!(
        asked("hooks.example.org:8443")
            .await
            .contains("http://hooks.example.org:8443/v1/webhooks/aaaa0001")
    );
    for host in ["a'$(id)'", "a\"><script>", "a;b"] {
        let shown = asked(host).await;
        assert!(
            !shown.contains("$(id)") && !shown.contains("<script>") && !shown.contains("a;b"),
            "{host}: {shown}"
        );
    }
}

#[tokio::test]
async fn the_operator_says_where_the_pages_about_errors_are() {
    let arguments = ["--dev", "--error-pages-url", "https://hooks.example.org/errors/"];
    let app = App::builder().arguments(&arguments).start().await;
    let problem = app.get("/v1/nothing").await.expect_problem(404, "not_found");
    assert_eq!(problem["type"], "https://hooks.example.org/errors/not_found");
    let shown = text(&page(&app, "/errors/not_found").await);
    assert!(shown.contains("<h1>not_found</h1>"), "{shown}");
}

/// Rendering holds up no thread that serves the API. Here there is one thread.
#[tokio::test]
async fn a_request_of_the_api_waits_for_no_page_that_is_rendered() {
    let app = App::dev().await;
    let mut readers = JoinSet::new();
    for _ in 0..24 {
        let ask = app.ask("GET", "/reference/update_webhook").anonymous();
        readers.spawn(async move { assert_eq!(ask.send().await.status, 200) });
    }
    // Once the first page is rendered, the others wait for their turn.
    readers.join_next().await.unwrap().unwrap();
    app.get("/v1/webhooks").await.expect(200);
    let mut rendered = 1;
    while readers.try_join_next().is_some() {
        rendered += 1;
    }
    assert!(rendered < 12, "{rendered} pages were rendered first");
    readers.join_all().await;
}
