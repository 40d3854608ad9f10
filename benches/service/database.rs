//! The databases for the measurements: created for the benchmark, and dropped with it.

use std::{path::PathBuf, time::Duration};

use sea_orm::sqlx::{
    self, AssertSqlSafe, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tempfile::TempDir;
use uuid::Uuid;

use super::process;

/// The master key of the benchmark's databases: PostgreSQL's nodes must have one.
pub(crate) const MASTER_KEY: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What the service runs on.
#[derive(Clone)]
pub(crate) enum Engine {
    Sqlite,
    /// The URL of a server.
    Postgres(String),
}

impl Engine {
    pub(crate) fn name(&self) -> &'static str {
        self.pick("SQLite", "PostgreSQL")
    }

    /// Selects the word for this engine.
    pub(crate) fn pick<'a>(&self, sqlite: &'a str, postgres: &'a str) -> &'a str {
        match self {
            Self::Sqlite => sqlite,
            Self::Postgres(_) => postgres,
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// A database, dropped with this.
pub(crate) struct Database {
    pub(crate) engine: Engine,
    location: Location,
}

enum Location {
    File(TempDir),
    Named { name: String, pool: PgPool },
}

impl Database {
    pub(crate) async fn create(engine: Engine) -> Self {
        let location = match &engine {
            // Below `target`, which is on a disk wherever programs are built; a file in memory would have no `fsync`.
            Engine::Sqlite => Location::File(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()),
            Engine::Postgres(server) => {
                let name = format!("kallima_bench_{}", Uuid::new_v4().simple());
                run_on(server, format!("CREATE DATABASE {name}")).await.unwrap();
                let options: PgConnectOptions = server.parse().unwrap();
                let pool = PgPoolOptions::new()
                    .max_connections(32)
                    // As the service configures it: a table grows from nothing here, and a plan must not outlive that.
                    .connect_lazy_with(
                        options
                            .database(&name)
                            .options([("plan_cache_mode", "force_custom_plan")]),
                    );
                Location::Named { name, pool }
            }
        };
        Self { engine, location }
    }

    /// The URL that the service is started with.
    pub(crate) fn url(&self) -> String {
        match (&self.engine, &self.location) {
            (Engine::Postgres(server), Location::Named { name, .. }) => {
                let mut url = url::Url::parse(server).unwrap();
                url.set_path(name);
                url.to_string()
            }
            _ => format!("sqlite://{}", self.file().unwrap().display()),
        }
    }

    /// The file of an SQLite database.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match &self.location {
            Location::File(folder) => Some(folder.path().join("bench.db")),
            Location::Named { .. } => None,
        }
    }

    /// Connections to a PostgreSQL database.
    pub(crate) fn pool(&self) -> Option<&PgPool> {
        match &self.location {
            Location::File(_) => None,
            Location::Named { pool, .. } => Some(pool),
        }
    }

    /// Opens an SQLite database as durably as the service does.
    pub(crate) fn open_file(&self) -> Option<rusqlite::Connection> {
        let connection = rusqlite::Connection::open(self.file()?).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("foreign_keys", "ON")] {
            connection.pragma_update(None, name, value).unwrap();
        }
        Some(connection)
    }

    /// Runs statements one after another in one transaction.
    pub(crate) async fn run(&self, statements: &[String]) {
        let script = format!("BEGIN; {}; COMMIT", statements.join("; "));
        self.script(script).await;
    }

    /// Does what autovacuum would eventually do, even if it is off.
    pub(crate) async fn tidy(&self) {
        self.script(self.engine.pick("ANALYZE", "VACUUM (ANALYZE)").to_owned())
            .await;
    }

    async fn script(&self, script: String) {
        if let Some(pool) = self.pool() {
            sqlx::raw_sql(AssertSqlSafe(script)).execute(pool).await.unwrap();
        } else {
            self.open_file().unwrap().execute_batch(&script).unwrap();
        }
    }

    /// PostgreSQL's main process, if it runs on this machine.
    pub(crate) async fn postmaster(&self) -> Option<u32> {
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(self.pool()?)
            .await
            .unwrap();
        process::parent_of(u32::try_from(backend).ok()?, "postgres")
    }

    /// The version of the server, or of the library that the limits use.
    pub(crate) async fn version(&self) -> String {
        let Some(pool) = self.pool() else {
            return "SQLite (WAL, synchronous=FULL)".to_owned();
        };
        let settings = sqlx::query_scalar(
            "SELECT format('PostgreSQL %s (fsync=%s, synchronous_commit=%s, autovacuum=%s)',
                 current_setting('server_version'), current_setting('fsync'),
                 current_setting('synchronous_commit'), current_setting('autovacuum'))",
        );
        settings.fetch_one(pool).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (Engine::Postgres(server), Location::Named { name, .. }) = (&self.engine, &self.location) else {
            return;
        };
        let (server, statement) = (server.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        // A separate runtime: blocking is not possible on the benchmark's.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                // Remaining users get five seconds to leave, which may not be enough on a busy machine.
                for _ in 0..3 {
                    match run_on(&server, statement.clone()).await {
                        Ok(()) => return,
                        Err(cause) => eprintln!("{statement}: {cause}"),
                    }
                }
            });
        });
        drop(dropping.join());
    }
}

/// Runs a statement that creates or drops a database.
async fn run_on(server: &str, statement: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}
