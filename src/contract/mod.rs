//! `openapi.yaml`, embedded and read once: the catalog of event types, and the schemas of bodies and parameters.
//!
//! What the document says is read from the document; nothing here or elsewhere lists it again.

mod error;
mod fault;
mod query;
mod schema;
mod shape;
mod vocabulary;

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};
use utoipa::ToSchema;

pub use self::{
    error::ContractError,
    fault::{FAULTS_MAX, Fault, Faults},
    query::Query,
    schema::resolve,
};
use self::{
    query::Parameter,
    shape::{Beside, Shape, properties},
    vocabulary::Vocabulary,
};

/// The document, byte for byte as it is served at `/openapi.yaml`.
pub const OPENAPI_YAML: &str = include_str!("../../openapi.yaml");

/// The same document as JSON, in its own order, as it is served at `/openapi.json`. The build makes it.
pub const OPENAPI_JSON: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

/// The members of a path item that are operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

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

/// What the program needs to know of the document. The document itself is not kept.
pub struct Contract {
    event_types: Vec<EventType>,
    /// By the template of the path, then by the method in lowercase.
    operations: HashMap<&'static str, Vec<(&'static str, KnownOperation)>>,
    /// By the name of the component schema.
    bodies: HashMap<String, (Shape, Beside)>,
    /// By the event type.
    data: HashMap<String, Shape>,
    words: Vocabulary,
    source: &'static str,
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
    #[serde(default)]
    webhooks: Map<String, Value>,
    components: Components,
    #[serde(default, rename = "x-patterns")]
    patterns: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Components {
    schemas: Value,
    #[serde(default)]
    parameters: Value,
    #[serde(default)]
    responses: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    #[serde(borrow, rename = "operationId")]
    id: &'static str,
    #[serde(default)]
    parameters: Vec<Value>,
    request_body: Option<Value>,
    #[serde(borrow)]
    responses: HashMap<&'static str, &'static RawValue>,
}

/// What is known of an operation.
struct KnownOperation {
    id: &'static str,
    /// The statuses that it may return.
    statuses: Vec<u16>,
    /// The parameter of its path.
    path: Option<Parameter>,
    /// The parameters of its query.
    query: Vec<Parameter>,
    /// The fields of its body.
    body: HashSet<String>,
}

impl Contract {
    /// Reads the embedded document.
    pub fn load() -> Result<Self, ContractError> {
        Self::read(OPENAPI_JSON)
    }

