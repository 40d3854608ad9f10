//! What is wrong with a body, and what the validator's complaints mean to somebody who wrote it.

use std::{borrow::Cow, collections::HashSet};

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value};

use crate::domain::pointer::escape;

/// How many faults of a body are listed; the others are counted.
pub const FAULTS_MAX: usize = 100;

/// One thing that is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON Pointer (RFC 6901) into the body.
    pub pointer: String,
    /// What kind of fault, in one word.
    pub code: Cow<'static, str>,
    /// What is wrong, for people.
    pub detail: Cow<'static, str>,
}

/// The faults found so far, one per place: the first judge that complains of a place is the clearest.
///
/// Adding one takes the same time however many there are, and past [`FAULTS_MAX`] it costs no more than its pointer.
#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<Fault>,
    places: HashSet<String>,
    more: usize,
}

impl Faults {
    /// Adds a fault, unless its place has one.
    pub fn add(&mut self, pointer: &str, code: &'static str, detail: &impl ToString) {
        self.add_with(pointer.to_owned(), || (code, detail.to_string()));
    }

    /// Adds a fault, unless its place has one. Its code and detail are only asked for where it is listed.
    pub fn add_with<C, D>(&mut self, pointer: String, describe: impl FnOnce() -> (C, D))
    where
        C: Into<Cow<'static, str>>,
        D: Into<Cow<'static, str>>,
    {
        if self.places.contains(&pointer) {
            return;
        }
        if self.is_full() {
            self.places.insert(pointer);
            self.more += 1;
            return;
        }
        self.places.insert(pointer.clone());
        let (code, detail) = describe();
        self.listed.push(Fault {
            pointer,
            code: code.into(),
            detail: detail.into(),
        });
    }

    /// Counts faults that are known to be in places of their own, and that need not be listed.
    pub fn count(&mut self, more: usize) {
        self.more = self.more.saturating_add(more);
    }

    /// Whether no more are listed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.listed.len() >= FAULTS_MAX
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.more == 0
    }

    /// The first of them, at most [`FAULTS_MAX`].
    #[must_use]
    pub fn listed(&self) -> &[Fault] {
        &self.listed
    }

    /// The first of them, and how many more there are.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Fault>, usize) {
        (self.listed, self.more)
    }
}

/// Adds whatever `schema` has to say against `value`, which stands at `base` in the body.
pub(super) fn judge(schema: &Validator, value: &Value, base: &str, faults: &mut Faults) {
    // Most bodies are valid, and this is far quicker to find out than what is wrong with the others.
    if schema.is_valid(value) {
        return;
    }
    for error in schema.iter_errors(value) {
        add(&error, value, base, faults);
    }
}

/// What one complaint of the validator means to somebody who wrote the body.
fn add(error: &ValidationError<'_>, value: &Value, base: &str, faults: &mut Faults) {
    let here = || format!("{base}{}", error.instance_path().as_str());
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            add_unknown(unexpected.iter(), unexpected.len(), &here(), faults);
        }
        // A schema without any property says so in this way: every field is one too many.
        ValidationErrorKind::FalseSchema => {
            let object = value.pointer(error.instance_path().as_str()).and_then(Value::as_object);
            let names = object.into_iter().flat_map(Map::keys);
            add_unknown(names, object.map_or(0, Map::len), &here(), faults);
        }
        ValidationErrorKind::Required { property } => {
            let name = escape(property.as_str().unwrap_or_default());
            faults.add_with(format!("{}/{name}", here()), || ("required", "is required"));
        }
        kind => faults.add_with(here(), || (snake_case(kind.keyword()), explain(error))),
    }
}

/// The names of one object are all different, so that those past the list are only counted.
fn add_unknown<'a>(names: impl Iterator<Item = &'a String>, count: usize, here: &str, faults: &mut Faults) {
    let mut seen = 0;
    for name in names {
        if faults.is_full() {
            break;
        }
        seen += 1;
        faults.add_with(format!("{here}/{}", escape(name)), || {
            ("unknown_field", "is not a field of this body")
        });
    }
    faults.count(count - seen);
}

