//! Validates responses and deliveries against openapi.yaml: status, headers, media type, body.

use hyper::Method;
use jsonschema::Validator;
use kallima_webhooks::contract::{Contract, resolve};
use serde_json::{Value, json};

use super::client::ApiResponse;

/// The first segments of the pages for people.
const PAGES: [&str; 6] = ["", "docs", "guide", "reference", "errors", "dashboard"];

/// Whether the path is a page's, or of a file that pages load.
fn is_page(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    PAGES.contains(&first.split('.').next().unwrap()) || path == "/llms.txt"
}

/// Knows the document.
pub(crate) struct ResponseValidator {
    document: Value,
}

impl ResponseValidator {
    pub(crate) fn new() -> Self {
        let document = Contract::load().unwrap().document().clone();
        Self {
            document: resolve(&document, &document, 0),
        }
    }

    /// Validates a response of the API.
    ///
    /// # Panics
    /// If it contains anything that the document does not allow.
    pub(crate) fn check(&self, method: &Method, path: &str, response: &ApiResponse) {
        let path = path.split('?').next().unwrap();
        let status = response.status.as_str();
        let what = format!("{method} {path} answered {status}");
        let Some((template, item)) = self.find(path) else {
            // Pages are for people, and the document is about the API; an error is a problem there, too.
            if path == "/dashboard" || path.starts_with("/dashboard/") {
                check_dashboard(&what, response);
                return;
            }
            let is_error = response.status.is_client_error() || response.status.is_server_error();
            let status = if is_page(path) { response.status.as_u16() } else { 404 };
            if is_error || !is_page(path) {
                self.check_problem_without_operation(&what, status, response);
            }
            return;
        };
        let verb = method.as_str().to_ascii_lowercase();
        let Some(operation) = item.get(&verb) else {
            self.check_problem_without_operation(&what, 405, response);
            return;
        };
        let here = format!(
            "/paths/{}/{verb}/responses/{status}",
            template.replace('~', "~0").replace('/', "~1")
        );
        let Some(documented) = operation["responses"].get(status) else {
            panic!(
                "{what}\n  where:    {here}\n  expected: a status that the document lists\n  seen:     {}",
                text(response)
            );
        };
        Self::check_headers(&what, &here, documented, response);
        Self::check_body(&what, &here, documented, response);
    }

    /// The template and the path item that match `path`; literal segments take precedence over parameters.
    fn find(&self, path: &str) -> Option<(&String, &Value)> {
        let paths = self.document["paths"].as_object().unwrap();
        paths.get_key_value(path).or_else(|| {
            paths.iter().find(|(template, _)| {
                let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
                let fits = |(expected, seen): (&&str, &&str)| {
                    (expected.starts_with('{') && !seen.is_empty()) || expected == seen
                };
                template.len() == path.len() && template.iter().zip(&path).all(fits)
            })
        })
    }

    /// 404 of an unknown route and 405 belong to no operation, but are problems, too.
    fn check_problem_without_operation(&self, what: &str, status: u16, response: &ApiResponse) {
        assert_eq!(
            response.status, status,
            "{what}: no operation of the document answers it"
        );
        let here = "/components/responses/NotFound";
        let documented = &self.document["components"]["responses"]["NotFound"];
        Self::check_headers(what, here, documented, response);
        Self::check_body(what, here, documented, response);
        assert_eq!(
            status == 405,
            response.header("allow").is_some(),
            "{what}: Allow comes with 405 and with nothing else"
        );
    }

    fn check_headers(what: &str, here: &str, documented: &Value, response: &ApiResponse) {
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            let here = format!("{here}/headers/{name}");
            let Some(seen) = response.header(name) else {
                assert_ne!(
                    header["required"],
                    json!(true),
                    "{what}\n  where:    {here}\n  expected: the header\n  seen:     none"
                );
                continue;
            };
            let typed = match header["schema"]["type"].as_str() {
                Some("integer") => json!(
                    seen.parse::<i64>()
                        .unwrap_or_else(|_| panic!("{what}: {name} is {seen}"))
                ),
                _ => json!(seen),
            };
            complain(what, &here, &header["schema"], &typed);
        }
    }

    fn check_body(what: &str, here: &str, documented: &Value, response: &ApiResponse) {
        let seen_type = response
            .header("content-type")
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        let Some(content) = documented.get("content") else {
            assert!(
                response.body.is_empty(),
                "{what}\n  where:    {here}\n  expected: no body\n  seen:     {}",
                text(response)
            );
            return;
        };
        let Some(media) = content.get(seen_type) else {
            panic!("{what}\n  where:    {here}/content\n  expected: one of its media types\n  seen:     {seen_type:?}");
        };
        let body = if seen_type.ends_with("json") {
            response.json()
        } else {
            json!(text(response))
        };
        complain(
            what,
            &format!("{here}/content/{}", seen_type.replace('/', "~1")),
            &media["schema"],
            &body,
        );
    }

    /// Validates a delivery that a receiver got, headers and body, against the entry of its event type.
    pub(crate) fn check_delivery(&self, headers: &hyper::HeaderMap, body: &[u8]) {
        let payload: Value = serde_json::from_slice(body).expect("a delivery is JSON");
        let event_type = payload["type"].as_str().expect("a delivery has a type");
        let what = format!("a delivery of {event_type}");
        let operation = &self.document["webhooks"][event_type]["post"];
        assert!(operation.is_object(), "{what}: /webhooks has no such entry");
        let here = format!("/webhooks/{event_type}/post");
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let Some(value) = headers.get(name) else {
                assert_ne!(parameter["required"], json!(true), "{what} lacks the header {name}");
                continue;
            };
            let value = value.to_str().unwrap();
            let integer = parameter["schema"]["type"] == "integer";
            let typed = if integer {
                json!(value.parse::<i64>().unwrap())
            } else {
                json!(value)
            };
            complain(
                &what,
                &format!("{here}/parameters/{name}"),
                &parameter["schema"],
                &typed,
            );
        }
        assert_eq!(headers["content-type"], "application/json", "{what}");
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        complain(&what, &format!("{here}/requestBody"), schema, &payload);
    }
}

/// What is below `/dashboard` is for browsers, errors too: a page without scripts that nobody keeps, or a redirection.
fn check_dashboard(what: &str, response: &ApiResponse) {
    let is_page = response.header("content-type") == Some("text/html; charset=utf-8") && !response.body.is_empty();
    assert!(is_page || response.status == 303, "{what}: {}", text(response));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.header(name), Some(value), "{what}: {name}");
    }
    let policy = response.header("content-security-policy").unwrap_or_default();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("script"),
        "{what}: {policy}"
    );
    assert!(!text(response).contains("<script"), "{what}: {}", text(response));
}

/// A validator that also checks formats.
pub(crate) fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

/// Fails with the first fault: what, where, expected, seen.
fn complain(what: &str, here: &str, schema: &Value, seen: &Value) {
    if let Some(fault) = validator(schema).iter_errors(seen).next() {
        panic!(
            "{what}\n  where:    {here}/schema{}\n  expected: what the schema says\n  seen:     at {:?}: {fault}\n  whole:    {seen}\n  do:       make the server say what openapi.yaml promises, or change the document first",
            fault.schema_path(),
            fault.instance_path().as_str()
        );
    }
}

fn text(response: &ApiResponse) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}