    /// Reads a document that is embedded as JSON.
    pub(crate) fn read(source: &'static str) -> Result<Self, ContractError> {
        let Document {
            paths,
            webhooks,
            components:
                Components {
                    schemas,
                    parameters,
                    responses,
                },
            patterns,
        } = serde_json::from_str(source)?;
        // What `$ref`s point into.
        let root = json!({ "components": { "schemas": schemas, "parameters": parameters, "responses": responses } });
        let (mut operations, mut bodies) = (HashMap::new(), HashMap::new());
        for (template, item) in paths {
            let mut methods = Vec::new();
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let operation: Operation = serde_json::from_str(operation.get())?;
                let mut known = KnownOperation::read(&root, &operation)?;
                if let Some(body) = &operation.request_body {
                    let (name, shape, beside) = read_body(&root, &operation, body, &known)?;
                    known.body = shape.properties().map(ToOwned::to_owned).collect();
                    bodies.insert(name, (shape, beside));
                }
                methods.push((method, known));
            }
            operations.insert(template, methods);
        }
        let event_types = read_event_types(&root, &webhooks)?;
        let data = event_types
            .iter()
            .map(|EventType { name, data_schema, .. }| Ok((name.clone(), Shape::compile(name, data_schema)?)))
            .collect::<Result<_, ContractError>>()?;
        let words = Vocabulary {
            patterns,
            event_types: event_types.iter().map(|event_type| event_type.name.clone()).collect(),
        };
        Ok(Self {
            event_types,
            operations,
            bodies,
            data,
            words,
            source,
            document: OnceLock::new(),
        })
    }

    /// The whole document as a JSON value, in its own order. It is parsed on first use; the server never uses it.
    #[must_use]
    pub fn document(&self) -> &Value {
        self.document
            .get_or_init(|| serde_json::from_str(self.source).unwrap_or_default())
    }

    /// The id of the operation with this method and this path, as a template.
    #[must_use]
    pub fn operation_id(&self, method: &str, template: &str) -> Option<&'static str> {
        self.operation(method, template).map(|operation| operation.id)
    }

    fn operation(&self, method: &str, template: &str) -> Option<&KnownOperation> {
        let methods = self.operations.get(template)?;
        let known = methods.iter().find(|(known, _)| known.eq_ignore_ascii_case(method));
        known.map(|(_, operation)| operation)
    }

    /// Every operation by its id, with the statuses that it may return.
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

    /// Adds every fault of a body by the component schema `name`. An unknown schema finds no faults; a contract test
    /// ensures that each body has one.
    pub fn check_body(&self, name: &str, value: &Value, faults: &mut Faults) {
        if let Some((shape, beside)) = self.bodies.get(name) {
            shape.check(value, "", beside, &self.words, faults);
        }
    }

    /// Adds every fault of an event's `data` by its type's schema. The pointers begin with `/data`.
    pub fn check_data(&self, event_type: &str, data: &Value, faults: &mut Faults) {
        if let Some(shape) = self.data.get(event_type) {
            shape.check(data, "/data", &Beside::default(), &self.words, faults);
        }
    }

    /// Adds the fault of the parameter of a path, at `path/` and its name.
    pub fn check_path(&self, method: &str, template: &str, text: &str, faults: &mut Faults) {
        if let Some(parameter) = self
            .requested(method, template)
            .and_then(|operation| operation.path.as_ref())
        {
            let at = format!("path/{}", parameter.name);
            parameter.check(text, &at, &self.words, faults);
        }
    }

    /// Parses and checks the query of an operation, as it is in the request.
    #[must_use]
    pub fn check_query(&self, method: &str, template: &str, text: &str) -> Query {
        let none = HashSet::new();
        let (known, body) = self
            .requested(method, template)
            .map_or((&[][..], &none), |operation| (&operation.query, &operation.body));
        query::check(text, known, body, &self.words)
    }

    /// The operation that a request is checked by: for `HEAD`, that of `GET`.
    fn requested(&self, method: &str, template: &str) -> Option<&KnownOperation> {
        self.operation(if method == "HEAD" { "GET" } else { method }, template)
    }
}

impl KnownOperation {
    fn read(root: &Value, operation: &Operation) -> Result<Self, ContractError> {
        let (mut path, mut query) = (None, Vec::new());
        for parameter in &operation.parameters {
            let parameter = resolve(root, parameter, 0);
            match parameter["in"].as_str() {
                Some("path") => path = Some(Parameter::read(&parameter)?),
                Some("query") => query.push(Parameter::read(&parameter)?),
                _ => {}
            }
        }
        Ok(Self {
            id: operation.id,
            statuses: operation
                .responses
                .keys()
                .filter_map(|status| status.parse().ok())
                .collect(),
            path,
            query,
            body: HashSet::new(),
        })
    }
}

/// The name and the shape of an operation's body, and what is easily mistaken for a part of the body.
fn read_body(
    root: &Value,
    operation: &Operation,
    body: &Value,
    known: &KnownOperation,
) -> Result<(String, Shape, Beside), ContractError> {
    let schema = at(body, "/content/application~1json/schema")?;
    let name = component(schema).ok_or_else(|| missing_name(operation.id))?;
    let shape = Shape::compile(name, &resolve(root, schema, 0))?;
    let mut beside = Beside {
        read_only: HashSet::new(),
        query: known.query.iter().map(Parameter::sample).collect(),
    };
    for (_, response) in operation.responses.iter().filter(|(status, _)| status.starts_with('2')) {
        let response = resolve(root, &serde_json::from_str(response.get())?, 0);
        let content = resolve(root, at(&response, "/content/application~1json/schema")?, 0);
        beside.read_only.extend(properties(&content).map(ToOwned::to_owned));
    }
    beside
        .read_only
        .retain(|name| !shape.properties().any(|field| field == name));
    Ok((name.to_owned(), shape, beside))
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
