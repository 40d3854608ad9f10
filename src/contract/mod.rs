//! `openapi.yaml`, embedded and read once: the catalog of event types, the schemas that bodies are judged by.
//!
//! Whatever the document says is asked of the document; nothing here or elsewhere lists it again.

mod fault;
mod schema;

use std::{collections::HashMap, sync::OnceLock};

use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};
use utoipa::ToSchema;

pub use self::{
    fault::{FAULTS_MAX, Fault, Faults},
    schema::resolve,
};

/// The document, byte for byte as it is served at `/openapi.yaml`.
pub const OPENAPI_YAML: &str = include_str!("../../openapi.yaml");

/// The same document as JSON, in its own order, as it is served at `/openapi.json`. The build makes it.
pub const OPENAPI_JSON: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// The members of a path item that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// A document that says something this program cannot work with; found at start, never later.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// Its JSON is not laid out as an OpenAPI document.
    #[error("openapi.json: {0}")]
    Json(#[from] serde_json::Error),
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
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventType {
    /// Says that it is an event type.
    pub object: EventTypeObject,
    /// Its name, such as `humanization.completed`.
    #[serde(rename = "type")]
    pub name: String,
    /// What happened when such an event is published.
    pub description: String,
    /// The JSON Schema of the payload's `data`, complete in itself.
    #[schema(value_type = Object)]
    pub data_schema: Value,
    /// A whole payload.
    #[schema(value_type = Object)]
    pub example: Value,
}

/// The discriminator of an event type.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventTypeObject {
    /// The only one.
    EventType,
}

/// What the program has to know of the document. The document itself is not kept.
pub struct Contract {
    event_types: Vec<EventType>,
    /// By the template of the path, then by the method in lowercase.
    operations: HashMap<&'static str, Vec<(&'static str, KnownOperation)>>,
    bodies: HashMap<String, Validator>,
    data: HashMap<String, Validator>,
    document: OnceLock<Value>,
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Contract")
            .field("event_types", &self.event_types.len())
            .finish_non_exhaustive()
    }
}

/// The parts of the document that are read at start.
#[derive(Deserialize)]
struct Document {
    #[serde(borrow)]
    paths: HashMap<&'static str, HashMap<&'static str, &'static RawValue>>,
    webhooks: Map<String, Value>,
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    #[serde(borrow, rename = "operationId")]
    id: &'static str,
    request_body: Option<Value>,
    #[serde(borrow)]
    responses: HashMap<&'static str, &'static RawValue>,
}

/// What is known of an operation.
struct KnownOperation {
    id: &'static str,
    /// The statuses that it may answer.
    statuses: Vec<u16>,
}

impl Contract {
    /// Reads the embedded document.
    pub fn load() -> Result<Self, ContractError> {
        let Document {
            paths,
            webhooks,
            components: Components { schemas },
        } = serde_json::from_str(OPENAPI_JSON)?;
        // What references lead into.
        let root = json!({ "components": { "schemas": schemas } });
        let (mut operations, mut bodies) = (HashMap::new(), HashMap::new());
        for (template, item) in paths {
            let mut methods = Vec::new();
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let Operation {
                    id: operation_id,
                    request_body,
                    responses,
                } = serde_json::from_str(operation.get())?;
                let statuses = responses.keys().filter_map(|status| status.parse().ok()).collect();
                let known = KnownOperation {
                    id: operation_id,
                    statuses,
                };
                methods.push((method, known));
                if let Some(body) = request_body {
                    let schema = at(&body, "/content/application~1json/schema")?;
                    let name = component(schema).ok_or_else(|| missing_name(operation_id))?;
                    bodies.insert(name.to_owned(), schema::compile(name, &resolve(&root, schema, 0))?);
                }
            }
            operations.insert(template, methods);
        }
        let event_types = read_event_types(&root, &webhooks)?;
        let data = event_types
            .iter()
            .map(|EventType { name, data_schema, .. }| Ok((name.clone(), schema::compile(name, data_schema)?)))
            .collect::<Result<_, ContractError>>()?;
        Ok(Self {
            event_types,
            operations,
            bodies,
            data,
            document: OnceLock::new(),
        })
    }

    /// The whole document as a JSON value, in its own order. It is read when it is first asked for, which the server
    /// never does.
    #[must_use]
    pub fn document(&self) -> &Value {
        self.document
            .get_or_init(|| serde_json::from_str(OPENAPI_JSON).unwrap_or_default())
    }

    /// The id of the operation with this method and this path, as a template.
    #[must_use]
    pub fn operation_id(&self, method: &str, template: &str) -> Option<&'static str> {
        let methods = self.operations.get(template)?;
        let known = methods.iter().find(|(known, _)| known.eq_ignore_ascii_case(method));
        known.map(|(_, operation)| operation.id)
    }

    /// Every operation by its id, with the statuses that it may answer.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, &[u16])> {
        let operations = self.operations.values().flatten();
        operations.map(|(_, operation)| (operation.id, operation.statuses.as_slice()))
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

    /// The names of the component schemas that are bodies of requests.
    pub fn bodies(&self) -> impl Iterator<Item = &str> {
        self.bodies.keys().map(String::as_str)
    }

    /// Adds every fault of `value` by the component schema `name`, which is a body's; a schema that is not there has no
    /// complaints, and a contract test sees to it that each body's is there.
    pub fn judge(&self, name: &str, value: &Value, faults: &mut Faults) {
        if let Some(schema) = self.bodies.get(name) {
            fault::judge(schema, value, "", faults);
        }
    }

    /// Adds every fault of an event's `data` by its type's schema. The pointers begin with `/data`.
    pub fn judge_data(&self, event_type: &str, data: &Value, faults: &mut Faults) {
        if let Some(schema) = self.data.get(event_type) {
            fault::judge(schema, data, "/data", faults);
        }
    }
}

fn at<'a>(document: &'a Value, pointer: &str) -> Result<&'a Value, ContractError> {
    document
        .pointer(pointer)
        .ok_or_else(|| ContractError::Missing(pointer.to_owned()))
}

/// The name of the component that `schema` refers to.
fn component(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/components/schemas/")
}

fn missing_name(operation_id: &str) -> ContractError {
    ContractError::Missing(format!("component schema for the body of {operation_id}"))
}

/// Reads the catalog from the `webhooks` section: one entry per event type.
fn read_event_types(root: &Value, webhooks: &Map<String, Value>) -> Result<Vec<EventType>, ContractError> {
    let read = |(name, item): (&String, &Value)| {
        let content = at(item, "/post/requestBody/content/application~1json")?;
        let payload = resolve(root, at(content, "/schema")?, 0);
        Ok(EventType {
            object: EventTypeObject::EventType,
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
