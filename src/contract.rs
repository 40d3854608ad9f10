//! `openapi.yaml`, embedded and read once: the catalog of event types, the schemas that bodies are judged by.
//!
//! Whatever the document says is asked of the document; nothing here or elsewhere lists it again.

use std::collections::HashMap;

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value, json};

use crate::domain::pointer::escape;

/// The document, byte for byte as it is served at `/openapi.yaml`.
pub const OPENAPI_YAML: &str = include_str!("../openapi.yaml");

/// A document that says something this program cannot work with; found at start, never later.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// It is not YAML.
    #[error("openapi.yaml: {0}")]
    Yaml(#[from] serde_norway::Error),
    /// A part that must be there is not.
    #[error("openapi.yaml has no {0}")]
    Missing(String),
    /// A schema that no validator can be made of.
    #[error("openapi.yaml, schema {name}: {cause}")]
    Schema {
        /// The schema's name.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// One event type of the catalog.
#[derive(Clone, Debug)]
pub struct EventType {
    /// Its name, such as `humanization.completed`.
    pub name: String,
    /// What happened when such an event is published.
    pub description: String,
    /// The JSON Schema of the payload's `data`, complete in itself.
    pub data_schema: Value,
    /// A whole payload.
    pub example: Value,
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON Pointer (RFC 6901) into the body.
    pub pointer: String,
    /// What kind of fault, in one word.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// The document, parsed.
pub struct Contract {
    document: Value,
    event_types: Vec<EventType>,
    schemas: HashMap<String, Validator>,
    data_schemas: HashMap<String, Validator>,
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Contract")
            .field("event_types", &self.event_types.len())
            .finish_non_exhaustive()
    }
}

impl Contract {
    /// Reads the embedded document.
    pub fn load() -> Result<Self, ContractError> {
        let document: Value = serde_norway::from_str(OPENAPI_YAML)?;
        let components = at(&document, "/components/schemas")?;
        let names = components.as_object().into_iter().flat_map(Map::keys);
        let schemas = names
            .map(|name| {
                Ok((
                    name.clone(),
                    validator(&document, name, &json!({ "$ref": schema_reference(name) }))?,
                ))
            })
            .collect::<Result<_, ContractError>>()?;
        let event_types = read_event_types(&document)?;
        let data_schemas = event_types
            .iter()
            .map(|event_type| {
                Ok((
                    event_type.name.clone(),
                    validator(&document, &event_type.name, &event_type.data_schema)?,
                ))
            })
            .collect::<Result<_, ContractError>>()?;
        Ok(Self {
            document,
            event_types,
            schemas,
            data_schemas,
        })
    }

    /// The document as a JSON value, in its own order.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The id of the operation with this method and this path, as a template.
    #[must_use]
    pub fn operation_id(&self, method: &str, template: &str) -> Option<&str> {
        let item = self.document["paths"].get(template)?;
        item.get(method.to_ascii_lowercase())?["operationId"].as_str()
    }

    /// The catalog, in the document's order.
    #[must_use]
    pub fn event_types(&self) -> &[EventType] {
        &self.event_types
    }

    /// The event type of that name.
    #[must_use]
    pub fn event_type(&self, name: &str) -> Option<&EventType> {
        self.event_types.iter().find(|event_type| event_type.name == name)
    }

    /// The names of the catalog.
    pub fn event_type_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.event_types.iter().map(|event_type| event_type.name.as_str())
    }

    /// Every fault of `value` by the component schema `name`; a schema that is not there has no complaints, and a
    /// contract test sees to it that each body's is there.
    #[must_use]
    pub fn faults(&self, name: &str, value: &Value) -> Vec<Fault> {
        self.schemas
            .get(name)
            .map(|schema| collect(schema, value, ""))
            .unwrap_or_default()
    }

    /// Every fault of an event's `data` by its type's schema. The pointers begin with `/data`.
    #[must_use]
    pub fn data_faults(&self, event_type: &str, data: &Value) -> Vec<Fault> {
        self.data_schemas
            .get(event_type)
            .map(|schema| collect(schema, data, "/data"))
            .unwrap_or_default()
    }
}

fn schema_reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn at<'a>(document: &'a Value, pointer: &str) -> Result<&'a Value, ContractError> {
    document
        .pointer(pointer)
        .ok_or_else(|| ContractError::Missing(pointer.to_owned()))
}

