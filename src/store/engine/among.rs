//! "One of these" conditions whose text does not depend on the number of values: they are prepared once.

use sea_orm::{DbBackend, Value, prelude::Uuid, sea_query::Expr};

/// Matches rows whose `column` is one of `ids`. `column` must not come from user input.
pub(in crate::store) fn among_ids<I: Into<Uuid>>(
    backend: DbBackend,
    column: &str,
    ids: impl IntoIterator<Item = I>,
) -> Expr {
    let condition = match backend {
        DbBackend::Postgres => format!("{column} = ANY($1)"),
        _ => format!("{column} IN (SELECT unhex(value) FROM json_each(?))"),
    };
    Expr::cust_with_values(condition, [ids_value(backend, ids)])
}

/// Ids as a single value: an array on PostgreSQL, JSON on SQLite.
pub(in crate::store) fn ids_value<I: Into<Uuid>>(backend: DbBackend, ids: impl IntoIterator<Item = I>) -> Value {
    let ids = ids.into_iter().map(Into::into);
    if backend == DbBackend::Postgres {
        return ids.collect::<Vec<Uuid>>().into();
    }
    let ids: Vec<String> = ids.map(|id| id.simple().to_string()).collect();
    serde_json::Value::from(ids).to_string().into()
}

/// An organization's rows by key, as an item of FROM with the alias `found`: `$1` is the organization, `$2` the keys
/// ([`ids_value`] or [`texts_value`]). Names must not come from user input.
///
/// As long as the planner has no statistics for an organization, it assumes that it has a single row: any index that
/// begins with the organization looks as good as the primary key's, and it might read all of them for each key. The
/// ORDER BY, which only the key's index satisfies, decides.
pub(in crate::store) fn found_among(backend: DbBackend, table: &str, key: &str, keys: KeyType) -> String {
    if backend == DbBackend::Postgres {
        return format!(
            "unnest($2) AS wanted(wanted_key) CROSS JOIN LATERAL (
                SELECT * FROM {table}
                WHERE organization_id = $1 AND {key} >= wanted_key AND {key} <= wanted_key
                ORDER BY {key} LIMIT 1) AS found"
        );
    }
    let value = match keys {
        KeyType::Ids => "unhex(value)",
        KeyType::Texts => "value",
    };
    format!(
        "(SELECT * FROM {table}
          WHERE organization_id = $1 AND {key} IN (SELECT {value} FROM json_each($2))) AS found"
    )
}

/// The type of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum KeyType {
    Ids,
    Texts,
}

/// Texts as a single value: an array on PostgreSQL, JSON on SQLite.
pub(in crate::store) fn texts_value(backend: DbBackend, texts: Vec<String>) -> Value {
    if backend == DbBackend::Postgres {
        return texts.into();
    }
    serde_json::Value::from(texts).to_string().into()
}

/// One column of many rows as an array, which `UNNEST` turns back into rows. Only PostgreSQL has arrays, and the
/// driver's cannot contain NULL.
pub(in crate::store) fn array<T, V>(rows: impl IntoIterator<Item = T>, column: impl Fn(T) -> V) -> Value
where
    Vec<V>: Into<Value>,
{
    rows.into_iter().map(column).collect::<Vec<V>>().into()
}

/// Matches rows whose `column` is one of `texts`.
pub(in crate::store) fn among_texts(backend: DbBackend, column: &str, texts: Vec<String>) -> Expr {
    let condition = match backend {
        DbBackend::Postgres => format!("{column} = ANY($1)"),
        _ => format!("{column} IN (SELECT value FROM json_each(?))"),
    };
    Expr::cust_with_values(condition, [texts_value(backend, texts)])
}
