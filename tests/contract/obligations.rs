//! The obligations that openapi.yaml puts on the server, enumerated from the document itself, so that none is forgotten.

use std::collections::BTreeSet;

use kallima_webhooks::contract::{Contract, resolve};
use serde_json::{Map, Value, json};

/// An operation of the document, its references resolved.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) pointer: String,
    pub(super) id: String,
    pub(super) item: Value,
}

impl Operation {
    /// The scope that it requires; `None` for an operation without authentication.
    pub(super) fn scope(&self) -> Option<&str> {
        self.item["security"][0]["bearer"][0].as_str()
    }

    pub(super) fn statuses(&self) -> Vec<String> {
        self.item["responses"].as_object().unwrap().keys().cloned().collect()
    }

    pub(super) fn parameters(&self, location: &str) -> Vec<&Value> {
        self.item["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == location)
            .collect()
    }

    pub(super) fn body_schema(&self) -> Option<&Value> {
        self.item.pointer("/requestBody/content/application~1json/schema")
    }

    /// The examples of its body, by name.
    pub(super) fn body_examples(&self) -> Vec<(String, Value)> {
        let Some(content) = self.item.pointer("/requestBody/content/application~1json") else {
            return Vec::new();
        };
        let named = content["examples"].as_object().into_iter().flatten();
        let named = named.map(|(name, example)| (format!("examples/{name}"), example["value"].clone()));
        named
            .chain(
                content
                    .get("example")
                    .map(|example| ("example".to_owned(), example.clone())),
            )
            .collect()
    }
}

/// Every operation.
pub(super) fn operations() -> Vec<Operation> {
    let document = Contract::load().unwrap().document().clone();
    let resolved = resolve(&document, &document, 0);
    let mut found = Vec::new();
    for (path, item) in resolved["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            found.push(Operation {
                verb: verb.to_uppercase(),
                path: path.clone(),
                pointer: format!("/paths/{}/{verb}", path.replace('~', "~0").replace('/', "~1")),
                id: operation["operationId"].as_str().unwrap().to_owned(),
                item: operation.clone(),
            });
        }
    }
    found
}

/// How large the body of an operation may be, as the document says in prose.
pub(super) fn body_bytes_max(operation_id: &str) -> usize {
    if operation_id == "publish_event" {
        256 * 1024
    } else {
        16 * 1024
    }
}

/// A value that breaks one constraint, or is exactly at its edge.
pub(super) struct Probe {
    /// The constraint, as a pointer below the operation.
    pub(super) constraint: String,
    /// Where in the body (a JSON Pointer) the value goes.
    pub(super) pointer: String,
    pub(super) value: Value,
    /// Whether the server must accept it.
    pub(super) accepted: bool,
}

impl Probe {
    /// The obligation that is met if the server accepts or refuses this as it must.
    pub(super) fn obligation(&self, operation: &Operation) -> String {
        let verdict = if self.accepted {
            "accepted at its edge"
        } else {
            "refused"
        };
        format!("{}/{}: {verdict}", operation.pointer, self.constraint)
    }
}

/// The probes of one schema: `at` is the pointer to its keywords, `pointer` that of the value in the body.
pub(super) fn probes(schema: &Value, at: &str, pointer: &str) -> Vec<Probe> {
    let mut found = Vec::new();
    for (keyword, limit) in schema.as_object().into_iter().flatten() {
        let size = limit.as_i64().unwrap_or_default();
        let (refused, accepted) = match keyword.as_str() {
            "type" => (Some(wrong_type(limit)), None),
            "enum" => (
                Some(json!("no-such-word")),
                limit.as_array().and_then(|words| words.last().cloned()),
            ),
            "minimum" => (Some(json!(size - 1)), Some(json!(size))),
            "maximum" => (Some(json!(size + 1)), Some(json!(size))),
            "maxLength" => (Some(long(schema, size + 1)), Some(long(schema, size))),
            "minLength" => (Some(json!("")), None),
            "maxItems" => (Some(many(schema, size + 1)), Some(many(schema, size))),
            "pattern" if limit == "^[^\\x00]*$" => (Some(json!("\u{0}")), Some(json!("any\u{1}text"))),
            // Of an idempotency key; a header can hold hardly anything else that is not printable.
            "pattern" if limit == "^[!-~]([ -~]*[!-~])?$" => (Some(json!("a\tb")), Some(json!("a ~"))),
            "pattern" => (Some(json!("!")), None),
            "format" if schema["type"] == "integer" => (Some(json!("1.5")), None),
            "format" => (Some(json!("not of this format")), None),
            _ => continue,
        };
        let constraint = format!("{at}/{keyword}");
        let probe = |value, accepted| Probe {
            constraint: constraint.clone(),
            pointer: pointer.to_owned(),
            value,
            accepted,
        };
        found.extend(refused.map(|value| probe(value, false)));
        found.extend(accepted.map(|value| probe(value, true)));
    }
    if let Some(items) = schema.get("items") {
        let inner = probes(items, &format!("{at}/items"), pointer);
        found.extend(inner.into_iter().map(|probe| Probe {
            value: json!([probe.value]),
            pointer: format!("{}/0", probe.pointer),
            ..probe
        }));
    }
    found
}

