//! The database schema of kallima-webhooks, as a list of migrations that `serve` and `migrate` apply in order.
//!
//! One text serves both engines: the few types that differ are filled in by `Dialect`.

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ColumnTrait as _, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _, Statement},
    seaql_migrations,
};

mod m20261123_000001_schema;

/// Every migration, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261123_000001_schema::Migration)]
    }

    /// The migrations that the database has, of those that this version knows.
    ///
    /// Those of a newer version are ignored: during a rolling upgrade an older node works beside newer ones, on a
    /// schema that has more than it needs.
    async fn get_migration_models<C: ConnectionTrait>(db: &C) -> Result<Vec<seaql_migrations::Model>, DbErr> {
        Self::install(db).await?;
        known(db).await
    }
}

impl Migrator {
    /// Returns how many migrations of this version the database lacks. Read-only.
    pub async fn missing<C: ConnectionTrait>(db: &C) -> Result<usize, DbErr> {
        let backend = db.get_database_backend();
        let table = match backend {
            DbBackend::Postgres => "SELECT 1 AS found WHERE to_regclass('seaql_migrations') IS NOT NULL",
            _ => "SELECT 1 AS found FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'",
        };
        let table = db.query_one_raw(Statement::from_string(backend, table)).await?;
        let known = match table {
            Some(_) => known(db).await?.len(),
            None => 0,
        };
        Ok(Self::migrations().len().saturating_sub(known))
    }
}

async fn known<C: ConnectionTrait>(db: &C) -> Result<Vec<seaql_migrations::Model>, DbErr> {
    let names = Migrator::migrations();
    let names = names.iter().map(|migration| migration.name());
    seaql_migrations::Entity::find()
        .filter(seaql_migrations::Column::Version.is_in(names))
        .order_by_asc(seaql_migrations::Column::Version)
        .all(db)
        .await
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
    /// STRICT makes SQLite refuse a value of another type, as PostgreSQL does. The fill factor leaves room in each
    /// page: an update stays in its page and, if it changes no indexed column, touches no index (HOT). That holds for
    /// every update of a webhook, and for those of a delivery that succeeds.
    fn of(backend: DbBackend) -> Self {
        match backend {
            DbBackend::Postgres => Self {
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

    /// Runs each statement of `script` (each ends with a semicolon), with the engine's words filled in.
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
