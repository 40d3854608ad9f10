//! The document compared with the code, and the document as served.

use kallima_webhooks::{
    api::{self, problem::ProblemCode},
    contract::{Contract, Faults, resolve},
    domain::operational::OPERATIONAL_TYPES,
};
use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::PartialSchema as _;

use super::{
    diff::{differences, report},
    normalize::normalize,
    obligations::operations,
};
use crate::{promises, support::validate::validator};

fn document() -> Value {
    Contract::load().unwrap().document().clone()
}

#[test]
fn the_handlers_say_what_openapi_yaml_says() {
    let derived = serde_json::to_value(api::derived_document()).unwrap();
    let found = differences(&normalize(&document()), &normalize(&derived));
    assert!(found.is_empty(), "{}", report(&found));
}

#[test]
fn the_catalog_of_problem_codes_is_the_documents() {
    let derived = serde_json::to_value(ProblemCode::schema()).unwrap();
    let documented = &document()["components"]["schemas"]["ProblemCode"]["enum"];
    assert_eq!(&derived["enum"], documented);
}

#[test]
fn every_constraint_of_a_request_has_words() {
    let document = document();
    let resolved = resolve(&document, &document, 0);
    let mut schemas: Vec<Value> = Vec::new();
    for operation in operations() {
        schemas.extend(operation.body_schema().cloned());
        let parameters = ["path", "query"].map(|location| operation.parameters(location));
        schemas.extend(parameters.iter().flatten().map(|parameter| parameter["schema"].clone()));
    }
    let contract = Contract::load().unwrap();
    schemas.extend(
        contract
            .event_types()
            .iter()
            .map(|event_type| event_type.data_schema.clone()),
    );
    let (mut keywords, mut patterns) = (BTreeSet::new(), BTreeSet::new());
    for schema in &schemas {
        constraints(schema, &mut keywords, &mut patterns);
    }
    let known = [
        "additionalProperties",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minLength",
        "minimum",
        "oneOf",
        "pattern",
        "properties",
        "required",
        "type",
    ];
    let known = known.map(ToOwned::to_owned).into();
    assert_eq!(
        keywords, known,
        "the keywords of requests, and those that src/contract/vocabulary.rs has words for"
    );
    let worded: BTreeSet<String> = resolved["x-patterns"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(patterns, worded, "the patterns of requests, and those of x-patterns");
}

/// The keywords of a schema that constrain, and its patterns.
fn constraints(schema: &Value, keywords: &mut BTreeSet<String>, patterns: &mut BTreeSet<String>) {
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match keyword.as_str() {
            "description" | "examples" | "default" => continue,
            "properties" => value
                .as_object()
                .unwrap()
                .values()
                .for_each(|property| constraints(property, keywords, patterns)),
            "pattern" => drop(patterns.insert(value.as_str().unwrap().to_owned())),
            "oneOf" => {
                let branches = value.as_array().unwrap();
                assert_eq!(branches[0], json!({ "type": "null" }), "{schema}");
                assert!(
                    branches.len() == 2 && branches[1]["enum"].is_array(),
                    "a word or null: {schema}"
                );
            }
            "items" => constraints(value, keywords, patterns),
            _ => {}
        }
        keywords.insert(keyword.clone());
    }
}

#[test]
fn every_operation_has_an_id_a_tag_and_its_errors() {
    let document = document();
    let tags: Vec<&Value> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    let mut seen = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(verb, _)| *verb != "parameters")
        {
            let what = format!("{verb} {path}");
            assert!(
                seen.insert(operation["operationId"].as_str().expect(&what).to_owned()),
                "{what}: operationId twice"
            );
            assert!(
                tags.contains(&&operation["tags"][0]),
                "{what}: a tag that is not described"
            );
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let takes_key = parameters
                .into_iter()
                .any(|parameter| parameter["$ref"] == "#/components/parameters/Idempotency-Key");
            assert_eq!(
                takes_key,
                ["post", "patch"].contains(&verb.as_str()),
                "{what}: every POST and PATCH takes an Idempotency-Key"
            );
            if path.starts_with("/v1") {
                for status in ["401", "403", "429", "500", "503"] {
                    assert!(operation["responses"][status].is_object(), "{what} lists no {status}");
                }
            }
        }
    }
}

#[test]
fn every_operation_has_a_test_module_of_its_name() {
    let tests = promises::tests(&[]);
    for operation in operations() {
        let module = format!("api::{}::", operation.id);
        assert!(
            tests.iter().any(|test| test.starts_with(&module)),
            "no test in {module}, though {} has that operationId",
            operation.pointer
        );
    }
}

#[test]
fn a_page_is_as_long_as_its_limit_may_be() {
    let document = document();
    let resolved = resolve(&document, &document, 0);
    let mut pages = 0;
    for (path, item) in resolved["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let Some(limit) = parameters.into_iter().find(|parameter| parameter["name"] == "limit") else {
                continue;
            };
            assert_eq!(schema["maxItems"], limit["schema"]["maximum"], "{verb} {path}");
            pages += 1;
        }
    }
    assert_eq!(pages, 5);
}

/// Every `example` and every entry of `examples` in the document, with the schema beside it.
fn examples<'a>(value: &'a Value, pointer: &str, found: &mut Vec<(String, &'a Value, &'a Value)>) {
    match value {
        Value::Object(members) => {
            if let Some(schema) = members.get("schema") {
                if let Some(example) = members.get("example") {
                    found.push((format!("{pointer}/example"), schema, example));
                }
                for (name, example) in members.get("examples").and_then(Value::as_object).into_iter().flatten() {
                    found.push((format!("{pointer}/examples/{name}"), schema, &example["value"]));
                }
                for example in schema["examples"].as_array().into_iter().flatten() {
                    found.push((format!("{pointer}/schema/examples"), schema, example));
                }
            }
            for (name, member) in members {
                examples(member, &format!("{pointer}/{}", name.replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| examples(item, &format!("{pointer}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn every_example_is_valid_by_its_schema() {
    let document = document();
    let resolved = resolve(&document, &document, 0);
    let mut found = Vec::new();
    examples(&resolved["paths"], "/paths", &mut found);
    examples(&resolved["webhooks"], "/webhooks", &mut found);
    assert!(
        found.len() > 30,
        "the document is full of examples; only {} were found",
        found.len()
    );
    for (pointer, schema, example) in found {
        if let Some(fault) = validator(schema).iter_errors(example).next() {
            panic!(
                "the example at {pointer} is not valid: {fault} (at {:?})",
                fault.instance_path().as_str()
            );
        }
    }
}

#[test]
fn the_catalog_has_every_event_type_with_a_valid_example() {
    let contract = Contract::load().unwrap();
    assert!(contract.event_types().len() >= 15, "the event types of the contract");
    for made_by_the_service in OPERATIONAL_TYPES {
        assert!(
            contract.event_type(made_by_the_service).is_some(),
            "{made_by_the_service}"
        );
    }
    for event_type in contract.event_types() {
        assert_eq!(event_type.example["type"], json!(event_type.name));
        let mut faults = Faults::default();
        contract.check_data(&event_type.name, &event_type.example["data"], &mut faults);
        assert_eq!(faults.listed(), []);
        assert!(!event_type.description.is_empty(), "{}", event_type.name);
        assert!(
            !event_type.data_schema.to_string().contains("$ref"),
            "{}: complete in itself",
            event_type.name
        );
    }
}
