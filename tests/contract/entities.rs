//! The columns of the entities compared with the schemas: lengths, and which may be null.

use std::{collections::BTreeMap, fs, path::Path};

use kallima_webhooks::{
    contract::{Contract, resolve},
    domain::destination::URL_LENGTH_MAX,
};

/// The attributes of an entity's column.
struct Column {
    limit: Option<u64>,
    nullable: bool,
}

/// A column's bound: a number, or the constant of the domain.
fn bound(written: &str) -> u64 {
    if written.starts_with("URL_LENGTH_MAX ") {
        return URL_LENGTH_MAX.try_into().unwrap();
    }
    written.parse().unwrap()
}

/// Reads the columns out of the source of their entity: the entities are private to the store, and stay so.
fn columns(entity: &str) -> BTreeMap<String, Column> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/store/entity/{entity}.rs"));
    let source = fs::read_to_string(path).unwrap();
    let model = source.split("pub struct Model {").nth(1).unwrap();
    let (mut columns, mut limit) = (BTreeMap::new(), None);
    for line in model.split("\n}").next().unwrap().lines().map(str::trim) {
        if let Some(rest) = line.split("StringLen::N(").nth(1) {
            limit = Some(bound(rest.split(')').next().unwrap()));
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            let column = Column {
                limit: limit.take(),
                nullable: kind.starts_with("Option<"),
            };
            columns.insert(name.to_owned(), column);
        }
    }
    columns
}

/// The schemas that show a table's rows.
const SHOWN: [(&str, &str); 4] = [
    ("Webhook", "webhook"),
    ("Delivery", "delivery"),
    ("Attempt", "attempt"),
    ("AuditEntry", "audit_entry"),
];

/// Columns that are sealed in the row, and shown in plain text only when issued.
const SEALED: &str = "secret";

#[test]
fn columns_and_schemas_agree() {
    let document = Contract::load().unwrap().document().clone();
    let schemas = resolve(&document, &document["components"]["schemas"], 0);
    let (mut compared, mut limits) = (0, 0);
    for (schema, entity) in SHOWN {
        for (name, column) in columns(entity) {
            let property = &schemas[schema]["properties"][&name];
            if property.is_null() || name == SEALED {
                continue;
            }
            let says_null = |keyword: &str| {
                property
                    .get(keyword)
                    .is_some_and(|said| said.to_string().contains("null"))
            };
            let may_be_null = says_null("type") || says_null("oneOf");
            assert_eq!(
                may_be_null, column.nullable,
                "{schema}.{name}: null in openapi.yaml and in the {entity} entity"
            );
            compared += 1;
            if let Some(limit) = column.limit {
                assert_eq!(
                    property["maxLength"], limit,
                    "{schema}.{name}: maxLength and the column of the {entity} entity"
                );
                limits += 1;
            }
        }
    }
    assert!(limits >= 2, "url and description have limits");
    assert!(compared > 30, "only {compared} columns were compared");
}
