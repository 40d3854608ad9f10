//! openapi.json as pages read it: operations and event types in the document's order.

use serde_json::Value;

use crate::contract::{OPENAPI_JSON, resolve};

/// The methods of operations, in the order in which a page shows them.
const METHODS: [&str; 4] = ["post", "get", "patch", "delete"];

/// The document. It is read for each page that is rendered, and kept for none: that takes milliseconds, and nothing waits in
/// memory for readers.
pub(super) struct Document(Value);

/// An operation, or an event type (whose path is its name).
pub(super) struct Operation<'a> {
    document: &'a Document,
    /// The HTTP method, in capitals.
    pub(super) method: String,
    /// The path, as a template.
    pub(super) path: &'a str,
    said: &'a Value,
}

impl Document {
    /// Reads the document.
    pub(super) fn read() -> Self {
        Self(serde_json::from_str(OPENAPI_JSON).unwrap_or_default())
    }

    /// The operations.
    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        self.section("paths")
    }

    /// The event types.
    pub(super) fn event_types(&self) -> Vec<Operation<'_>> {
        self.section("webhooks")
    }

    /// The introduction.
    pub(super) fn introduction(&self) -> &str {
        text(&self.0["info"], "description")
    }

    /// A component schema.
    pub(super) fn schema(&self, name: &str) -> &Value {
        &self.0["components"]["schemas"][name]
    }

    /// The components that are responses.
    pub(super) fn responses(&self) -> impl Iterator<Item = Value> + '_ {
        let responses = self.0["components"]["responses"].as_object();
        responses
            .into_iter()
            .flatten()
            .map(|(_, response)| self.whole(response))
    }

    /// A copy in which every reference is replaced by what it points to.
    fn whole(&self, part: &Value) -> Value {
        resolve(&self.0, part, 0)
    }

    fn section(&self, section: &str) -> Vec<Operation<'_>> {
        let paths = self.0[section].as_object().into_iter().flatten();
        paths
            .flat_map(|(path, item)| {
                METHODS.into_iter().filter_map(|method| {
                    Some(Operation {
                        document: self,
                        method: method.to_ascii_uppercase(),
                        path,
                        said: item.get(method)?,
                    })
                })
            })
            .collect()
    }
}

impl Operation<'_> {
    /// Its `operationId`.
    pub(super) fn id(&self) -> &str {
        text(self.said, "operationId")
    }

    /// What it does, in a few words.
    pub(super) fn summary(&self) -> &str {
        text(self.said, "summary")
    }

    /// What it does.
    pub(super) fn description(&self) -> &str {
        text(self.said, "description")
    }

    /// The tag that it belongs to.
    pub(super) fn tag(&self) -> &str {
        self.said["tags"][0].as_str().unwrap_or_default()
    }

    /// Whether it asks for a token.
    pub(super) fn takes_token(&self) -> bool {
        self.said["security"].as_array().is_some_and(|asked| !asked.is_empty())
    }

    /// The parameters of one kind (`path`, `query`, `header`), complete in themselves.
    pub(super) fn parameters(&self, kind: &str) -> Vec<Value> {
        let parameters = self.said["parameters"].as_array().into_iter().flatten();
        let whole = parameters.map(|parameter| self.document.whole(parameter));
        whole.filter(|parameter| parameter["in"] == kind).collect()
    }

    /// What may be sent as JSON, with its schema and examples; `None` if it takes no body.
    pub(super) fn body(&self) -> Option<Value> {
        let body = self.said.get("requestBody")?;
        Some(self.document.whole(&body["content"]["application/json"]))
    }

    /// The responses by their statuses, complete in themselves.
    pub(super) fn responses(&self) -> Vec<(&str, Value)> {
        let responses = self.said["responses"].as_object().into_iter().flatten();
        responses
            .map(|(status, response)| (status.as_str(), self.document.whole(response)))
            .collect()
    }
}

/// The examples of a body, each with its title.
pub(super) fn examples(content: &Value) -> Vec<(String, Value)> {
    let one = content
        .get("example")
        .map(|example| ("Example".to_owned(), example.clone()));
    let several = content["examples"].as_object().into_iter().flatten();
    let several = several.map(|(name, example)| {
        let title = example["summary"].as_str().unwrap_or(name);
        (title.to_owned(), example["value"].clone())
    });
    one.into_iter().chain(several).collect()
}

/// A member that is a text; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default().trim()
}
