//! The parameters of a path and of a query: text, parsed as the document says, and checked by its schema.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use serde_json::{Map, Value};

use super::{
    error::ContractError,
    fault::Faults,
    shape::{Beside, Shape},
    vocabulary::Vocabulary,
};
use crate::domain::{
    fault_code::FaultCode,
    nearest::{did_you_mean, nearest},
};

/// One parameter of an operation.
pub(super) struct Parameter {
    pub(super) name: String,
    kind: Kind,
    shape: Shape,
    default: Option<Value>,
    example: String,
}

/// What the text of a parameter is parsed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// The name of a thing: an id, a cursor, an event type. Checked like one in a body.
    Name,
    Instant,
    Integer,
    Boolean,
}

/// A query, parsed and checked.
pub struct Query {
    /// The valid parameters, and the defaults of absent ones.
    pub values: Map<String, Value>,
    /// What is wrong, each at `query/` and a parameter's name.
    pub faults: Faults,
    /// Whether every fault is in a name: then the query is understood, but names what cannot exist.
    pub is_understood: bool,
}

/// The maximum number of digits; no parameter needs more.
const DIGITS_MAX: usize = 15;

impl Parameter {
    /// Reads a parameter of the document, without references.
    pub(super) fn read(parameter: &Value) -> Result<Self, ContractError> {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let mut schema = parameter["schema"].clone();
        // An optional parameter has its example in its schema, where Swagger UI does not fill it in.
        let example = parameter.get("example").unwrap_or(&schema["examples"][0]).clone();
        if let (Some(schema), false) = (schema.as_object_mut(), example.is_null()) {
            schema.insert("examples".to_owned(), Value::from(vec![example.clone()]));
        }
        let kind = match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("integer"), _) => Kind::Integer,
            (Some("boolean"), _) => Kind::Boolean,
            (_, Some("date-time")) => Kind::Instant,
            (_, Some("uuid")) => Kind::Name,
            _ if schema.get("pattern").is_some() => Kind::Name,
            _ => Kind::Text,
        };
        // The value that is not the default shows what the parameter is for.
        let example = match kind {
            Kind::Boolean => "true".to_owned(),
            _ => example.as_str().map_or_else(|| example.to_string(), ToOwned::to_owned),
        };
        Ok(Self {
            shape: Shape::compile(&name, &schema)?,
            name,
            kind,
            default: schema.get("default").cloned(),
            example,
        })
    }

    /// Its name, and an example value.
    pub(super) fn sample(&self) -> (String, String) {
        (self.name.clone(), self.example.clone())
    }

    /// Checks the text of a parameter, whose pointer is `at`, and returns its value.
    pub(super) fn check(&self, text: &str, at: &str, words: &Vocabulary, faults: &mut Faults) -> Option<Value> {
        let Some(value) = self.kind.read(text) else {
            faults.add_with(at.to_owned(), || {
                (FaultCode::Type, words.must_be(self.shape.schema(), false))
            });
            return None;
        };
        let mut found = Faults::default();
        self.shape.check(&value, at, &Beside::default(), words, &mut found);
        let is_valid = found.is_empty();
        faults.extend(found);
        is_valid.then_some(value)
    }
}

impl Kind {
    fn read(self, text: &str) -> Option<Value> {
        match self {
            Self::Text | Self::Name => Some(text.into()),
            // An unescaped `+` is decoded as a space, and only the offset can contain either.
            Self::Instant => Some(text.replace(' ', "+").into()),
            Self::Integer => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let is_number = digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
                let number = is_number.then(|| text.parse::<i64>().ok())?;
                number.map(Value::from)
            }
            // Some clients write `True`.
            Self::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" => Some(true.into()),
                "false" => Some(false.into()),
                _ => None,
            },
        }
    }
}

/// Checks a query against the parameters of its operation; `body` are the fields of its body.
pub(super) fn check(text: &str, known: &[Parameter], body: &HashSet<String>, words: &Vocabulary) -> Query {
    let defaults = known
        .iter()
        .filter_map(|known| Some((known.name.clone(), known.default.clone()?)));
    let mut query = Query {
        values: defaults.collect(),
        faults: Faults::default(),
        is_understood: true,
    };
    let mut sent: HashMap<Cow<'_, str>, (Cow<'_, str>, bool)> = HashMap::new();
    let mut unknown = Vec::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        if !known.iter().any(|known| known.name == name) {
            unknown.push(name);
            continue;
        }
        sent.entry(name)
            .and_modify(|(_, is_doubled)| *is_doubled = true)
            .or_insert((value, false));
    }
    for parameter in known {
        let Some((value, is_doubled)) = sent.get(parameter.name.as_str()) else {
            continue;
        };
        let at = format!("query/{}", parameter.name);
        if *is_doubled {
            query.is_understood = false;
            query.faults.add(
                &at,
                FaultCode::DuplicateParameter,
                &"appears more than once: send it once",
            );
            continue;
        }
        match parameter.check(value, &at, words, &mut query.faults) {
            Some(value) => drop(query.values.insert(parameter.name.clone(), value)),
            None => query.is_understood &= parameter.kind == Kind::Name,
        }
    }
    for name in unknown {
        query.is_understood = false;
        query.faults.add_with(format!("query/{name}"), || {
            (FaultCode::UnknownParameter, is_unknown(&name, known, body))
        });
    }
    query
}

fn is_unknown(name: &str, known: &[Parameter], body: &HashSet<String>) -> String {
    if body.contains(name) {
        return "is a field of the body, not a parameter: send it there".to_owned();
    }
    let suggestion = nearest(name, known.iter().map(|known| known.name.as_str()));
    format!("is not a parameter of this operation{}", did_you_mean(suggestion))
}