/// What is wrong, without a word of the value itself: it may be as long as a body.
fn explain(error: &ValidationError<'_>) -> String {
    let characters = |limit: &u64| {
        if *limit == 1 {
            "1 character".to_owned()
        } else {
            format!("{limit} characters")
        }
    };
    match error.kind() {
        ValidationErrorKind::Type { kind } => format!("must be {}", type_words(kind)),
        ValidationErrorKind::MaxLength { limit } => format!("must be at most {} long", characters(limit)),
        ValidationErrorKind::MinLength { limit } => format!("must be at least {} long", characters(limit)),
        ValidationErrorKind::MaxItems { limit } => format!("must have at most {limit} entries"),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} entries"),
        ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}"),
        ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}"),
        ValidationErrorKind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        ValidationErrorKind::Format { format } => format!("must be a valid {format}"),
        ValidationErrorKind::Enum { options } => format!("must be one of {options}"),
        ValidationErrorKind::Constant { expected_value } => format!("must be {expected_value}"),
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            alternatives(context).unwrap_or_else(|| error.masked().to_string())
        }
        _ => error.masked().to_string(),
    }
}

/// What the value must be, where it may be one of several things and is none of them.
fn alternatives(branches: &[Vec<ValidationError<'_>>]) -> Option<String> {
    let mut wanted = Vec::with_capacity(branches.len());
    for branch in branches {
        let said = explain(branch.first()?);
        wanted.push(said.strip_prefix("must be ")?.to_owned());
    }
    Some(format!("must be {}", null_last(wanted).join(" or ")))
}

fn type_words(kind: &TypeKind) -> String {
    let words: Vec<String> = match kind {
        TypeKind::Single(one) => vec![one.to_string()],
        TypeKind::Multiple(many) => many.iter().map(|one| one.to_string()).collect(),
    };
    let with_article = words
        .into_iter()
        .map(|word| match word.as_str() {
            "null" => word,
            "array" | "object" | "integer" => format!("an {word}"),
            other => format!("a {other}"),
        })
        .collect();
    null_last(with_article).join(" or ")
}

/// Null goes last, as one would say it.
fn null_last(mut words: Vec<String>) -> Vec<String> {
    words.sort_by_key(|word| word == "null");
    words
}

fn snake_case(keyword: &str) -> String {
    keyword.chars().fold(String::new(), |mut word, letter| {
        if letter.is_ascii_uppercase() {
            word.push('_');
        }
        word.push(letter.to_ascii_lowercase());
        word
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: &Value, value: &Value) -> Faults {
        let mut faults = Faults::default();
        judge(&jsonschema::validator_for(schema).unwrap(), value, "", &mut faults);
        faults
    }

    #[test]
    fn what_may_be_one_of_several_things_is_told_them_all() {
        let schema = json!({ "oneOf": [{ "type": "null" }, { "enum": ["a", "b"] }] });
        let faults = found(&schema, &json!("x".repeat(100_000)));
        assert_eq!(faults.listed()[0].detail, "must be one of [\"a\",\"b\"] or null");
        let schema = json!({ "oneOf": [{ "type": ["null", "array"] }, { "required": ["a"] }] });
        let faults = found(&schema, &json!({ "b": "x".repeat(100_000) }));
        assert!(faults.listed()[0].detail.len() < 200, "{:?}", faults.listed());
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

    #[test]
    fn a_place_has_one_fault() {
        let mut faults = Faults::default();
        for round in 0..3 {
            for place in 0..150 {
                faults.add_with(format!("/{place}"), || (format!("round_{round}"), ""));
            }
        }
        let (listed, more) = faults.into_parts();
        assert_eq!((listed.len(), more), (FAULTS_MAX, 50));
        assert!(listed.iter().all(|fault| fault.code == "round_0"));
    }
}
