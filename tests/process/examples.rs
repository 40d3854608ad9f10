//! The example data of `--dev`: the document's examples can be tried out, and disturb nothing.

use kallima_webhooks::contract::{Contract, resolve};
use serde_json::{Value, json};

use super::{Process, command, run};
use crate::support::{
    Receiver,
    client::{ApiResponse, Ask},
    database::TestDatabase,
    pages::next,
};

/// A server in `--dev`, with what it begins with.
async fn dev(database: &TestDatabase, arguments: &[&str]) -> Process {
    let mut command = command(&database.options.url, &std::env::temp_dir());
    command
        .args(["--dev", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
        .args(arguments);
    Process::spawn(command).await
}

/// What Swagger UI fills in for a parameter, if anything.
fn pre_filled(parameter: &Value) -> Option<String> {
    let first = parameter["examples"]
        .as_object()
        .and_then(|named| named.values().next());
    let value = first.map(|example| &example["value"]);
    let value = value.or_else(|| parameter.get("example"));
    let schema = &parameter["schema"];
    let value = value
        .or_else(|| schema.get("example"))
        .or_else(|| schema.get("default"))?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Sends an operation as Swagger UI does with what it has filled in.
async fn execute(base: &str, token: &str, verb: &str, path: &str, operation: &Value) -> ApiResponse {
    let (mut path, mut query, mut headers) = (path.to_owned(), Vec::new(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let Some(value) = pre_filled(parameter) else { continue };
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), &value),
            "query" => query.push(format!("{name}={value}")),
            _ => headers.push((name.to_owned(), value)),
        }
    }
    assert!(!path.contains('{'), "{path} has an example for each parameter");
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let mut ask = Ask::new(verb, base, &path).token(token);
    for (name, value) in headers {
        ask = ask.header(&name, &value);
    }
    let content = &operation["requestBody"]["content"]["application/json"];
    let named = content["examples"].as_object().and_then(|named| named.values().next());
    if let Some(body) = named
        .map(|example| &example["value"])
        .or_else(|| content.get("example"))
    {
        ask = ask.json(body);
    }
    ask.send().await
}

/// Whether a response shows anything.
fn shows_something(shown: &Value) -> bool {
    shown.as_array().is_none_or(|items| !items.is_empty())
}

#[tokio::test]
async fn every_operation_works_as_the_document_fills_it_in_and_once_more() {
    let database = TestDatabase::empty().await;
    let mut server = dev(&database, &[]).await;
    let token = server.printed_token().await;
    let document = Contract::load().unwrap().document().clone();
    let resolved = resolve(&document, &document, 0);
    let mut executed = 0;
    for round in 1..=2 {
        for (path, item) in resolved["paths"].as_object().unwrap() {
            for (verb, operation) in item.as_object().unwrap() {
                let response = execute(&server.base, &token, &verb.to_uppercase(), path, operation).await;
                let shown = String::from_utf8_lossy(&response.body);
                let id = operation["operationId"].as_str().unwrap();
                if round == 2 && id == "delete_webhook" {
                    response.expect_problem(404, "not_found");
                } else {
                    assert!(
                        response.status.is_success(),
                        "{id}, round {round}: {} {shown}",
                        response.status
                    );
                    let is_json = response.header("content-type") == Some("application/json");
                    assert!(
                        !is_json || shows_something(&response.json()),
                        "{id}, round {round}: {shown}"
                    );
                }
                match (id, round) {
                    ("test_webhook" | "retry_delivery", _) => {
                        assert_eq!(response.json()["status"], "delivered", "{shown}");
                    }
                    ("replay_webhook", 1) => assert_eq!(response.json()["count"], 1, "{shown}"),
                    _ => {}
                }
                executed += 1;
            }
        }
    }
    assert!(executed >= 40, "{executed}");
}

#[tokio::test]
async fn optional_parameters_are_not_filled_in() {
    let document = Contract::load().unwrap().document().clone();
    let resolved = resolve(&document, &document, 0);
    for (path, item) in resolved["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                // A default, spelled out, changes nothing.
                let default = parameter["schema"]["default"].to_string();
                let changes = pre_filled(parameter).is_some_and(|value| value != default);
                assert_eq!(changes, parameter["required"] == true, "{path}: {parameter}");
            }
        }
    }
}

