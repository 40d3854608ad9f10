use std::time::Duration;

use kallima_webhooks::{domain::token::Scope, store::tokens};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Browser, link, redirection, text};
use crate::support::{App, app::eventually};

/// Whether the dashboard opens.
async fn is_in(browser: &Browser<'_>) -> bool {
    let answer = browser.get("/dashboard").await;
    if answer.status == 303 {
        assert_eq!(redirection(&answer), "/dashboard/sign_in");
        return false;
    }
    assert!(text(&answer, 200).contains("<h1>Webhooks</h1>"));
    true
}

#[tokio::test]
async fn whoever_has_a_token_signs_in_and_out() {
    let app = App::dev().await;
    let browser = Browser::new(&app);
    assert!(!is_in(&browser).await);
    for token in [app.token.clone(), format!(" Bearer {} ", app.token)] {
        let answer = browser
            .submit("/dashboard/sign_in", "/dashboard/sign_in", &[("token", &token)])
            .await;
        assert_eq!(redirection(&answer), "/dashboard");
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("Max-Age=28800;"), "eight hours: {cookie}");
        assert!(!cookie.contains("ab_") && !browser.page("/dashboard").await.contains(&app.token));
        assert!(is_in(&browser).await);
        let answer = browser.submit("/dashboard", "/dashboard/sign_out", &[]).await;
        assert_eq!(redirection(&answer), "/dashboard");
        assert!(!is_in(&browser).await);
    }
}

#[tokio::test]
async fn other_texts_and_tokens_are_refused_on_the_page_with_the_reason() {
    let app = App::dev().await;
    let (revoked, id) = app.new_token(Some(app.organization), Scope::ALL).await;
    tokens::revoke(&app.db, id, app.clock.now()).await.unwrap();
    let (platform, _) = app.new_token(None, Scope::ALL).await;
    let (publisher, _) = app.new_token(Some(app.organization), &[Scope::EventsPublish]).await;
    let unknown = format!("ab_{}", "x".repeat(48));
    let browser = Browser::new(&app);
    for (token, reason) in [
        ("", "not a token"),
        ("nonsense", "not a token"),
        ("<script>alert(1)</script>", "not a token"),
        (&unknown, "not valid"),
        (&revoked, "not valid"),
        (&platform, "platform token"),
        (&publisher, "webhooks:read"),
    ] {
        let answer = browser
            .submit("/dashboard/sign_in", "/dashboard/sign_in", &[("token", token)])
            .await;
        let page = text(&answer, 401);
        assert!(
            page.contains(reason) && page.contains("action=\"/dashboard/sign_in\""),
            "{token}: {page}"
        );
        assert!(!is_in(&browser).await, "{token}");
    }
}

#[tokio::test]
async fn a_session_ends_after_eight_hours_and_when_its_token_is_revoked() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let browser = Browser::signed_in(&app, &app.token).await;
    app.clock.advance(Duration::from_hours(8) - Duration::from_millis(1));
    assert!(is_in(&browser).await);
    app.clock.advance(Duration::from_millis(1));
    assert!(!is_in(&browser).await);
    let (token, id) = app.new_token(Some(app.organization), Scope::ALL).await;
    let browser = Browser::signed_in(&app, &token).await;
    assert!(is_in(&browser).await);
    tokens::revoke(&app.db, id, app.clock.now()).await.unwrap();
    assert!(!is_in(&browser).await);
}

#[tokio::test]
async fn a_link_is_opened_by_its_button_and_its_session_ends_with_it() {
    let app = App::builder().arguments(&["--dev"]).manual_clock().start().await;
    let path = link(&app, &json!({ "access": "read", "expires_in_seconds": 600 })).await;
    let (first, second) = (Browser::new(&app), Browser::new(&app));
    for browser in [&first, &second] {
        assert!(browser.page(&path).await.contains("Open the dashboard"));
        assert!(!is_in(browser).await, "a link that is merely looked at signs nobody in");
        let answer = browser.submit(&path, "/dashboard/link", &[]).await;
        assert!(answer.header("set-cookie").unwrap().contains("Max-Age=600;"));
        assert!(is_in(browser).await);
    }
    app.clock.advance(Duration::from_mins(10));
    assert!(!is_in(&first).await);
    text(&first.get(&path).await, 404);
    let long = link(&app, &json!({ "access": "read", "expires_in_seconds": 86_400 })).await;
    first.submit(&long, "/dashboard/link", &[]).await;
    app.clock.advance(Duration::from_hours(8));
    assert!(!is_in(&first).await, "eight hours at the longest");
    first.submit(&long, "/dashboard/link", &[]).await;
    assert!(is_in(&first).await, "the link itself works on");
}

