//! CONTRIBUTING.md's recipes: which files a new setting of a webhook must touch, and what must follow from that.

use std::{collections::BTreeSet, fs, path::Path};

use kallima_webhooks::{contract::Contract, domain::webhook_settings::WebhookSettings};
use serde_json::{Value, json};

use crate::support::App;

/// The field that the audit records of a webhook but that is not a setting: the service's own.
const NO_SETTING: &str = "disabled_reason";

fn schemas() -> Value {
    Contract::load().unwrap().document()["components"]["schemas"].clone()
}

fn properties(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

/// The settings according to openapi.yaml: the members of a change.
fn settings() -> BTreeSet<String> {
    properties(&schemas()["UpdateWebhook"])
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The part of a text from `start` to the next `end`.
fn part<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let after = text
        .split_once(start)
        .unwrap_or_else(|| panic!("there is no {start:?}"))
        .1;
    after.split(end).next().unwrap()
}

#[test]
fn a_setting_is_in_every_file_of_its_recipe() {
    let (schemas, settings) = (schemas(), settings());
    assert!(settings.len() >= 5, "the settings are read: {settings:?}");
    let declared: BTreeSet<String> = WebhookSettings::NAMES.iter().map(ToString::to_string).collect();
    let mut audited = properties(&schemas["FieldChanges"]);
    assert!(audited.remove(NO_SETTING));
    for (file, found) in [
        ("openapi.yaml, CreateWebhook", properties(&schemas["CreateWebhook"])),
        ("openapi.yaml, FieldChanges", audited),
        ("src/domain/webhook_settings.rs, settings!", declared),
    ] {
        assert_eq!(
            found, settings,
            "{file} and openapi.yaml's UpdateWebhook: CONTRIBUTING.md has the recipe"
        );
    }
    let (migration, entity, body) = (
        source("migration/src/m20261123_000001_schema.rs"),
        source("src/store/entity/webhook.rs"),
        source("src/api/webhooks.rs"),
    );
    for name in settings {
        let has = |text: &str, field: &str| text.lines().any(|line| line.trim_start().starts_with(field));
        let missing = "is not there; CONTRIBUTING.md has the recipe";
        let shown = &schemas["Webhook"]["properties"][&name];
        assert!(shown.is_object(), "openapi.yaml, Webhook: {name} {missing}");
        let table = part(&migration, "CREATE TABLE webhooks (", "\n)");
        assert!(has(table, &format!("{name} ")), "the table webhooks: {name} {missing}");
        let (model, field) = (part(&entity, "pub struct Model {", "\n}"), format!("pub {name}: "));
        assert!(has(model, &field), "the entity webhook: {name} {missing}");
        let dto = part(&body, "struct UpdateWebhook {", "\n}");
        assert!(
            has(dto, &format!("{name}: ")),
            "api/webhooks.rs, UpdateWebhook: {name} {missing}"
        );
    }
}

/// A value that a change may set, and that no webhook of these tests has yet.
fn value(schema: &Value) -> Value {
    let example = &schema["examples"][0];
    match schema["type"][0].as_str().unwrap() {
        _ if !example.is_null() => example.clone(),
        "boolean" => json!(false),
        "string" => json!("As a recipe says."),
        other => panic!("give the property of the type {other} an example in openapi.yaml"),
    }
}

#[tokio::test]
async fn a_setting_is_stored_shown_and_audited() {
    let app = App::dev().await;
    let schema = &schemas()["UpdateWebhook"]["properties"];
    for name in settings() {
        let value = value(&schema[&name]);
        let plain = app.webhook("http://127.0.0.1:9/").await;
        let mut body = json!({ "url": "http://127.0.0.1:9/" });
        body[&name] = value.clone();
        let created = app.post("/v1/webhooks", &body).await.expect(201);
        assert_eq!(created[&name], value, "{name}, created");
        // In a transaction of its own, and in one that changes share.
        for key in [Some("a key"), None] {
            let path = format!(
                "/v1/webhooks/{}",
                app.webhook("http://127.0.0.1:9/").await["id"].as_str().unwrap()
            );
            let change = app.ask("PATCH", &path).json(&json!({ &name: value }));
            let change = match key {
                Some(key) => change.header("idempotency-key", &format!("{key} of {name}")),
                None => change,
            };
            let changed = change.send().await.expect(200);
            assert_eq!(changed[&name], value, "{name}, changed, {key:?}");
            let shown = app.get(&path).await.expect(200);
            assert_eq!(shown, changed, "{name}, {key:?}");
            let entries = app.get(&format!("{path}/audit")).await.expect(200);
            let before = plain.get(&name).cloned().unwrap_or_default();
            let noted = json!({ &name: { "before": before, "after": value } });
            assert_eq!(entries[0]["changes"], noted, "{name}, {key:?}");
            // Other changes leave it alone.
            let other = if name == "description" {
                json!({ "enabled": false })
            } else {
                json!({ "description": "Other" })
            };
            let changed = app.patch(&path, &other).await.expect(200);
            assert_eq!(changed[&name], value, "{name}, left alone");
        }
    }
}

#[test]
fn every_file_that_a_recipe_names_is_there() {
    let recipes = source("CONTRIBUTING.md");
    let named = recipes.split('`').skip(1).step_by(2);
    let is_path = |text: &&str| text.contains('/') && !text.contains(['<', ' ', '…', '=']);
    let named: Vec<&str> = named.filter(is_path).collect();
    assert!(named.len() >= 10, "only {named:?} are named");
    for path in named {
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(),
            "there is no {path}, but CONTRIBUTING.md names it"
        );
    }
}
