//! Parameters and results of SQLite's statements, as sea-orm's values.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{CachedStatement, Row, types::ValueRef};
use sea_orm::{DbErr, ProxyRow, RuntimeErr, Value, prelude::Uuid};

/// Result codes of a lock, a full or failing disk, and a file that went away: the same call may succeed later
/// (<https://www.sqlite.org/rescode.html>): busy, locked, no memory, read-only, interrupted, I/O error, full, cannot
/// open.
const TEMPORARY: [i32; 8] = [5, 6, 7, 8, 9, 10, 13, 14];

/// The type of a column's values. SQLite itself knows only integers, texts and blobs, and sea-orm requires more than
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Bool,
    Int,
    BigInt,
    Text,
    Bytes,
    Uuid,
}

/// The types of each table's columns.
pub(in crate::store) type Kinds = HashMap<String, HashMap<String, Kind>>;

/// A statement's parameters and result columns.
pub(super) struct Shape {
    /// The index (from 0) of the value for each parameter. `$3` is the third value wherever it appears; SQLite itself
    /// takes it for a name.
    pub(super) parameters: Vec<usize>,
    pub(super) columns: Vec<Column>,
}

/// A column of a result; nothing is known about an expression.
pub(super) struct Column {
    name: String,
    kind: Option<Kind>,
}

/// A statement's parameters, and its result's columns. Their kinds are those of the table columns they come from.
pub(super) fn shape_of(statement: &CachedStatement<'_>, kinds: &Kinds) -> Shape {
    let parameter = |index: usize| {
        let name = statement.parameter_name(index).and_then(|name| name.strip_prefix('$'));
        name.and_then(|number| number.parse().ok())
            .unwrap_or(index)
            .saturating_sub(1)
    };
    let parameters = (1..=statement.parameter_count()).map(parameter).collect();
    let columns = statement.columns_with_metadata();
    let columns = columns.iter().map(|column| {
        let origin = column.table_name().zip(column.origin_name());
        Column {
            name: column.name().to_owned(),
            kind: origin.and_then(|(table, name)| kinds.get(table)?.get(name).copied()),
        }
    });
    Shape {
        parameters,
        columns: columns.collect(),
    }
}

pub(super) fn bind(statement: &mut CachedStatement<'_>, index: usize, value: &Value) -> Result<(), DbErr> {
    let bound = match value {
        Value::Bool(value) => statement.raw_bind_parameter(index, value),
        Value::TinyInt(value) => statement.raw_bind_parameter(index, value),
        Value::SmallInt(value) => statement.raw_bind_parameter(index, value),
        Value::Int(value) => statement.raw_bind_parameter(index, value),
        Value::BigInt(value) => statement.raw_bind_parameter(index, value),
        Value::TinyUnsigned(value) => statement.raw_bind_parameter(index, value),
        Value::SmallUnsigned(value) => statement.raw_bind_parameter(index, value),
        Value::Unsigned(value) => statement.raw_bind_parameter(index, value),
        Value::BigUnsigned(value) => {
            let value = value.map(i64::try_from).transpose();
            let value = value.map_err(|_| DbErr::Type("a number is too large for SQLite".to_owned()))?;
            statement.raw_bind_parameter(index, value)
        }
        Value::Float(value) => statement.raw_bind_parameter(index, value.map(f64::from)),
        Value::Double(value) => statement.raw_bind_parameter(index, value),
        Value::String(value) => statement.raw_bind_parameter(index, value.as_deref()),
        Value::Bytes(value) => statement.raw_bind_parameter(index, value.as_deref()),
        Value::Uuid(value) => statement.raw_bind_parameter(index, value.as_ref().map(|id| id.as_bytes().as_slice())),
        other => return Err(DbErr::Type(format!("SQLite takes no {other:?}"))),
    };
    bound.map_err(failed)
}

pub(super) fn proxy_row(row: &Row<'_>, columns: &[Column]) -> Result<ProxyRow, DbErr> {
    let mut values = BTreeMap::new();
    for (index, column) in columns.iter().enumerate() {
        let stored = row.get_ref(index).map_err(failed)?;
        let wrong = || DbErr::Type(format!("column {} holds {:?}", column.name, stored.data_type()));
        let value = value_of(stored, column.kind).ok_or_else(wrong)?;
        values.insert(column.name.clone(), value);
    }
    Ok(ProxyRow::new(values))
}

/// A stored value as sea-orm's type of that kind; as it is stored if the kind is unknown.
fn value_of(stored: ValueRef<'_>, kind: Option<Kind>) -> Option<Value> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(match (kind, stored) {
        (Some(Kind::Bool), ValueRef::Null) => Value::Bool(None),
        (Some(Kind::Bool), ValueRef::Integer(value)) => Value::Bool(Some(value != 0)),
        (Some(Kind::Int), ValueRef::Null) => Value::Int(None),
        (Some(Kind::Int), ValueRef::Integer(value)) => Value::Int(Some(i32::try_from(value).ok()?)),
        (Some(Kind::BigInt) | None, ValueRef::Null) => Value::BigInt(None),
        (Some(Kind::BigInt) | None, ValueRef::Integer(value)) => Value::BigInt(Some(value)),
        (Some(Kind::Text), ValueRef::Null) => Value::String(None),
        (Some(Kind::Text) | None, ValueRef::Text(bytes)) => Value::String(Some(text(bytes)?)),
        (Some(Kind::Bytes), ValueRef::Null) => Value::Bytes(None),
        (Some(Kind::Bytes) | None, ValueRef::Blob(bytes)) => Value::Bytes(Some(bytes.to_vec())),
        (Some(Kind::Uuid), ValueRef::Null) => Value::Uuid(None),
        (Some(Kind::Uuid), ValueRef::Blob(bytes)) => Value::Uuid(Some(Uuid::from_slice(bytes).ok()?)),
        (None, ValueRef::Real(value)) => Value::Double(Some(value)),
        (Some(_), _) => return None,
    })
}

/// Converts a failure of SQLite. A temporary one is reported as a connection failure.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(super) fn failed(error: rusqlite::Error) -> DbErr {
    let passing = error
        .sqlite_error()
        .is_some_and(|cause| TEMPORARY.contains(&(cause.extended_code & 0xff)));
    let text = RuntimeErr::Internal(error.to_string());
    if passing { DbErr::Conn(text) } else { DbErr::Exec(text) }
}
