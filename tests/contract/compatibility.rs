//! Compares the last released document with the current one: breaking changes fail, unless the major version is higher.
//!
//! `released.yaml` is the document of the last release, and is replaced by a copy of `openapi.yaml` when one is made.
//! Additions pass: new operations, optional parameters and fields, event types, words of an enum that the server says.

use std::fmt;

use kallima_webhooks::contract::{Contract, resolve};
use serde_json::{Value, json};

const RELEASED: &str = include_str!("released.yaml");

/// Who writes what a schema describes. What clients write must not be checked more strictly than before; what the server
/// writes must not become something that clients have never seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Client,
    Server,
}

/// One thing that would break a client.
struct Break {
    what: &'static str,
    pointer: String,
    released: Value,
    now: Value,
}

impl fmt::Display for Break {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            pointer,
            released,
            now,
        } = self;
        write!(
            formatter,
            "  {what}\n      where:    {pointer}\n      released: {released}\n      now:      {now}"
        )
    }
}

/// Every breaking change between two documents; none if the major version is higher.
fn breaks(released: &Value, now: &Value) -> Vec<Break> {
    let major = |document: &Value| {
        document["info"]["version"]
            .as_str()
            .unwrap()
            .split('.')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    if major(now) > major(released) {
        return Vec::new();
    }
    let (released, now) = (resolve(released, released, 0), resolve(now, now, 0));
    let mut found = Vec::new();
    each(
        &released["paths"],
        &now["paths"],
        "/paths",
        "a path was removed",
        &mut found,
        |at, old, new, found| {
            each(old, new, at, "an operation was removed", found, operation);
        },
    );
    each(
        &released["webhooks"],
        &now["webhooks"],
        "/webhooks",
        "an event type was removed",
        &mut found,
        event,
    );
    found
}

/// Walks the members of `released`; one that `now` does not have is a break, the others are compared.
fn each(
    released: &Value,
    now: &Value,
    at: &str,
    removed: &'static str,
    found: &mut Vec<Break>,
    compare: impl Fn(&str, &Value, &Value, &mut Vec<Break>),
) {
    for (name, old) in released.as_object().into_iter().flatten() {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        match now.get(name) {
            Some(new) => compare(&at, old, new, found),
            None => found.push(Break {
                what: removed,
                pointer: at,
                released: old["summary"].clone(),
                now: Value::Null,
            }),
        }
    }
}

fn operation(at: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    changed(
        "another scope is asked for",
        &format!("{at}/security"),
        &old["security"],
        &new["security"],
        found,
    );
    changed(
        "the operation has another id",
        &format!("{at}/operationId"),
        &old["operationId"],
        &new["operationId"],
        found,
    );
    parameters(at, old, new, Writer::Client, found);
    let (before, after) = (&old["requestBody"], &new["requestBody"]);
    if before["required"] != json!(true) && after["required"] == json!(true) {
        let pointer = format!("{at}/requestBody/required");
        found.push(Break {
            what: "a body is required now",
            pointer,
            released: json!(false),
            now: json!(true),
        });
    }
    content(&format!("{at}/requestBody"), before, after, Writer::Client, found);
    each(
        &old["responses"],
        &new["responses"],
        &format!("{at}/responses"),
        "a status was removed",
        found,
        |at, old, new, found| {
            each(
                &old["headers"],
                &new["headers"],
                &format!("{at}/headers"),
                "a header was removed",
                found,
                |at, old, new, found| {
                    if old["required"] == json!(true) && new["required"] != json!(true) {
                        let pointer = at.to_owned();
                        found.push(Break {
                            what: "a header is no longer certain",
                            pointer,
                            released: json!(true),
                            now: json!(false),
                        });
                    }
                    schema(
                        &format!("{at}/schema"),
                        &old["schema"],
                        &new["schema"],
                        Writer::Server,
                        found,
                    );
                },
            );
            content(at, old, new, Writer::Server, found);
        },
    );
}

/// A delivery is written by the server and read by a client.
fn event(at: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    let at = format!("{at}/post");
    parameters(&at, &old["post"], &new["post"], Writer::Server, found);
    content(
        &format!("{at}/requestBody"),
        &old["post"]["requestBody"],
        &new["post"]["requestBody"],
        Writer::Server,
        found,
    );
}

fn content(at: &str, old: &Value, new: &Value, writer: Writer, found: &mut Vec<Break>) {
    each(
        &old["content"],
        &new["content"],
        &format!("{at}/content"),
        "a media type was removed",
        found,
        |at, old, new, found| {
            schema(&format!("{at}/schema"), &old["schema"], &new["schema"], writer, found);
        },
    );
}

fn parameters(at: &str, old: &Value, new: &Value, writer: Writer, found: &mut Vec<Break>) {
    let named = |operation: &Value| -> Value {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters
            .map(|one| {
                (
                    format!("{} {}", one["in"].as_str().unwrap(), one["name"].as_str().unwrap()),
                    one.clone(),
                )
            })
            .collect()
    };
    let (old, new, at) = (named(old), named(new), format!("{at}/parameters"));
    each(
        &old,
        &new,
        &at,
        "a parameter was removed",
        found,
        |at, old, new, found| {
            if writer == Writer::Client && old["required"] != json!(true) && new["required"] == json!(true) {
                let pointer = at.to_owned();
                found.push(Break {
                    what: "a parameter is required now",
                    pointer,
                    released: json!(false),
                    now: json!(true),
                });
            }
            schema(&format!("{at}/schema"), &old["schema"], &new["schema"], writer, found);
        },
    );
    for (name, added) in new
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| old.get(*name).is_none())
    {
        if writer == Writer::Client && added["required"] == json!(true) {
            let pointer = format!("{at}/{name}");
            found.push(Break {
                what: "a new parameter is required",
                pointer,
                released: Value::Null,
                now: json!(true),
            });
        }
    }
}