#[tokio::test]
async fn the_examples_are_in_nobodys_way() {
    let database = TestDatabase::empty().await;
    let mut server = dev(&database, &[]).await;
    let token = server.printed_token().await;
    let receiver = Receiver::start([]).await;
    let ask = |method: &str, path: &str| Ask::new(method, &server.base, path).token(&token);
    let webhook = ask("POST", "/v1/webhooks").json(&json!({ "url": receiver.url }));
    let webhook = webhook.send().await.expect(201);
    let data = json!({ "job_id": "7d0c2f8a-4a7e-4f53-9d55-2f6f0c1b8e11" });
    for event_type in ["humanization.completed", "structure_prediction.completed"] {
        let event = ask("POST", "/v1/events").json(&json!({ "type": event_type, "data": data }));
        let event = event.send().await.expect(202);
        let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
        let deliveries = ask("GET", &path).send().await.expect(200)["deliveries"].clone();
        assert_eq!(deliveries.as_array().unwrap().len(), 1, "{deliveries}");
        assert_eq!(deliveries[0]["webhook_id"], webhook["id"]);
    }
    let listed = ask("GET", "/v1/webhooks").send().await.expect(200);
    assert_eq!(listed[0]["id"], webhook["id"], "the newest is the user's: {listed}");
    let examples = &listed.as_array().unwrap()[1..];
    assert_eq!(examples.len(), 2);
    let mut page = String::from("/v1/webhooks?limit=1");
    for webhook in listed.as_array().unwrap() {
        let response = ask("GET", &page).send().await;
        assert_eq!(response.expect(200)[0]["id"], webhook["id"]);
        page = next(response.header("link")).unwrap_or_default();
    }
    assert_eq!(page, "", "the last page says that it is");
    for example in examples {
        assert!(
            example["url"].as_str().unwrap().starts_with("http://127.0.0.1:"),
            "{example}"
        );
        assert!(
            example["description"].as_str().unwrap().starts_with("Example: "),
            "{example}"
        );
    }
    let newest = ask("GET", "/v1/webhook_deliveries?limit=2").send().await.expect(200);
    let of_user = |delivery: &Value| delivery["webhook_id"] == webhook["id"];
    assert!(newest.as_array().unwrap().iter().all(of_user), "{newest}");
    let pending = ask("GET", "/v1/webhook_deliveries?status=pending");
    let pending = pending.send().await.expect(200);
    assert!(
        pending.as_array().unwrap().iter().all(of_user),
        "no example is still to be done: {pending}"
    );
}

#[tokio::test]
async fn the_inbox_is_found_again_by_the_next_server() {
    let database = TestDatabase::empty().await;
    let mut server = dev(&database, &[]).await;
    let token = server.printed_token().await;
    let ask = |base: &str, method: &str, path: &str| Ask::new(method, base, path).token(&token);
    let path = "/v1/webhooks/aaaa0001-bbbb-0002-cccc-000300040005";
    let before = ask(&server.base, "GET", path).send().await.expect(200);
    let elsewhere = json!({ "url": "http://127.0.0.1:9/elsewhere" });
    let other = "/v1/webhooks/019dbe9c-2f40-72b0-877e-7f5e9c653938";
    ask(&server.base, "PATCH", other)
        .json(&elsewhere)
        .send()
        .await
        .expect(200);
    assert!(server.terminate().await.success());

    let given = "ab_dev000000000000000000000000000000000000000000000";
    let next = dev(&database, &["--dev-token", given]).await;
    let after = Ask::new("GET", &next.base, path).token(given).send().await.expect(200);
    assert_ne!(before["url"], after["url"]);
    let tested = ask(&next.base, "POST", &format!("{path}/test"))
        .send()
        .await
        .expect(200);
    assert_eq!(tested["status"], "delivered", "{tested}");
    let other = ask(&next.base, "GET", other).send().await.expect(200);
    assert_eq!(other["url"], elsewhere["url"], "what somebody has changed stays");
}

#[tokio::test]
async fn nothing_but_dev_begins_with_examples() {
    let webhooks = async |arguments: &[&str]| {
        let database = TestDatabase::empty().await;
        let mut command = command(&database.options.url, &std::env::temp_dir());
        command
            .args(["--bootstrap", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
            .args(arguments);
        let mut server = Process::spawn(command).await;
        let token = server.printed_token().await;
        let ask = Ask::new("GET", &server.base, "/v1/webhooks").token(&token);
        ask.send().await.expect(200).as_array().unwrap().len()
    };
    assert_eq!(webhooks(&["--dev"]).await, 2);
    assert_eq!(webhooks(&["--dev", "--no-examples"]).await, 0);
    assert_eq!(webhooks(&[]).await, 0);
}

#[tokio::test]
async fn a_token_is_given_to_dev_alone() {
    let database = TestDatabase::empty().await;
    let given = "ab_dev000000000000000000000000000000000000000000000";
    let (done, _, complaint) = run(&database, &["--dev-token", given]).await;
    assert!(
        !done && complaint.contains("--dev-token (KALLIMA_DEV_TOKEN)"),
        "{complaint}"
    );
    let (done, _, complaint) = run(&database, &["--dev", "--dev-token", "ab_short"]).await;
    assert!(!done && complaint.contains("48 letters and digits"), "{complaint}");
    assert!(!complaint.contains("ab_short"), "no token in a log: {complaint}");
    let mut server = dev(&database, &["--dev-token", given]).await;
    assert_eq!(server.printed_token().await, given);
}