/// The probes of a body: each property's, and what holds for the whole.
pub(super) fn body_probes(operation: &Operation) -> Vec<Probe> {
    const AT: &str = "requestBody/content/application~1json/schema";
    let Some(schema) = operation.body_schema() else {
        return Vec::new();
    };
    let whole = |constraint: &str, pointer: String, value| Probe {
        constraint: format!("{AT}/{constraint}"),
        pointer,
        value,
        accepted: false,
    };
    let mut found = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.extend(probes(
            property,
            &format!("{AT}/properties/{name}"),
            &format!("/{name}"),
        ));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        found.push(whole(&format!("required/{name}"), format!("/{name}"), Value::Null));
    }
    if schema["additionalProperties"] == false {
        found.push(whole("additionalProperties", "/no_such_field".to_owned(), json!(1)));
    }
    found.push(whole("type", String::new(), json!([])));
    found
}

fn wrong_type(types: &Value) -> Value {
    let is = |word: &str| types == word || types.as_array().is_some_and(|types| types.contains(&json!(word)));
    if is("string") { json!(5) } else { json!("wrong") }
}

/// A text of this length that breaks no other constraint, if possible.
fn long(schema: &Value, length: i64) -> Value {
    let length = usize::try_from(length).unwrap();
    let text = if schema["format"] == "uri" || schema["format"] == "iri" {
        format!(
            "https://example.com/{}",
            "x".repeat(length - "https://example.com/".len())
        )
    } else if schema["pattern"]
        .as_str()
        .is_some_and(|pattern| pattern.contains("\\."))
    {
        format!("a.{}", "b".repeat(length - 2))
    } else {
        "x".repeat(length)
    };
    json!(text)
}

fn many(schema: &Value, count: i64) -> Value {
    let example = schema
        .pointer("/items/examples/0")
        .cloned()
        .unwrap_or_else(|| json!("job.failed"));
    json!(vec![example; usize::try_from(count).unwrap()])
}

/// Every obligation of the document.
pub(super) fn obligations() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for operation in operations() {
        let pointer = &operation.pointer;
        for (status, response) in operation.item["responses"].as_object().unwrap() {
            let here = format!("{pointer}/responses/{status}");
            let names = |members: &Value| members.as_object().cloned().unwrap_or_default();
            all.extend(
                names(&response["headers"])
                    .keys()
                    .map(|name| format!("{here}/headers/{name}")),
            );
            all.extend(
                names(&response["content"])
                    .keys()
                    .map(|media| format!("{here}/content/{}", media.replace('/', "~1"))),
            );
            all.insert(here);
        }
        if operation.scope().is_some() {
            all.insert(format!("{pointer}/security: refused without a token"));
            all.insert(format!("{pointer}/security: refused without the scope"));
        }
        for location in ["query", "path", "header"] {
            for parameter in operation.parameters(location) {
                let at = format!("parameters/{location} {}", parameter["name"].as_str().unwrap());
                all.insert(format!("{pointer}/{at}"));
                all.extend(
                    parameter_probes(parameter, location)
                        .iter()
                        .map(|probe| probe.obligation(&operation)),
                );
                all.extend(
                    parameter["schema"]
                        .get("default")
                        .map(|_| format!("{pointer}/{at}/schema/default")),
                );
            }
        }
        all.extend(body_probes(&operation).iter().map(|probe| probe.obligation(&operation)));
        all.extend(
            operation
                .body_examples()
                .iter()
                .map(|(name, _)| format!("{pointer}/requestBody/{name}")),
        );
    }
    let contract = Contract::load().unwrap();
    all.extend(contract.event_type_names().map(|name| format!("/webhooks/{name}")));
    all
}

/// The probes of a parameter. Queries, paths and headers are text, so a wrong type is possible only if the parameter is not
/// a text.
pub(super) fn parameter_probes(parameter: &Value, location: &str) -> Vec<Probe> {
    let name = parameter["name"].as_str().unwrap();
    let schema: Map<String, Value> = parameter["schema"].as_object().unwrap().clone();
    let text = schema["type"] == "string";
    let mut found = probes(
        &Value::Object(schema),
        &format!("parameters/{location} {name}/schema"),
        name,
    );
    found.retain(|probe| !(text && probe.constraint.ends_with("/type")));
    found
}

/// A query of one parameter.
pub(super) fn query(name: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let pairs = url::form_urlencoded::Serializer::new(String::new())
        .append_pair(name, &text)
        .finish();
    format!("?{pairs}")
}

/// The valid body with the probe's value inserted; null for a required field removes the field.
pub(super) fn with(valid: &Value, probe: &Probe) -> Value {
    let Some(name) = probe.pointer.split('/').nth(1) else {
        return probe.value.clone();
    };
    let mut body = valid.clone();
    let fields = body.as_object_mut().unwrap();
    if probe.constraint.contains("/required/") {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), probe.value.clone());
    }
    body
}

/// A keyword of JSON Schema as the code of a fault.
pub(super) fn snake_case(keyword: &str) -> String {
    let letters = keyword.chars().map(|letter| {
        if letter.is_ascii_uppercase() {
            format!("_{letter}")
        } else {
            letter.to_string()
        }
    });
    letters.collect::<String>().to_ascii_lowercase()
}