fn changed(what: &'static str, pointer: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    if old != new {
        found.push(Break {
            what,
            pointer: pointer.to_owned(),
            released: old.clone(),
            now: new.clone(),
        });
    }
}

fn schema(at: &str, old: &Value, new: &Value, writer: Writer, found: &mut Vec<Break>) {
    let mut add = |what, keyword: &str| {
        let pointer = format!("{at}/{keyword}");
        found.push(Break {
            what,
            pointer,
            released: old[keyword].clone(),
            now: new[keyword].clone(),
        });
    };
    let (before, after) = (words(&old["type"]), words(&new["type"]));
    let lacks = |some: &[Value], others: &[Value]| others.iter().any(|one| !some.contains(one));
    match writer {
        Writer::Client if lacks(&after, &before) => add("a type is no longer taken", "type"),
        Writer::Server if lacks(&before, &after) => add("a client may now receive another type", "type"),
        _ => {}
    }
    let (before, after) = (words(&old["enum"]), words(&new["enum"]));
    if lacks(&after, &before) && !(writer == Writer::Client && after.is_empty()) {
        add("a word was removed", "enum");
    } else if writer == Writer::Client && before.is_empty() && !after.is_empty() {
        add("only some words are taken now", "enum");
    }
    for keyword in ["format", "pattern", "const"] {
        // Every URI is an IRI (RFC 3987, section 1.3).
        let widened = (&old[keyword], &new[keyword]) == (&json!("uri"), &json!("iri"));
        let widened = widened || keyword == "pattern" && may_end_otherwise(&old[keyword], &new[keyword]);
        let loosened = writer == Writer::Client && (new[keyword].is_null() || widened);
        let tightened = writer == Writer::Server && old[keyword].is_null();
        if old[keyword] != new[keyword] && !loosened && !tightened {
            add("another form is used", keyword);
        }
    }
    if writer == Writer::Client {
        for keyword in narrowed(old, new) {
            add("a limit is narrower", keyword);
        }
        if new["additionalProperties"] == json!(false) && old["additionalProperties"] != json!(false) {
            add("unknown fields are refused now", "additionalProperties");
        }
    }
    let (before, after) = (words(&old["required"]), words(&new["required"]));
    match writer {
        Writer::Client if lacks(&before, &after) => add("a field is required now", "required"),
        Writer::Server if lacks(&after, &before) => add("a field is no longer certain", "required"),
        _ => {}
    }
    below(at, old, new, writer, found);
}

/// The parts of a schema: its properties, its items, its choices.
fn below(at: &str, old: &Value, new: &Value, writer: Writer, found: &mut Vec<Break>) {
    each(
        &old["properties"],
        &new["properties"],
        &format!("{at}/properties"),
        "a field was removed",
        found,
        |at, old, new, found| {
            schema(at, old, new, writer, found);
        },
    );
    if old["items"].is_object() {
        schema(&format!("{at}/items"), &old["items"], &new["items"], writer, found);
    }
    for (index, choice) in old["oneOf"].as_array().into_iter().flatten().enumerate() {
        schema(
            &format!("{at}/oneOf/{index}"),
            choice,
            &new["oneOf"][index],
            writer,
            found,
        );
    }
}

/// The limits of what a client may write that are narrower than before.
fn narrowed(old: &Value, new: &Value) -> Vec<&'static str> {
    let below = |keyword: &&str| {
        new[*keyword]
            .as_i64()
            .is_some_and(|now| old[*keyword].as_i64().is_none_or(|then| now < then))
    };
    let above = |keyword: &&str| {
        new[*keyword]
            .as_i64()
            .is_some_and(|now| old[*keyword].as_i64().is_none_or(|then| now > then))
    };
    let most = ["maximum", "maxLength", "maxItems"].into_iter().filter(below);
    most.chain(["minimum", "minLength", "minItems"].into_iter().filter(above))
        .collect()
}

/// One word or a list of them, as a list.
/// Whether a pattern is the old one with an ending that may be left out.
fn may_end_otherwise(old: &Value, new: &Value) -> bool {
    let begin = old.as_str().and_then(|old| old.strip_suffix('$'));
    let ending = begin.and_then(|begin| {
        new.as_str()?
            .strip_prefix(begin)?
            .strip_prefix('(')?
            .strip_suffix(")?$")
    });
    ending.is_some_and(|ending| !ending.contains(['(', ')', '|']))
}

