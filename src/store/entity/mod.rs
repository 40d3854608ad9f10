//! The tables as sea-orm models, private to the store so that no query can forget the organization.
//!
//! Times are milliseconds since the Unix epoch. The `column_type` of a text column states its limit, which a contract
//! test compares with `maxLength` in `openapi.yaml`.
#![expect(unreachable_pub, reason = "the derives of sea-orm want their models public")]

pub mod attempt;
pub mod audit_entry;
mod columns;
pub mod delivery;
pub mod event;
pub mod idempotency_key;
pub mod organization;
pub mod queued;
pub mod token;
pub mod webhook;

use std::collections::HashMap;

use sea_orm::{ColumnTrait as _, EntityTrait, IdenStatic as _, Iterable as _, sea_query::ColumnType};

use super::engine::rows::{Kind, Kinds};

/// The types of the columns, for the engine that only knows integers, texts and blobs.
pub(super) fn column_kinds() -> Kinds {
    let mut kinds = Kinds::new();
    add::<attempt::Entity>(&mut kinds);
    add::<audit_entry::Entity>(&mut kinds);
    add::<delivery::Entity>(&mut kinds);
    add::<event::Entity>(&mut kinds);
    add::<idempotency_key::Entity>(&mut kinds);
    add::<organization::Entity>(&mut kinds);
    add::<queued::Entity>(&mut kinds);
    add::<token::Entity>(&mut kinds);
    add::<webhook::Entity>(&mut kinds);
    kinds
}

/// A table's columns for a SELECT, instead of `*`: once a newer node has added a column, PostgreSQL would refuse every such
/// statement that an older one has prepared.
pub(super) fn columns<E: EntityTrait>(of: &str) -> String {
    let columns = E::Column::iter().map(|column| format!("{of}.{}", column.as_str()));
    columns.collect::<Vec<_>>().join(", ")
}

fn add<E: EntityTrait>(kinds: &mut Kinds) {
    let columns = E::Column::iter().filter_map(|column| {
        let kind = match column.def().get_column_type() {
            ColumnType::Boolean => Kind::Bool,
            ColumnType::Integer => Kind::Int,
            ColumnType::BigInteger => Kind::BigInt,
            ColumnType::Text | ColumnType::String(_) => Kind::Text,
            ColumnType::VarBinary(_) | ColumnType::Binary(_) | ColumnType::Blob => Kind::Bytes,
            ColumnType::Uuid => Kind::Uuid,
            _ => return None,
        };
        Some((column.as_str().to_owned(), kind))
    });
    kinds.insert(E::default().table_name().to_owned(), columns.collect::<HashMap<_, _>>());
}
