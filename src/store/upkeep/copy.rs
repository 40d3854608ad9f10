//! Copying a whole SQLite database into an empty PostgreSQL database, with proof that all of it arrived.
//!
//! What is copied is read from the two schemas themselves, so that no table and no column can be forgotten: if they
//! differ, nothing is copied. Sealed secrets are copied as they are; the same master key opens them.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value,
    sea_query::{Alias, Expr, PostgresQueryBuilder, Query},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::store::{
    Database, StoreError,
    engine::{Connection, DatabaseEngine},
};

/// Rows that are read and inserted together: for the widest table about eight thousand parameters of the 65,535 that
/// PostgreSQL takes.
const ROWS_AT_A_TIME: usize = 500;

/// The table of the migrations, which each database keeps for itself.
const MIGRATIONS: &str = "seaql_migrations";

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Copies only go from SQLite to PostgreSQL.
    #[error("data is copied from sqlite://… to postgres://…")]
    Engines,
    /// The target has rows already.
    #[error("the target is not empty: its table {0} has rows")]
    NotEmpty(String),
    /// One of them has something that the other lacks.
    #[error("the two schemas differ: {0}")]
    SchemasDiffer(String),
    /// What was read back differs from what was written.
    #[error("table {table}: {written} rows were copied, but {found} arrived, or others than those")]
    Mismatch {
        /// The table.
        table: String,
        /// Rows read from the source.
        written: u64,
        /// Rows read back from the target.
        found: u64,
    },
    /// A database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DbErr> for CopyError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// A table that was copied.
#[derive(Debug)]
pub struct Copied {
    /// Its name.
    pub table: String,
    /// How many rows it has, in both databases.
    pub rows: u64,
    /// The sum of its rows' digests, in both databases.
    pub checksum: u128,
}

/// Columns with their types in PostgreSQL, by table.
type Tables = BTreeMap<String, Vec<(String, String)>>;

/// The number of rows and the sum of their digests, regardless of order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    rows: u64,
    checksum: u128,
}

impl Tally {
    fn add(&mut self, row: &[Value]) {
        let digest = Sha256::digest(format!("{row:?}"));
        let (half, _) = digest.split_at(16);
        let half = half.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        self.rows += 1;
        self.checksum = self.checksum.wrapping_add(half);
    }
}

