//! "One of these", as a condition whose text does not depend on how many they are: it is prepared once.

use sea_orm::{DbBackend, Value, prelude::Uuid, sea_query::Expr};

/// That `column` is one of `ids`. The column's name is the program's own.
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

/// Ids as one value: an array on PostgreSQL, JSON on SQLite.
pub(in crate::store) fn ids_value<I: Into<Uuid>>(backend: DbBackend, ids: impl IntoIterator<Item = I>) -> Value {
    let ids = ids.into_iter().map(Into::into);
    if backend == DbBackend::Postgres {
        return ids.collect::<Vec<Uuid>>().into();
    }
    let ids: Vec<String> = ids.map(|id| id.simple().to_string()).collect();
    serde_json::Value::from(ids).to_string().into()
}

/// One column of many rows, as an array that `UNNEST` makes rows of again. PostgreSQL alone has arrays, and the driver's
/// hold no NULL.
pub(in crate::store) fn array<T, V>(rows: impl IntoIterator<Item = T>, column: impl Fn(T) -> V) -> Value
where
    Vec<V>: Into<Value>,
{
    rows.into_iter().map(column).collect::<Vec<V>>().into()
}

/// That `column` is one of `texts`.
pub(in crate::store) fn among_texts(backend: DbBackend, column: &str, texts: Vec<String>) -> Expr {
    if backend == DbBackend::Postgres {
        return Expr::cust_with_values(format!("{column} = ANY($1)"), [Value::from(texts)]);
    }
    let texts = serde_json::Value::from(texts).to_string();
    Expr::cust_with_values(
        format!("{column} IN (SELECT value FROM json_each(?))"),
        [Value::from(texts)],
    )
}
