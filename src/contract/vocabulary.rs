//! What the document requires of a part of a request, in a sentence for the client: "must be …".

use std::collections::HashMap;

use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::{Map, Value};

use crate::domain::{
    event_filter,
    fault_code::FaultCode,
    nearest::{did_you_mean, nearest},
};

/// The words that sentences are made of.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// What a string that matches a pattern is: the document's `x-patterns`.
    pub(super) patterns: HashMap<String, String>,
    /// The names of the catalog.
    pub(super) event_types: Vec<String>,
}

/// The words for the patterns of event types begin with this.
const EVENT_TYPE: &str = "an event type";

/// What a string of each format is, and an example.
const FORMATS: [(&str, &str, &str); 4] = [
    ("uuid", "a UUID", "019db9c8-3900-7651-8317-1ff4a6a3a450"),
    (
        "date-time",
        "a date and time with its offset from UTC",
        "2026-04-23T10:00:00+00:00",
    ),
    ("iri", "an absolute https URL", "https://example.com/hook"),
    ("uri", "an absolute URL", "https://example.com/result"),
];

/// The kind of a fault, in one word.
pub(super) fn code(kind: &ValidationErrorKind) -> FaultCode {
    match kind {
        ValidationErrorKind::Format { .. } => FaultCode::Format,
        ValidationErrorKind::Pattern { .. } => FaultCode::Pattern,
        ValidationErrorKind::Enum { .. } | ValidationErrorKind::Constant { .. } => FaultCode::Enum,
        ValidationErrorKind::MinLength { .. } => FaultCode::MinLength,
        ValidationErrorKind::MaxLength { .. } => FaultCode::MaxLength,
        ValidationErrorKind::MaxItems { .. } => FaultCode::MaxItems,
        ValidationErrorKind::Minimum { .. } => FaultCode::Minimum,
        ValidationErrorKind::Maximum { .. } => FaultCode::Maximum,
        // A contract test ensures that schemas of requests use no other keyword.
        _ => FaultCode::Type,
    }
}

impl Vocabulary {
    /// What is wrong according to `schema`. Never quotes the value, which may be as long as a body.
    pub(super) fn explain(&self, error: &ValidationError<'_>, schema: &Value) -> String {
        let text = error.instance().as_str().unwrap_or_default();
        match error.kind() {
            ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".to_owned(),
            ValidationErrorKind::MaxLength { limit } => format!("must be at most {limit} characters long"),
            ValidationErrorKind::MaxItems { limit } => format!("must have at most {limit} entries"),
            ValidationErrorKind::Pattern { pattern } if self.is_of_event_types(pattern) => {
                let text = if !pattern.contains(r"\*") {
                    text.trim_end_matches(".*").to_owned()
                } else if text.contains('.') {
                    text.to_owned()
                } else {
                    format!("{text}.*")
                };
                let suggestion = event_filter::nearest(&text, self.event_types.iter().map(String::as_str));
                format!("{}{}", self.must_be(schema, false), did_you_mean(suggestion.as_deref()))
            }
            ValidationErrorKind::Enum { options } => {
                let words = options.as_array().into_iter().flatten().filter_map(Value::as_str);
                format!("{}{}", self.must_be(schema, true), did_you_mean(nearest(text, words)))
            }
            ValidationErrorKind::Pattern { .. } | ValidationErrorKind::Format { .. } => self.must_be(schema, false),
            _ => self.must_be(schema, true),
        }
    }

    fn is_of_event_types(&self, pattern: &str) -> bool {
        let words = self.patterns.get(pattern);
        words.is_some_and(|words| words.starts_with(EVENT_TYPE))
    }

    /// What a value of `schema` must be; with `or_null`, also that it may be null.
    pub(super) fn must_be(&self, schema: &Value, or_null: bool) -> String {
        let Some(keywords) = schema.as_object() else {
            return "is not allowed here".to_owned();
        };
        let mut choices = self.choices(keywords);
        if or_null && allows_null(keywords) {
            choices.push("null".to_owned());
        }
        let last = choices.pop().unwrap_or_default();
        let choices = match choices.as_slice() {
            [] => last,
            others => format!("{} or {last}", others.join(", ")),
        };
        format!("must be {choices}{}", sample(keywords))
    }

