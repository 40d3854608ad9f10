//! The pages for people: where they are, that browsers keep them and confine them. How they look is tried in a real
//! browser, by `.ci/browser`.

use crate::support::{App, client::Answer};

async fn page(app: &App, path: &str) -> Answer {
    app.ask("GET", path).anonymous().send().await
}

#[tokio::test]
async fn the_root_and_the_folder_lead_to_swagger_ui() {
    let app = App::dev().await;
    for path in ["/", "/docs/"] {
        let answer = page(&app, path).await;
        assert!(answer.status.is_redirection(), "{path}");
        assert_eq!(answer.header("location"), Some("/docs"), "{path}");
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
async fn what_is_not_there_is_a_problem_on_pages_too() {
    let app = App::dev().await;
    for path in ["/docs/nothing.js", "/docs/..%2f..%2fetc%2fpasswd", "/docs/a/b"] {
        page(&app, path).await.expect_problem(404, "not_found");
    }
    app.ask("POST", "/docs")
        .send()
        .await
        .expect_problem(405, "method_not_allowed");
}
