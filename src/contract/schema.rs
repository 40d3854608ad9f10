//! Schemas of the document, with references resolved, and compiled.

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::error::ContractError;

/// How deep references may nest; the document's schemas are trees, so this is never reached.
const REFERENCE_DEPTH_MAX: usize = 32;

/// A copy of `schema` with every reference replaced by what it points to, and each object in one piece.
#[must_use]
pub fn resolve(document: &Value, schema: &Value, depth: usize) -> Value {
    match schema {
        Value::Object(members) => {
            let reference = members
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix('#'));
            if let Some(target) = reference.and_then(|pointer| document.pointer(pointer))
                && depth < REFERENCE_DEPTH_MAX
            {
                let mut resolved = resolve(document, target, depth + 1);
                // In JSON Schema 2020-12, keywords beside a `$ref` apply, too.
                if let Some(resolved) = resolved.as_object_mut() {
                    let beside = members.iter().filter(|(key, _)| *key != "$ref");
                    resolved.extend(beside.map(|(key, value)| (key.clone(), resolve(document, value, depth))));
                }
                return resolved;
            }
            let resolved = members
                .iter()
                .map(|(key, value)| (key.clone(), resolve(document, value, depth)));
            merged(resolved.collect())
        }
        Value::Array(items) => items.iter().map(|item| resolve(document, item, depth)).collect(),
        other => other.clone(),
    }
}

/// Merges an `allOf` that only adds members to an object into one object. The meaning is the same, and everyone who
/// reads the schema (a person, a fault's pointer, a test) finds all members together. Any other schema is returned unchanged.
fn merged(schema: Map<String, Value>) -> Value {
    let mut whole = schema.clone();
    let Some(Value::Array(parts)) = whole.remove("allOf") else {
        return Value::Object(schema);
    };
    for part in &parts {
        if part.as_object().and_then(|part| add(&mut whole, part)).is_none() {
            return Value::Object(schema);
        }
    }
    Value::Object(whole)
}

/// Adds one part of an `allOf`; `None` if it says more than which members there are, or contradicts the others.
fn add(whole: &mut Map<String, Value>, part: &Map<String, Value>) -> Option<()> {
    for (keyword, said) in part {
        match keyword.as_str() {
            "properties" => {
                let properties = whole.entry(keyword).or_insert_with(|| json!({})).as_object_mut()?;
                for (name, property) in said.as_object()? {
                    if properties.insert(name.clone(), property.clone()).is_some() {
                        return None;
                    }
                }
            }
            "required" => {
                let required = whole.entry(keyword).or_insert_with(|| json!([])).as_array_mut()?;
                required.extend(said.as_array()?.iter().cloned());
            }
            "type" if said == "object" => drop(whole.insert(keyword.clone(), said.clone())),
            // Describes the part, not the whole.
            "description" => {}
            _ => return None,
        }
    }
    Some(())
}

/// Compiles `schema`, which contains no references. Its patterns are matched in linear time, whatever text a client sends.
pub(super) fn compile(name: &str, schema: &Value) -> Result<Validator, ContractError> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|cause| ContractError::Schema {
            name: name.to_owned(),
            cause: cause.to_string(),
        })
}

/// A copy of `schema` without descriptions, in which a nullable word is an enum that contains null. That means the same
/// as the document's `oneOf`, for which the validator would report every branch, each with a copy of the value.
pub(super) fn simplified(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => match nullable_words(members) {
            Some(words) => json!({ "enum": words }),
            None => members
                .iter()
                // A property of this name is a schema, not a text.
                .filter(|(key, value)| *key != "description" || !value.is_string())
                .map(|(key, value)| (key.clone(), simplified(value)))
                .collect(),
        },
        Value::Array(items) => items.iter().map(simplified).collect(),
        other => other.clone(),
    }
}

/// The words of `{"oneOf": [{"type": "null"}, {"type": "string", "enum": […]}]}`, and null.
fn nullable_words(members: &Map<String, Value>) -> Option<Vec<Value>> {
    // Keywords beside the branches that only describe them.
    let describes = |key: &String| matches!(key.as_str(), "description" | "default" | "examples" | "title");
    if members.keys().any(|key| key != "oneOf" && !describes(key)) {
        return None;
    }
    let [null, words] = members.get("oneOf")?.as_array()?.as_slice() else {
        return None;
    };
    let words = words.as_object()?;
    let asserts = |key: &String| key == "type" || key == "enum" || describes(key);
    if *null != json!({ "type": "null" }) || words.get("type")? != "string" || !words.keys().all(asserts) {
        return None;
    }
    let mut words = words.get("enum")?.as_array()?.clone();
    words.push(Value::Null);
    words
        .iter()
        .all(|word| word.is_string() || word.is_null())
        .then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_put_together_from_parts_is_one_object() {
        let document = json!({
            "Base": { "type": "object", "description": "A base.", "required": ["a"], "properties": { "a": { "type": "string" } } },
            "More": { "description": "More.", "allOf": [
                { "$ref": "#/Base" },
                { "type": "object", "required": ["b"], "properties": { "b": { "$ref": "#/Base" } } },
            ] },
        });
        let more = resolve(&document, &document["More"], 0);
        let base = &document["Base"];
        let whole = json!({
            "description": "More.", "type": "object", "required": ["a", "b"],
            "properties": { "a": { "type": "string" }, "b": base },
        });
        assert_eq!(more, whole);
    }

    #[test]
    fn an_all_of_that_says_more_is_left_as_it_is() {
        for other in [
            json!({ "allOf": [{ "type": "string" }, { "maxLength": 5 }] }),
            json!({ "allOf": [{ "type": "object", "additionalProperties": false }, { "type": "object" }] }),
            json!({ "allOf": [{ "properties": { "a": {} } }, { "properties": { "a": { "type": "string" } } }] }),
            json!({ "allOf": [true] }),
        ] {
            assert_eq!(resolve(&other, &other, 0), other);
        }
    }

    #[test]
    fn a_word_that_may_be_null_is_an_enum_with_null_in_it() {
        let words = json!({ "type": "string", "enum": ["a", "b"], "description": "" });
        let plain = simplified(&json!({ "properties": { "x": { "oneOf": [{ "type": "null" }, words] } } }));
        assert_eq!(plain, json!({ "properties": { "x": { "enum": ["a", "b", null] } } }));
        for other in [
            json!({ "oneOf": [{ "type": "null" }, { "type": "string" }] }),
            json!({ "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["a"], "minLength": 2 }] }),
            json!({ "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["a", 1] }] }),
            json!({ "oneOf": [{ "type": "array" }, { "type": "string", "enum": ["a"] }] }),
            json!({ "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["a"] }], "maxLength": 0 }),
        ] {
            assert_eq!(simplified(&other), other);
        }
    }
}