fn words(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(words) => words.clone(),
        word => vec![word.clone()],
    }
}

fn released() -> Value {
    serde_norway::from_str(RELEASED).unwrap()
}

#[test]
fn nothing_breaks_the_clients_of_the_last_release() {
    let found = breaks(&released(), Contract::load().unwrap().document());
    let breaks: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        breaks.is_empty(),
        "openapi.yaml breaks clients of the last released document {} time(s). Take the change back, make it an \
         addition, or raise the major version of info.version.\n{}",
        breaks.len(),
        breaks.join("\n")
    );
}

/// Changes the real document at a pointer: `None` removes what is there.
fn mutated(pointer: &str, value: Option<Value>) -> Value {
    let mut document = released();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/");
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match (parent, value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(name, value)),
        (Value::Object(fields), None) => assert!(fields.remove(&name).is_some(), "no {pointer}"),
        (Value::Array(items), Some(value)) if name == "-" => items.push(value),
        (Value::Array(items), None) => drop(items.remove(name.parse().unwrap())),
        (other, _) => panic!("{pointer}: {other}"),
    }
    document
}

const WEBHOOK: &str = "/components/schemas/Webhook";
const CREATE: &str = "/components/schemas/CreateWebhook";
const LIST: &str = "/paths/~1v1~1webhooks/get";

/// A change at a pointer of the real document: `None` removes what is there.
type Change = (String, Option<Value>);

/// Changes that break clients, each with what the gate says of it.
fn breaking() -> Vec<(Change, &'static str)> {
    let remove = |pointer: String| (pointer, None);
    let set = |pointer: String, value: Value| (pointer, Some(value));
    let required = json!({ "name": "color", "in": "query", "required": true, "schema": { "type": "string" } });
    let nullable = json!(["boolean", "null"]);
    vec![
        (remove("/paths/~1v1~1event_types".into()), "a path was removed"),
        (remove(format!("{LIST}/responses/200")), "a status was removed"),
        (
            set(format!("{LIST}/operationId"), json!("webhooks")),
            "the operation has another id",
        ),
        (remove(format!("{LIST}/parameters/0")), "a parameter was removed"),
        (
            set(format!("{LIST}/parameters/-"), required),
            "a new parameter is required",
        ),
        (
            set(format!("{CREATE}/required/-"), json!("description")),
            "a field is required now",
        ),
        (
            remove(format!("{CREATE}/properties/description")),
            "a field was removed",
        ),
        (
            set(format!("{CREATE}/properties/description/maxLength"), json!(255)),
            "a limit is narrower",
        ),
        (
            set(format!("{CREATE}/properties/description/type"), json!("string")),
            "a type is no longer taken",
        ),
        (
            set(format!("{WEBHOOK}/properties/enabled/type"), nullable),
            "a client may now receive another type",
        ),
        (
            set(format!("{WEBHOOK}/properties/url/format"), json!("iri")),
            "another form is used",
        ),
        (remove(format!("{WEBHOOK}/properties/enabled")), "a field was removed"),
        (remove(format!("{WEBHOOK}/required/0")), "a field is no longer certain"),
        (
            remove("/components/schemas/DeliveryStatus/enum/0".into()),
            "a word was removed",
        ),
        (remove("/webhooks/job.failed".into()), "an event type was removed"),
    ]
}

/// Changes that no client notices.
fn additions() -> Vec<Change> {
    let optional = json!({ "name": "color", "in": "query", "schema": { "type": "string" } });
    vec![
        (format!("{LIST}/parameters/-"), Some(optional)),
        (format!("{CREATE}/properties/description/maxLength"), Some(json!(257))),
        (format!("{CREATE}/properties/url/format"), Some(json!("iri"))),
        (format!("{CREATE}/properties/color"), Some(json!({ "type": "string" }))),
        (format!("{WEBHOOK}/properties/color"), Some(json!({ "type": "string" }))),
        ("/components/schemas/ProblemCode/enum/-".into(), Some(json!("teapot"))),
        ("/webhooks/job.paused".into(), Some(json!({ "post": {} }))),
        ("/info/description".into(), Some(json!("Other words."))),
    ]
}

#[test]
fn the_gate_stops_what_breaks_unless_the_major_version_rises() {
    for ((pointer, value), what) in breaking() {
        let mut now = mutated(&pointer, value);
        let found = breaks(&released(), &now);
        assert!(
            found.iter().any(|one| one.what == what),
            "{pointer}: nothing says {what:?}"
        );
        now["info"]["version"] = json!("2.0.0");
        assert!(
            breaks(&released(), &now).is_empty(),
            "{pointer}: a new major version may break"
        );
    }
}

#[test]
fn the_gate_lets_additions_pass() {
    for (pointer, value) in additions() {
        let found = breaks(&released(), &mutated(&pointer, value));
        assert!(found.is_empty(), "{pointer} is an addition, but: {}", found[0]);
    }
}
