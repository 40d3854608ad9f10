//! A compiled schema of the document, and what is wrong with a value that does not match it.

use std::collections::HashSet;

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::{
    error::ContractError,
    fault::Faults,
    schema,
    vocabulary::{Vocabulary, code},
};
use crate::domain::{
    fault_code::FaultCode,
    nearest::{did_you_mean, nearest},
    pointer::escape,
};

/// A compiled schema, and its source, for messages.
pub(super) struct Shape {
    validator: Validator,
    schema: Value,
}

/// What an operation has beside its body, and is easily mistaken for a part of it.
#[derive(Default)]
pub(super) struct Beside {
    /// The members of the operation's response that are not fields of the body.
    pub(super) read_only: HashSet<String>,
    /// The parameters of the query, each with an example value.
    pub(super) query: Vec<(String, String)>,
}

impl Shape {
    /// Compiles a schema that is complete in itself.
    pub(super) fn compile(name: &str, schema: &Value) -> Result<Self, ContractError> {
        let schema = schema::simplified(schema);
        Ok(Self {
            validator: schema::compile(name, &schema)?,
            schema,
        })
    }

    /// The names of the properties.
    pub(super) fn properties(&self) -> impl Iterator<Item = &str> {
        properties(&self.schema)
    }

    /// The schema that values are checked against.
    pub(super) fn schema(&self) -> &Value {
        &self.schema
    }

    /// Adds every fault of `value`, whose pointer in the request is `at`.
    pub(super) fn check(&self, value: &Value, at: &str, beside: &Beside, words: &Vocabulary, faults: &mut Faults) {
        // Most values are valid, and finding that out is far quicker than listing errors.
        if self.validator.is_valid(value) {
            return;
        }
        for error in self.validator.iter_errors(value) {
            self.add(&error, value, at, beside, words, faults);
        }
    }

    /// Adds one error of the validator, in the terms of whoever wrote the request.
    fn add(
        &self,
        error: &ValidationError<'_>,
        value: &Value,
        at: &str,
        beside: &Beside,
        words: &Vocabulary,
        faults: &mut Faults,
    ) {
        let here = || format!("{at}{}", error.instance_path().as_str());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                self.add_unknown(unexpected.iter(), unexpected.len(), &here(), beside, faults);
            }
            // The error of a schema without properties: every field is one too many.
            ValidationErrorKind::FalseSchema => {
                let object = value.pointer(error.instance_path().as_str()).and_then(Value::as_object);
                let names = object.into_iter().flat_map(Map::keys);
                self.add_unknown(names, object.map_or(0, Map::len), &here(), beside, faults);
            }
            ValidationErrorKind::Required { property } => {
                let name = escape(property.as_str().unwrap_or_default());
                faults.add_with(format!("{}/{name}", here()), || (FaultCode::Required, "is required"));
            }
            kind => faults.add_with(here(), || (code(kind), words.explain(error, self.around(error)))),
        }
    }

    /// The part of the schema whose keyword failed.
    fn around(&self, error: &ValidationError<'_>) -> &Value {
        let keyword = error.schema_path().as_str();
        let around = keyword.rsplit_once('/').map_or("", |(around, _)| around);
        self.schema.pointer(around).unwrap_or(&Value::Null)
    }

    /// The names in one object are distinct, so those past the list are only counted.
    fn add_unknown<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
        count: usize,
        here: &str,
        beside: &Beside,
        faults: &mut Faults,
    ) {
        let mut seen = 0;
        for name in names {
            if faults.is_full() {
                break;
            }
            seen += 1;
            faults.add_with(format!("{here}/{}", escape(name)), || self.unknown(name, beside));
        }
        faults.count(count - seen);
    }

    fn unknown(&self, name: &str, beside: &Beside) -> (FaultCode, String) {
        if beside.read_only.contains(name) {
            return (FaultCode::ReadOnly, "is read-only: leave it out".to_owned());
        }
        if let Some((_, value)) = beside.query.iter().find(|(parameter, _)| parameter == name) {
            let detail = format!("is a query parameter, not a field of the body: send it as ?{name}={value}");
            return (FaultCode::UnknownField, detail);
        }
        let suggestion = did_you_mean(nearest(name, self.properties()));
        (
            FaultCode::UnknownField,
            format!("is not a field of this body{suggestion}"),
        )
    }
}

/// The names of a schema's properties.
pub(super) fn properties(schema: &Value) -> impl Iterator<Item = &str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(Map::keys).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::{super::fault::FAULTS_MAX, *};

    fn found(schema: &Value, value: &Value) -> Faults {
        let words = Vocabulary {
            patterns: HashMap::new(),
            event_types: Vec::new(),
        };
        let mut faults = Faults::default();
        let shape = Shape::compile("test", schema).unwrap();
        shape.check(value, "", &Beside::default(), &words, &mut faults);
        faults
    }

    #[test]
    fn a_fault_lists_every_word_that_is_allowed() {
        let schema = json!({ "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["a", "b"] }] });
        let faults = found(&schema, &json!("x".repeat(100_000)));
        assert_eq!(faults.listed()[0].detail, "must be a, b or null");
    }

    #[test]
    fn a_hundred_faults_are_listed_and_the_others_counted() {
        for schema in [
            json!({ "additionalProperties": false }),
            json!({ "properties": { "a": true }, "additionalProperties": false }),
            json!({ "additionalProperties": { "maxLength": 1, "pattern": "^x$" } }),
        ] {
            let body: Map<String, Value> = (0..512).map(|index| (format!("/{index}"), json!("yy"))).collect();
            let (listed, more) = found(&schema, &Value::Object(body)).into_parts();
            assert_eq!((listed.len(), more), (FAULTS_MAX, 412), "{schema}");
            assert_eq!(listed[99].pointer, "/~199", "{schema}");
        }
    }
}