#[tokio::test]
async fn a_link_ends_with_its_token_and_so_does_its_session() {
    let app = App::dev().await;
    let (token, id) = app.new_token(Some(app.organization), Scope::ALL).await;
    let made = app.ask("POST", "/v1/dashboard_links").token(&token);
    let made = made.json(&json!({ "access": "retry" })).send().await.expect(201);
    let path = made["url"].as_str().unwrap().strip_prefix(&app.base).unwrap();
    let browser = Browser::new(&app);
    browser.submit(path, "/dashboard/link", &[]).await;
    assert!(is_in(&browser).await);
    let fields = browser.fields(path, "/dashboard/link", &[]).await;
    tokens::revoke(&app.db, id, app.clock.now()).await.unwrap();
    assert!(!is_in(&browser).await);
    text(&browser.get(path).await, 404);
    text(&browser.post("/dashboard/link", &fields, &[]).await, 404);
}

#[tokio::test]
async fn only_what_was_sealed_for_it_opens() {
    let app = App::dev().await;
    let path = link(&app, &json!({ "access": "read" })).await;
    let (_, sealed) = path.split_once('=').unwrap();
    let browser = Browser::new(&app);
    browser
        .cookies
        .lock()
        .unwrap()
        .insert("kallima_session".to_owned(), sealed.to_owned());
    assert!(!is_in(&browser).await, "a link is no session");
    let signed_in = Browser::signed_in(&app, &app.token).await;
    let session = signed_in.cookies.lock().unwrap()["kallima_session"].clone();
    text(&browser.get(&format!("/dashboard/link?link={session}")).await, 404);
    let changed = format!(
        "{}{}",
        &session[..session.len() - 1],
        if session.ends_with('A') { 'E' } else { 'A' }
    );
    for cookie in [String::new(), "x".repeat(300), changed, "%00".to_owned()] {
        browser
            .cookies
            .lock()
            .unwrap()
            .insert("kallima_session".to_owned(), cookie.clone());
        assert!(!is_in(&browser).await, "{cookie}");
    }
    for link in [
        "",
        "?link=",
        "?link=%ff",
        "?link=a&link=b",
        &format!("?link={}", "x".repeat(5000)),
    ] {
        text(&browser.get(&format!("/dashboard/link{link}")).await, 404);
    }
}

#[tokio::test]
async fn cookies_of_other_services_of_the_host_are_no_hindrance() {
    let app = App::dev().await;
    let page = app.ask("GET", "/dashboard/sign_in").anonymous().send().await;
    let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let shown = text(&page, 200);
    let (_, form) = shown.split_once("name=\"form\" value=\"").unwrap();
    let body = format!("form={}&token={}", form.split('"').next().unwrap(), app.token);
    // A client that sends any text is not at hand: the request is written as it is.
    let request = format!(
        "POST /dashboard/sign_in HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: other=caf\u{e9}; {cookie}; last=\"\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = app.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 303") && answer.contains("kallima_session="),
        "{answer}"
    );
}

/// However many strangers keep sign-ins waiting, those who are signed in are served.
#[tokio::test]
async fn sign_ins_that_hang_hold_up_nobody_who_is_signed_in() {
    let app = App::dev().await;
    let browser = Browser::signed_in(&app, &app.token).await;
    let address = app.base.strip_prefix("http://").unwrap();
    let mut hanging = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST /dashboard/sign_in HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                    content-length: 100\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        hanging.push(stream);
    }
    eventually(async || {
        let shown = app.ask("GET", "/docs").anonymous().send().await;
        (shown.status == 503).then_some(())
    })
    .await;
    browser.page("/dashboard").await;
    browser.page("/dashboard/deliveries").await;
    drop(hanging);
}

#[tokio::test]
async fn over_https_the_cookies_are_secure_and_of_this_host_alone() {
    let arguments = ["--public-url", "https://hooks.example.org"];
    let app = App::builder().arguments(&arguments).start().await;
    let answer = app.ask("GET", "/dashboard/sign_in").anonymous().send().await;
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-kallima_visitor=")
            && cookie.ends_with("; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
}

#[tokio::test]
async fn whoever_comes_from_another_site_goes_on_by_a_link_of_this_one() {
    let app = App::dev().await;
    let from = async |site: &str| {
        let ask = app
            .ask("GET", "/dashboard/deliveries?status=failed&x=%22%3E")
            .anonymous();
        ask.header("sec-fetch-site", site).send().await
    };
    for site in ["cross-site", "same-site"] {
        let page = text(&from(site).await, 200);
        assert!(
            page.contains("href=\"/dashboard/deliveries?status=failed&amp;x=%22%3E\""),
            "{page}"
        );
    }
    for site in ["same-origin", "none"] {
        assert_eq!(redirection(&from(site).await), "/dashboard/sign_in");
    }
}
