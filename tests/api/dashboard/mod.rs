//! The dashboard, without a browser: who may enter, what is shown, what forms do, and what hostile pages and receivers
//! cannot. How it looks is tried in a real browser, by `.ci/browser`.

mod actions;
mod hostile;
mod prefix;
mod reading;
mod sign_in;

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::{Value, json};

use crate::support::{App, client::ApiResponse};

/// A browser: it keeps cookies and sends forms as pages have them.
struct Browser<'a> {
    app: &'a App,
    /// What a proxy takes away from the beginning of each path.
    prefix: &'static str,
    cookies: Mutex<BTreeMap<String, String>>,
}

impl<'a> Browser<'a> {
    fn new(app: &'a App) -> Self {
        Self::behind(app, "")
    }

    /// A browser in front of a proxy that serves this server under a prefix.
    fn behind(app: &'a App, prefix: &'static str) -> Self {
        Self {
            app,
            prefix,
            cookies: Mutex::default(),
        }
    }

    /// A browser in which somebody has signed in with this token.
    async fn signed_in(app: &'a App, token: &str) -> Self {
        let browser = Self::new(app);
        browser.sign_in(token).await;
        browser
    }

    async fn sign_in(&self, token: &str) {
        let page = format!("{}/dashboard/sign_in", self.prefix);
        self.get(&page).await;
        let answer = self.submit(&page, &page, &[("token", token)]).await;
        assert_eq!(redirection(&answer), format!("{}/dashboard", self.prefix));
    }

    /// The path as the proxy passes it on.
    fn inner<'p>(&self, path: &'p str) -> &'p str {
        let inner = path.strip_prefix(self.prefix);
        inner.unwrap_or_else(|| panic!("{path} is not behind {}", self.prefix))
    }

    /// A browser in which somebody has opened a link.
    async fn by_link(app: &'a App, access: &str) -> Self {
        let browser = Self::new(app);
        let path = link(app, &json!({ "access": access })).await;
        let answer = browser.submit(&path, "/dashboard/link", &[]).await;
        assert_eq!(redirection(&answer), "/dashboard");
        browser
    }

    fn cookies(&self) -> String {
        let cookies = self.cookies.lock().unwrap();
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    fn keep(&self, answer: &ApiResponse) {
        for cookie in answer.headers.get_all("set-cookie") {
            let text = cookie.to_str().unwrap();
            assert!(
                text.contains("; HttpOnly; SameSite=Strict")
                    && text.contains(&format!("; Path={}/dashboard;", self.prefix)),
                "{text}"
            );
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            let mut cookies = self.cookies.lock().unwrap();
            if text.contains("Max-Age=0;") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    async fn get(&self, path: &str) -> ApiResponse {
        let ask = self
            .app
            .ask("GET", self.inner(path))
            .anonymous()
            .header("cookie", &self.cookies());
        let answer = ask.send().await;
        self.keep(&answer);
        answer
    }

    /// The text of a page.
    async fn page(&self, path: &str) -> String {
        text(&self.get(path).await, 200)
    }

    /// Sends fields, with more headers.
    async fn post(&self, path: &str, fields: &[(String, String)], headers: &[(&str, &str)]) -> ApiResponse {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let mut ask = self.app.ask("POST", self.inner(path)).anonymous();
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        let ask = ask
            .header("cookie", &self.cookies())
            .header("content-type", "application/x-www-form-urlencoded");
        let answer = ask.bytes(&body).send().await;
        self.keep(&answer);
        answer
    }

    /// The fields of a page's form as they are filled in, and these.
    async fn fields(&self, page: &str, action: &str, fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let shown = self.page(page).await;
        let (_, form) = shown
            .split_once(&format!("action=\"{action}\""))
            .unwrap_or_else(|| panic!("{page} has no form {action}: {shown}"));
        let form = form.split("</form>").next().unwrap();
        let hidden = form.split("<input type=\"hidden\" name=\"").skip(1).map(|rest| {
            let (name, rest) = rest.split_once("\" value=\"").unwrap();
            (name.to_owned(), rest.split('"').next().unwrap().to_owned())
        });
        let own = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        hidden.chain(own).collect()
    }

    /// Sends a page's form with these fields filled in.
    async fn submit(&self, page: &str, action: &str, fields: &[(&str, &str)]) -> ApiResponse {
        let fields = self.fields(page, action, fields).await;
        self.post(
            action,
            &fields,
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        )
        .await
    }
}

#[track_caller]
fn text(answer: &ApiResponse, status: u16) -> String {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, status, "{text}");
    text
}

#[track_caller]
fn redirection(answer: &ApiResponse) -> &str {
    assert_eq!(answer.status, 303, "{}", String::from_utf8_lossy(&answer.body));
    answer.header("location").unwrap()
}

/// The path of a new link.
async fn link(app: &App, body: &Value) -> String {
    let link = app.post("/v1/dashboard_links", body).await.expect(201);
    link["url"]
        .as_str()
        .unwrap()
        .strip_prefix(&app.base)
        .unwrap()
        .to_owned()
}

/// An id of what the API shows.
fn id(shown: &Value) -> &str {
    shown["id"].as_str().unwrap()
}
