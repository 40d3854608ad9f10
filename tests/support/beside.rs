//! A second connection to an SQLite file, for inspecting the database behind the product's back.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use rusqlite::{Connection, types::ValueRef};
use sea_orm::{DatabaseConnection, DbBackend, DbErr, ProxyDatabaseTrait, ProxyExecResult, ProxyRow, Statement, Value};

#[derive(Debug)]
struct Beside(Mutex<Connection>);

/// Connects to the file of an SQLite URL. Integers are read as `i64`; columns are read by name, or singly.
pub(crate) async fn connect(url: &str) -> DatabaseConnection {
    let path = url.trim_start_matches("sqlite://");
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let proxy: Box<dyn ProxyDatabaseTrait> = Box::new(Beside(Mutex::new(connection)));
    sea_orm::Database::connect_proxy(DbBackend::Sqlite, proxy.into())
        .await
        .unwrap()
}

impl Beside {
    fn run(&self, statement: &Statement) -> Result<(Vec<ProxyRow>, u64), rusqlite::Error> {
        let connection = self.0.lock().unwrap();
        let mut prepared = connection.prepare(&statement.sql)?;
        let values: Vec<&Value> = statement.values.iter().flat_map(|values| &values.0).collect();
        for index in 0..prepared.parameter_count() {
            let number = prepared
                .parameter_name(index + 1)
                .and_then(|name| name.strip_prefix('$')?.parse().ok());
            match values[number.unwrap_or(index + 1) - 1] {
                Value::Int(value) => prepared.raw_bind_parameter(index + 1, value)?,
                Value::BigInt(value) => prepared.raw_bind_parameter(index + 1, value)?,
                Value::Bool(value) => prepared.raw_bind_parameter(index + 1, value)?,
                Value::String(value) => prepared.raw_bind_parameter(index + 1, value.as_deref())?,
                Value::Bytes(value) => prepared.raw_bind_parameter(index + 1, value.as_deref())?,
                Value::Uuid(value) => {
                    prepared.raw_bind_parameter(index + 1, value.as_ref().map(|id| id.as_bytes().as_slice()))?;
                }
                other => panic!("no test binds {other:?}"),
            }
        }
        let names: Vec<String> = prepared.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = Vec::new();
        let mut found = prepared.raw_query();
        while let Some(row) = found.next()? {
            let mut values = BTreeMap::new();
            for (index, name) in names.iter().enumerate() {
                let value = match row.get_ref(index)? {
                    ValueRef::Null => Value::BigInt(None),
                    ValueRef::Integer(value) => Value::BigInt(Some(value)),
                    ValueRef::Real(value) => Value::Double(Some(value)),
                    ValueRef::Text(text) => Value::String(Some(String::from_utf8_lossy(text).into_owned())),
                    ValueRef::Blob(bytes) => Value::Bytes(Some(bytes.to_vec())),
                };
                values.insert(name.clone(), value);
            }
            rows.push(ProxyRow::new(values));
        }
        drop(found);
        drop(prepared);
        Ok((rows, connection.changes()))
    }
}

#[async_trait::async_trait]
impl ProxyDatabaseTrait for Beside {
    async fn query(&self, statement: Statement) -> Result<Vec<ProxyRow>, DbErr> {
        let ran = self.run(&statement).map_err(|cause| DbErr::Custom(cause.to_string()))?;
        Ok(ran.0)
    }

    async fn execute(&self, statement: Statement) -> Result<ProxyExecResult, DbErr> {
        let ran = if statement.values.is_none() {
            let connection = self.0.lock().unwrap();
            connection.execute_batch(&statement.sql).map(|()| connection.changes())
        } else {
            self.run(&statement).map(|(_, changes)| changes)
        };
        ran.map(|changes| ProxyExecResult::new(0, changes))
            .map_err(|cause| DbErr::Custom(cause.to_string()))
    }
}