/// A validator of `schema`, whose references point into the document's components.
fn validator(document: &Value, name: &str, schema: &Value) -> Result<Validator, ContractError> {
    let mut root = schema.clone();
    if let (Some(root), Some(components)) = (root.as_object_mut(), document.get("components")) {
        root.insert("components".to_owned(), components.clone());
    }
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&root)
        .map_err(|cause| ContractError::Schema {
            name: name.to_owned(),
            cause: cause.to_string(),
        })
}

/// Reads the catalog from the `webhooks` section: one entry an event type.
fn read_event_types(document: &Value) -> Result<Vec<EventType>, ContractError> {
    let webhooks = at(document, "/webhooks")?.as_object().cloned().unwrap_or_default();
    let read = |(name, item): (&String, &Value)| {
        let content = at(item, "/post/requestBody/content/application~1json")?;
        let payload = resolve(document, at(content, "/schema")?, 0);
        Ok(EventType {
            name: name.clone(),
            description: at(item, "/post/description")?
                .as_str()
                .unwrap_or_default()
                .trim()
                .to_owned(),
            data_schema: at(&payload, "/properties/data")?.clone(),
            example: at(content, "/example")?.clone(),
        })
    };
    webhooks.iter().map(read).collect()
}

/// How deep references may nest; the document's schemas are trees, so this is never reached.
const REFERENCE_DEPTH_MAX: usize = 32;

/// A copy of `schema` with every reference replaced by what it points to.
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
                // JSON Schema 2020-12 lets a reference have neighbours: they hold beside what it points to.
                if let Some(resolved) = resolved.as_object_mut() {
                    let beside = members.iter().filter(|(key, _)| *key != "$ref");
                    resolved.extend(beside.map(|(key, value)| (key.clone(), resolve(document, value, depth))));
                }
                return resolved;
            }
            members
                .iter()
                .map(|(key, value)| (key.clone(), resolve(document, value, depth)))
                .collect()
        }
        Value::Array(items) => items.iter().map(|item| resolve(document, item, depth)).collect(),
        other => other.clone(),
    }
}

fn collect(schema: &Validator, value: &Value, base: &str) -> Vec<Fault> {
    schema
        .iter_errors(value)
        .flat_map(|error| faults_of(&error, value, base))
        .collect()
}

/// What one complaint of the validator means to somebody who wrote the body.
fn faults_of(error: &ValidationError<'_>, value: &Value, base: &str) -> Vec<Fault> {
    let here = format!("{base}{}", error.instance_path().as_str());
    let fault = |pointer: String, code: &str, detail: String| Fault {
        pointer,
        code: code.to_owned(),
        detail,
    };
    let unknown = |name: &String| {
        fault(
            format!("{here}/{}", escape(name)),
            "unknown_field",
            "is not a field of this body".to_owned(),
        )
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.iter().map(unknown).collect(),
        // A schema without any property says so in this way: every field is one too many.
        ValidationErrorKind::FalseSchema => {
            let object = value.pointer(error.instance_path().as_str()).and_then(Value::as_object);
            object.into_iter().flat_map(Map::keys).map(unknown).collect()
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![fault(
                format!("{here}/{}", escape(name)),
                "required",
                "is required".to_owned(),
            )]
        }
        kind => {
            let (code, detail) = explain(kind, error);
            vec![fault(here, &code, detail)]
        }
    }
}

fn explain(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> (String, String) {
    let characters = |limit: &u64| {
        if *limit == 1 {
            "1 character".to_owned()
        } else {
            format!("{limit} characters")
        }
    };
    let detail = match kind {
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
        _ => error.to_string(),
    };
    (snake_case(kind.keyword()), detail)
}

fn type_words(kind: &TypeKind) -> String {
    let words: Vec<String> = match kind {
        TypeKind::Single(one) => vec![one.to_string()],
        TypeKind::Multiple(many) => many.iter().map(|one| one.to_string()).collect(),
    };
    let with_article = words
        .iter()
        .filter(|word| *word != "null")
        .map(|word| match word.as_str() {
            "array" | "object" | "integer" => format!("an {word}"),
            other => format!("a {other}"),
        });
    // Null goes last, as one would say it.
    let null = words.iter().find(|word| *word == "null").cloned();
    with_article.chain(null).collect::<Vec<_>>().join(" or ")
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
