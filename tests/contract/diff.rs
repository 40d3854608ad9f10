//! Lists where two JSON values differ, one line per difference, each with its JSON Pointer.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

/// One difference between the two.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pointer: String,
    document: String,
    handlers: String,
}

/// The differences between what the document says and what the handlers say; empty when they agree.
pub(super) fn differences(document: &Value, handlers: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(document), Some(handlers), &mut found);
    found
}

/// A report for people, with the one thing to do. The same difference at many pointers, as in a shared schema, is
/// reported once.
pub(super) fn report(differences: &[Difference]) -> String {
    let mut alike: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for Difference {
        pointer,
        document,
        handlers,
    } in differences
    {
        let tail = pointer
            .rsplit_once("/schema/")
            .map_or(pointer.as_str(), |(_, tail)| tail);
        alike.entry((tail, document, handlers)).or_default().push(pointer);
    }
    let mut report = format!(
        "openapi.yaml and the handlers differ in {} way(s). openapi.yaml is the source of truth: change the handler's \
         annotations and types until they agree, or change openapi.yaml first if the contract itself is to change.\n",
        alike.len()
    );
    for ((_, document, handlers), pointers) in alike {
        let others = if pointers.len() > 1 {
            format!(" (and {} more)", pointers.len() - 1)
        } else {
            String::new()
        };
        let _ = writeln!(
            report,
            "  {}{others}\n      openapi.yaml: {document}\n      handlers:     {handlers}",
            pointers[0]
        );
    }
    report
}

fn walk(pointer: &str, document: Option<&Value>, handlers: Option<&Value>, found: &mut Vec<Difference>) {
    match (document, handlers) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let mut names: Vec<&String> = left
                .keys()
                .chain(right.keys().filter(|name| !left.contains_key(*name)))
                .collect();
            names.sort();
            for name in names {
                let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                walk(&below, left.get(name), right.get(name), found);
            }
        }
        (Some(left), Some(right)) if left == right => {}
        (left, right) => {
            found.push(Difference {
                pointer: pointer.to_owned(),
                document: shown(left),
                handlers: shown(right),
            });
        }
    }
}

/// A value, truncated to this many characters.
const SHOWN_MAX: usize = 200;

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "(nothing)".to_owned();
    };
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX {
        text
    } else {
        text.chars().take(SHOWN_MAX).chain("…".chars()).collect()
    }
}

#[test]
fn each_difference_is_reported_with_its_pointer() {
    let document = serde_json::json!({ "paths": { "/v1/a": { "get": { "x": 1, "y": [1] } } } });
    let handlers = serde_json::json!({ "paths": { "/v1/a": { "get": { "x": 2, "y": [1], "z": true } } } });
    let found = differences(&document, &handlers);
    let said = report(&found);
    assert!(said.contains("differ in 2 way(s)"), "{said}");
    assert!(
        said.contains("  /paths/~1v1~1a/get/x\n      openapi.yaml: 1\n      handlers:     2\n"),
        "{said}"
    );
    assert!(
        said.contains("  /paths/~1v1~1a/get/z\n      openapi.yaml: (nothing)\n      handlers:     true\n"),
        "{said}"
    );
    assert_eq!(differences(&document, &document), []);
}

#[test]
fn a_fault_of_a_shared_schema_is_reported_once() {
    let document =
        serde_json::json!({ "a": { "schema": { "type": "string" } }, "b": { "schema": { "type": "string" } } });
    let handlers =
        serde_json::json!({ "a": { "schema": { "type": "integer" } }, "b": { "schema": { "type": "integer" } } });
    let said = report(&differences(&document, &handlers));
    assert!(
        said.contains("differ in 1 way(s)") && said.contains("/a/schema/type (and 1 more)"),
        "{said}"
    );
}
