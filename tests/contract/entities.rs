//! The columns of the entities against the schemas: as long as they may be, and null where they may be.

use std::{fs, path::Path};

use kallima_webhooks::contract::{Contract, resolve};

/// What a column of an entity says of itself.
struct Column {
    limit: Option<u64>,
    nullable: bool,
}

/// Reads a column out of the source of its entity: the entities are private to the store, and stay so.
fn column(entity: &str, name: &str) -> Column {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/store/entity/{entity}.rs"));
    let source = fs::read_to_string(path).unwrap();
    let mut limit = None;
    for line in source.lines().map(str::trim) {
        if let Some(rest) = line.split("StringLen::N(").nth(1) {
            limit = Some(rest.split(')').next().unwrap().parse().unwrap());
        } else if let Some(field) = line
            .strip_prefix("pub ")
            .and_then(|field| field.strip_prefix(&format!("{name}: ")))
        {
            return Column {
                limit,
                nullable: field.starts_with("Option<"),
            };
        } else if line.starts_with("pub ") {
            limit = None;
        }
    }
    panic!("the {entity} entity has no column {name}");
}

/// The schemas that show a table's rows, with the columns that both have by one name.
const SHOWN: [(&str, &str, &str); 4] = [
    (
        "Webhook",
        "webhook",
        "id url enabled events description disabled_reason created_at updated_at",
    ),
    (
        "Delivery",
        "delivery",
        "id webhook_id event_id status attempt_count response_status response_body error delivered_at",
    ),
    (
        "Attempt",
        "attempt",
        "number trigger started_at duration_ms response_status response_body error",
    ),
    (
        "AuditEntry",
        "audit_entry",
        "id webhook_id action actor token_id address request_id secret_rotated changes created_at",
    ),
];

#[test]
fn columns_and_schemas_agree() {
    let document = Contract::load().unwrap().document().clone();
    let schemas = resolve(&document, &document["components"]["schemas"], 0);
    let mut limits = 0;
    for (schema, entity, columns) in SHOWN {
        for name in columns.split(' ') {
            let property = &schemas[schema]["properties"][name];
            let column = column(entity, name);
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
            if let Some(limit) = column.limit {
                assert_eq!(
                    property["maxLength"], limit,
                    "{schema}.{name}: maxLength and the column of the {entity} entity"
                );
                limits += 1;
            }
        }
    }
    assert_eq!(limits, 2, "url and description have limits");
}