/// Copies every table, from one snapshot of `from`, into `to`, in one transaction: all of it arrives, or nothing. Both
/// must have every migration. `progress` gets the rows of each batch.
pub async fn copy(
    from: &Database,
    to: &Database,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Vec<Copied>, CopyError> {
    let (DatabaseEngine::Sqlite(sqlite), DbBackend::Postgres) = (&from.engine, to.backend()) else {
        return Err(CopyError::Engines);
    };
    let snapshot = sqlite.snapshot()?;
    to.write(move |target| {
        Box::pin(async move { copy_all(&Connection::SqliteTransaction(&snapshot), target, &progress).await })
    })
    .await
}

async fn copy_all(
    source: &Connection<'_>,
    target: &Connection<'_>,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<Vec<Copied>, CopyError> {
    let tables = tables(source, target).await?;
    let order = parents_first(target, &tables).await?;
    refuse_rows(target, &order).await?;
    let mut copied = Vec::new();
    for table in order {
        let Some(columns) = tables.get(&table) else { continue };
        let written = copy_table(source, target, &table, columns, progress).await?;
        let found = read_back(target, &table, columns).await?;
        if written != found {
            return Err(CopyError::Mismatch {
                table,
                written: written.rows,
                found: found.rows,
            });
        }
        copied.push(Copied {
            table,
            rows: found.rows,
            checksum: found.checksum,
        });
    }
    Ok(copied)
}

/// The tables and columns that both databases have.
async fn tables(source: &Connection<'_>, target: &Connection<'_>) -> Result<Tables, CopyError> {
    let sql = format!(
        "SELECT t.name AS table_name, c.name AS column_name FROM sqlite_master t JOIN pragma_table_info(t.name) c
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> '{MIGRATIONS}'"
    );
    let mut source_columns = BTreeSet::new();
    for row in query(source, sql).await? {
        source_columns.insert((row.try_get("", "table_name")?, row.try_get("", "column_name")?));
    }
    let sql = format!(
        "SELECT table_name::text AS table_name, column_name::text AS column_name, data_type::text AS data_type FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name <> '{MIGRATIONS}' ORDER BY table_name, ordinal_position"
    );
    let mut tables = Tables::new();
    let mut target_columns: BTreeSet<(String, String)> = BTreeSet::new();
    for row in query(target, sql).await? {
        let (table, column): (String, String) = (row.try_get("", "table_name")?, row.try_get("", "column_name")?);
        target_columns.insert((table.clone(), column.clone()));
        tables
            .entry(table)
            .or_default()
            .push((column, row.try_get("", "data_type")?));
    }
    let differing = source_columns.symmetric_difference(&target_columns);
    let differing: Vec<String> = differing.map(|(table, column)| format!("{table}.{column}")).collect();
    if !differing.is_empty() {
        return Err(CopyError::SchemasDiffer(differing.join(", ")));
    }
    Ok(tables)
}

/// The tables, ordered so that each comes after those it refers to.
async fn parents_first(target: &Connection<'_>, tables: &Tables) -> Result<Vec<String>, CopyError> {
    const REFERENCES: &str = "SELECT child.relname::text AS child, parent.relname::text AS parent FROM pg_constraint
        JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
        WHERE contype = 'f' AND conrelid <> confrelid AND connamespace = current_schema()::regnamespace";
    let mut references: Vec<(String, String)> = Vec::new();
    for row in query(target, REFERENCES.to_owned()).await? {
        references.push((row.try_get("", "child")?, row.try_get("", "parent")?));
    }
    let mut order: Vec<String> = Vec::new();
    while order.len() < tables.len() {
        let waits = |table: &String| {
            let mut parents = references.iter().filter(|(child, _)| child == table);
            parents.any(|(_, parent)| !order.contains(parent))
        };
        let next = tables.keys().find(|table| !order.contains(table) && !waits(table));
        let Some(next) = next.cloned() else {
            return Err(CopyError::SchemasDiffer(
                "tables refer to each other in a circle".to_owned(),
            ));
        };
        order.push(next);
    }
    Ok(order)
}

/// Refuses a target that has rows, and keeps others from adding any until the copy is done.
async fn refuse_rows(target: &Connection<'_>, tables: &[String]) -> Result<(), CopyError> {
    for table in tables {
        let lock = format!("LOCK TABLE \"{table}\" IN SHARE ROW EXCLUSIVE MODE");
        target.execute_unprepared(&lock).await?;
        if !query(target, format!("SELECT 1 FROM \"{table}\" LIMIT 1"))
            .await?
            .is_empty()
        {
            return Err(CopyError::NotEmpty(table.clone()));
        }
    }
    Ok(())
}

async fn copy_table(
    source: &Connection<'_>,
    target: &Connection<'_>,
    table: &str,
    columns: &[(String, String)],
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<Tally, CopyError> {
    let mut tally = Tally::default();
    let mut last = 0_i64;
    loop {
        let sql = format!(
            "SELECT {}, rowid FROM \"{table}\" WHERE rowid > {last} ORDER BY rowid LIMIT {ROWS_AT_A_TIME}",
            names(columns)
        );
        let rows = query(source, sql).await?;
        let Some(end) = rows.last() else { return Ok(tally) };
        last = end.try_get("", "rowid")?;
        let mut insert = Query::insert();
        insert
            .into_table(Alias::new(table))
            .columns(columns.iter().map(|(name, _)| Alias::new(name)));
        for row in &rows {
            let values = values(row, columns)?;
            tally.add(&values);
            insert.values_panic(values.into_iter().map(Expr::value));
        }
        let (sql, values) = insert.build(PostgresQueryBuilder);
        target
            .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values.0))
            .await?;
        progress(rows.len() as u64);
    }
}

async fn read_back(target: &Connection<'_>, table: &str, columns: &[(String, String)]) -> Result<Tally, CopyError> {
    let declare = format!(
        "DECLARE copied_{table} NO SCROLL CURSOR FOR SELECT {} FROM \"{table}\"",
        names(columns)
    );
    target.execute_unprepared(&declare).await?;
    // A cursor name per table: the driver caches a statement's result columns by its text.
    let mut tally = Tally::default();
    loop {
        let rows = query(target, format!("FETCH {ROWS_AT_A_TIME} FROM copied_{table}")).await?;
        if rows.is_empty() {
            target.execute_unprepared(&format!("CLOSE copied_{table}")).await?;
            return Ok(tally);
        }
        for row in &rows {
            tally.add(&values(row, columns)?);
        }
    }
}

fn names(columns: &[(String, String)]) -> String {
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    names.join(", ")
}

/// A row's values in PostgreSQL's types, whichever engine it comes from.
fn values(row: &QueryResult, columns: &[(String, String)]) -> Result<Vec<Value>, CopyError> {
    let value = |(name, data_type): &(String, String)| {
        Ok(match data_type.as_str() {
            "uuid" => row.try_get::<Option<Uuid>>("", name)?.into(),
            "boolean" => row.try_get::<Option<bool>>("", name)?.into(),
            "bigint" => row.try_get::<Option<i64>>("", name)?.into(),
            "integer" => row.try_get::<Option<i32>>("", name)?.into(),
            "double precision" => row.try_get::<Option<f64>>("", name)?.into(),
            "text" => row.try_get::<Option<String>>("", name)?.into(),
            "bytea" => row.try_get::<Option<Vec<u8>>>("", name)?.into(),
            other => {
                return Err(CopyError::SchemasDiffer(format!(
                    "{name} is of the unknown type {other}"
                )));
            }
        })
    };
    columns.iter().map(value).collect()
}

async fn query(connection: &impl ConnectionTrait, sql: String) -> Result<Vec<QueryResult>, DbErr> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    connection.query_all_raw(statement).await
}
