//! The database schema of kallima-webhooks, as a list of migrations that `serve` and `migrate` apply in order.
//!
//! One text serves both engines: the few types that differ are filled in by `Dialect`.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::prelude::*;

mod m20261123_000001_initial;

/// Every migration, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261123_000001_initial::Migration)]
    }
}

/// What the two engines spell differently.
struct Dialect {
    blob: &'static str,
    uuid: &'static str,
    boolean: &'static str,
    bigint: &'static str,
    table_end: &'static str,
    hot_table_end: &'static str,
}

impl Dialect {
    /// STRICT makes SQLite refuse a value of another type, as PostgreSQL does. The fill factor leaves
    /// room in each page, so that an update of a delivery stays in its page and touches no index (HOT).
    fn of(backend: sea_orm_migration::sea_orm::DbBackend) -> Self {
        match backend {
            sea_orm_migration::sea_orm::DbBackend::Postgres => Self {
                blob: "BYTEA",
                uuid: "UUID",
                boolean: "BOOLEAN",
                bigint: "BIGINT",
                table_end: "",
                hot_table_end: "WITH (fillfactor = 80)",
            },
            _ => Self {
                blob: "BLOB",
                uuid: "BLOB",
                boolean: "INTEGER",
                bigint: "INTEGER",
                table_end: "STRICT",
                hot_table_end: "STRICT",
            },
        }
    }

    /// Runs each statement of `script` (they end with a semicolon), with the engine's words filled in.
    async fn run(manager: &SchemaManager<'_>, script: &str) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let dialect = Self::of(manager.get_database_backend());
        for statement in script
            .split(';')
            .map(str::trim)
            .filter(|statement| !statement.is_empty())
        {
            let statement = statement
                .replace("{blob}", dialect.blob)
                .replace("{uuid}", dialect.uuid)
                .replace("{boolean}", dialect.boolean)
                .replace("{bigint}", dialect.bigint)
                .replace("{table_end}", dialect.table_end)
                .replace("{hot_table_end}", dialect.hot_table_end);
            connection.execute_unprepared(&statement).await?;
        }
        Ok(())
    }
}
