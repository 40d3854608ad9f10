//! Normalizing the derived document and openapi.yaml for comparison.
//!
//! Both pass the same normalization. It removes what only one of them can express, and what has no meaning:
//!
//! 1. `paths` and `components.securitySchemes` are compared; `info`, `servers` and the words of `tags` are the
//!    document's alone, and so is `webhooks`, which has no handlers: every delivery that a test's receiver gets is
//!    compared with it instead.
//! 2. References are replaced by what they point to, so that the two may name and share their parts as they like.
//! 3. Prose is dropped: descriptions, summaries, titles, examples, links, external documents. It is written once, in
//!    openapi.yaml; examples have tests of their own.
//! 4. The spellings of one meaning become one: `oneOf: [{type: 'null'}, X]` and `type: [T, 'null']` are both a
//!    nullable X; absent is `false` for `required` and `true` for `additionalProperties`; `enum` and `const` of one
//!    value are the same; lists whose order means nothing are sorted.
//! 5. Of a response header the name and the type are compared: the annotations of handlers cannot say more. The check
//!    of every response compares its value with the whole of what openapi.yaml says.
//!    The same goes for the length of a page: another test compares `maxItems` with the maximum of `limit`.
//! 6. The parts of an `allOf` that are objects become one object with the members of all. If two parts have one property,
//!    the later one counts, and null is allowed only if both allow it.
//! 7. The spellings of an optional body become one (utoipa adds "or null" to its schema), and so do those of an operation
//!    without authentication: no requirement, or one that requires nothing.

use kallima_webhooks::contract::resolve;
use serde_json::{Map, Value, json};

/// Members that are prose, unless they are names.
const PROSE: [&str; 7] = [
    "description",
    "summary",
    "title",
    "example",
    "examples",
    "links",
    "externalDocs",
];

/// Members whose own members are names, given by the document's author.
const MAPS: [&str; 4] = ["paths", "properties", "responses", "securitySchemes"];

/// Lists whose order means nothing.
const SETS: [&str; 4] = ["required", "enum", "tags", "type"];

/// The comparable part of a document.
pub(super) fn normalize(document: &Value) -> Value {
    let resolved = resolve(document, document, 0);
    let compared = json!({
        "paths": resolved["paths"],
        "securitySchemes": resolved["components"]["securitySchemes"],
    });
    normal(&compared, false)
}

/// `is_map`: the members are names, not keywords.
fn normal(value: &Value, is_map: bool) -> Value {
    match value {
        Value::Object(members) if is_map => members
            .iter()
            .map(|(name, member)| (name.clone(), normal(member, false)))
            .collect(),
        Value::Object(members) => object(members),
        Value::Array(items) => items.iter().map(|item| normal(item, false)).collect(),
        other => other.clone(),
    }
}

fn object(members: &Map<String, Value>) -> Value {
    let mut normalized = Map::new();
    for (keyword, member) in members {
        let is_default = match keyword.as_str() {
            "required" => member == &json!(false),
            "additionalProperties" => member == &json!(true),
            _ => false,
        };
        if is_default || PROSE.contains(&keyword.as_str()) {
            continue;
        }
        let member = match keyword.as_str() {
            "headers" => headers(member),
            "parameters" => parameters(member),
            "requestBody" => request_body(member),
            "security" if member == &json!([{}]) => json!([]),
            "content" => content(member),
            _ => normal(member, MAPS.contains(&keyword.as_str())),
        };
        normalized.insert(keyword.clone(), member);
    }
    nullable(&mut normalized);
    all_of(&mut normalized);
    if let Some(constant) = normalized.remove("const") {
        normalized.insert("enum".to_owned(), json!([constant]));
    }
    for set in SETS {
        if let Some(Value::Array(items)) = normalized.get_mut(set) {
            items.sort_by_key(ToString::to_string);
        }
    }
    Value::Object(normalized)
}

/// Gives "or null" one spelling: `"nullable": true` beside the rest.
fn nullable(members: &mut Map<String, Value>) {
    let is_null = |value: &Value| value == &json!({ "type": "null" });
    if let Some(Value::Array(choices)) = members.get("oneOf")
        && choices.len() == 2
        && let Some(other) = choices
            .iter()
            .find(|choice| !is_null(choice))
            .and_then(Value::as_object)
            .cloned()
        && choices.iter().any(is_null)
    {
        members.remove("oneOf");
        members.extend(other);
        members.insert("nullable".to_owned(), json!(true));
    }
    if let Some(Value::Array(types)) = members.get("type")
        && types.len() == 2
        && types.contains(&json!("null"))
        && let Some(one) = types.iter().find(|one| *one != "null")
    {
        let one = one.clone();
        members.insert("type".to_owned(), one);
        members.insert("nullable".to_owned(), json!(true));
    }
}

/// Makes one object of the parts of an `allOf`.
fn all_of(members: &mut Map<String, Value>) {
    let Some(Value::Array(parts)) = members.remove("allOf") else {
        return;
    };
    for part in parts {
        strengthen(members, part.as_object().unwrap());
    }
}

fn strengthen(schema: &mut Map<String, Value>, stricter: &Map<String, Value>) {
    for (keyword, member) in stricter {
        match (schema.get_mut(keyword), member) {
            (Some(Value::Array(names)), Value::Array(more)) if keyword == "required" => names.extend(more.clone()),
            (Some(Value::Object(properties)), Value::Object(more)) if keyword == "properties" => {
                for (name, property) in more {
                    match (properties.get_mut(name), property) {
                        (Some(Value::Object(known)), Value::Object(property)) => {
                            if !property.contains_key("nullable") {
                                known.remove("nullable");
                            }
                            strengthen(known, property);
                        }
                        _ => drop(properties.insert(name.clone(), property.clone())),
                    }
                }
            }
            _ => drop(schema.insert(keyword.clone(), member.clone())),
        }
    }
}

fn request_body(body: &Value) -> Value {
    let mut normalized = normal(body, false);
    let optional = normalized.get("required").is_none();
    if optional && let Some(schema) = normalized.pointer_mut("/content/application~1json/schema") {
        schema.as_object_mut().unwrap().remove("nullable");
    }
    normalized
}

fn content(content: &Value) -> Value {
    let mut normalized = normal(content, true);
    for media in normalized.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(page) = media["schema"]
            .as_object_mut()
            .filter(|schema| schema.contains_key("items"))
        {
            page.remove("maxItems");
        }
    }
    normalized
}

fn headers(headers: &Value) -> Value {
    let typed = |(name, header): (&String, &Value)| (name.clone(), json!({ "type": header["schema"]["type"] }));
    headers.as_object().into_iter().flatten().map(typed).collect()
}

fn parameters(parameters: &Value) -> Value {
    let named = parameters.as_array().into_iter().flatten().map(|parameter| {
        let name = format!(
            "{} {}",
            parameter["in"].as_str().unwrap(),
            parameter["name"].as_str().unwrap()
        );
        (name, normal(parameter, false))
    });
    let mut named: Vec<(String, Value)> = named.collect();
    named.sort_by(|left, right| left.0.cmp(&right.0));
    Value::Object(named.into_iter().collect())
}