    /// What a value can be, except null.
    fn choices(&self, keywords: &Map<String, Value>) -> Vec<String> {
        if let Some(words) = keywords.get("enum").and_then(Value::as_array) {
            return words.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        }
        let written = |keyword: &str| keywords.get(keyword).and_then(Value::as_str);
        let format = written("format").and_then(|format| FORMATS.iter().find(|(known, ..)| *known == format));
        let pattern = written("pattern").and_then(|pattern| self.patterns.get(pattern));
        let words = match (format, pattern) {
            (Some((_, words, _)), _) => (*words).to_owned(),
            (None, Some(words)) => words.clone(),
            (None, None) => match the_type(keywords) {
                "boolean" => return ["true", "false"].map(ToOwned::to_owned).into(),
                "integer" => format!("a whole number{}", range(keywords)),
                "number" => format!("a number{}", range(keywords)),
                "object" => "a JSON object".to_owned(),
                "array" => "an array".to_owned(),
                _ => "a string".to_owned(),
            },
        };
        vec![words]
    }
}

fn types(keywords: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let several = keywords.get("type").and_then(Value::as_array).into_iter().flatten();
    several.chain(keywords.get("type")).filter_map(Value::as_str)
}

/// The type of a value that is not null.
fn the_type(keywords: &Map<String, Value>) -> &str {
    types(keywords).find(|one| *one != "null").unwrap_or("object")
}

fn allows_null(keywords: &Map<String, Value>) -> bool {
    let words = keywords.get("enum").and_then(Value::as_array);
    types(keywords).any(|one| one == "null") || words.is_some_and(|words| words.contains(&Value::Null))
}

fn range(keywords: &Map<String, Value>) -> String {
    match (keywords.get("minimum"), keywords.get("maximum")) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}

/// A valid value, for forms that are understood by example: the document's example, or that of the format.
fn sample(keywords: &Map<String, Value>) -> String {
    let has_form = ["format", "pattern"]
        .iter()
        .any(|keyword| keywords.contains_key(*keyword));
    let is_text = the_type(keywords) == "string";
    if is_text && !has_form || !is_text && the_type(keywords) != "array" || keywords.contains_key("enum") {
        return String::new();
    }
    let format = FORMATS
        .iter()
        .find(|(known, ..)| keywords.get("format") == Some(&Value::from(*known)));
    match (keywords.get("examples").and_then(|examples| examples.get(0)), format) {
        (Some(Value::String(text)), _) => format!(", such as {text}"),
        (Some(other), _) => format!(", such as {other}"),
        (None, Some((.., text))) => format!(", such as {text}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_asks_for_is_said_in_words() {
        let vocabulary = Vocabulary {
            patterns: HashMap::from([("^x".to_owned(), "text that begins with x".to_owned())]),
            event_types: Vec::new(),
        };
        for (schema, words) in [
            (
                json!({ "type": "integer", "minimum": 1, "maximum": 100 }),
                "a whole number from 1 to 100",
            ),
            (
                json!({ "type": ["integer", "null"], "minimum": 1 }),
                "a whole number of at least 1 or null",
            ),
            (
                json!({ "type": ["number", "null"], "maximum": 1 }),
                "a number of at most 1 or null",
            ),
            (json!({ "type": ["boolean", "null"] }), "true, false or null"),
            (json!({ "enum": ["a", "b", null] }), "a, b or null"),
            (json!({ "type": "string", "enum": ["a", "b", "c"] }), "a, b or c"),
            (
                json!({ "type": "array", "examples": [["a"]] }),
                "an array, such as [\"a\"]",
            ),
            (
                json!({ "type": "string", "pattern": "^x", "examples": ["xy"] }),
                "text that begins with x, such as xy",
            ),
            (
                json!({ "type": ["string", "null"], "format": "iri" }),
                "an absolute https URL or null, such as https://example.com/hook",
            ),
            (
                json!({ "type": ["string", "null"], "maxLength": 9 }),
                "a string or null",
            ),
            (json!({ "type": "object" }), "a JSON object"),
        ] {
            assert_eq!(vocabulary.must_be(&schema, true), format!("must be {words}"));
        }
    }
}
