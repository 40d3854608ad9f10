//! A separate database for each test: an SQLite file, or a copy of a migrated PostgreSQL template.

use kallima_webhooks::{clock::Clock, config::DatabaseOptions, store::Database};
use sea_orm::{ConnectionTrait as _, DbErr};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{app::eventually, beside};

/// The variable that makes the suite run on PostgreSQL.
const VARIABLE: &str = "TEST_DATABASE_URL";

/// The variable that makes tests connect to PostgreSQL through a pooler in transaction mode, such as PgBouncer.
const POOLER_VARIABLE: &str = "TEST_POOLER_URL";

/// A database that is dropped when this is.
pub(crate) struct TestDatabase {
    pub(crate) options: DatabaseOptions,
    /// The folder of an SQLite file.
    folder: Option<TempDir>,
    /// The server and the name of a PostgreSQL database.
    postgres: Option<(String, String)>,
}

impl TestDatabase {
    /// A migrated database.
    pub(crate) async fn create() -> Self {
        match std::env::var(VARIABLE) {
            Ok(server) => Self::postgres(server).await,
            Err(_) => Self::sqlite().await,
        }
    }

    /// A migrated database on another PostgreSQL server than the suite's.
    pub(crate) async fn on_server(server: String) -> Self {
        let name = "kallima_campaign".to_owned();
        on_server(&server, &format!("CREATE DATABASE {name}")).await;
        let options = postgres(&server, &name);
        migrate(&options).await;
        Self {
            options,
            folder: None,
            postgres: Some((server, name)),
        }
    }

    /// A database without any table.
    pub(crate) async fn empty() -> Self {
        let Ok(server) = std::env::var(VARIABLE) else {
            return Self::sqlite_file();
        };
        let name = format!("kallima_test_{}", Uuid::new_v4().simple());
        on_server(&server, &format!("CREATE DATABASE {name}")).await;
        Self {
            options: pooled(&server, &name),
            folder: None,
            postgres: Some((server, name)),
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.postgres.is_some()
    }

    /// A connection of its own, bypassing the store and any pooler, for inspecting the database.
    pub(crate) async fn connect(&self) -> sea_orm::DatabaseConnection {
        match &self.postgres {
            Some((server, name)) => sea_orm::Database::connect(postgres(server, name).url).await.unwrap(),
            None => beside::connect(&self.options.url).await,
        }
    }

    /// The bytes of an SQLite database, including its write-ahead log.
    pub(crate) fn sqlite_folder(&self) -> Option<&std::path::Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    /// A migrated SQLite database, whatever the suite runs on.
    pub(crate) async fn sqlite() -> Self {
        let database = Self::sqlite_file();
        migrate(&database.options).await;
        database
    }

    /// A database with every migration for a test that asks for no durability: where there is a disk in memory, an
    /// SQLite file goes there.
    pub(crate) async fn fleeting() -> Self {
        if std::env::var(VARIABLE).is_ok() {
            return Self::create().await;
        }
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let database = Self::sqlite_in(folder.unwrap());
        migrate(&database.options).await;
        database
    }

    fn sqlite_file() -> Self {
        Self::sqlite_in(tempfile::tempdir().unwrap())
    }

    fn sqlite_in(folder: TempDir) -> Self {
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self {
            options: DatabaseOptions::of(url),
            folder: Some(folder),
            postgres: None,
        }
    }

    async fn postgres(server: String) -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE
            .get_or_init(|| async {
                let name = format!("kallima_template_{}", Uuid::new_v4().simple());
                on_server(&server, &format!("CREATE DATABASE {name}")).await;
                migrate(&postgres(&server, &name)).await;
                name
            })
            .await;
        let name = format!("kallima_test_{}", Uuid::new_v4().simple());
        on_server(&server, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Self {
            options: pooled(&server, &name),
            folder: None,
            postgres: Some((server, name)),
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some((server, name)) = self.postgres.take() else {
            return;
        };
        // On its own runtime: the test's may have ended.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.block_on(async {
                // Remaining connections get five seconds to close, as a busy machine may need.
                eventually(|| async { try_on_server(&server, &drop).await.ok() }).await;
            });
        });
        let dropped = dropping.join();
        // A second panic would abort the whole suite, and the first one is the one that matters.
        assert!(
            dropped.is_ok() || std::thread::panicking(),
            "a database was left behind"
        );
    }
}

/// Executes a statement that creates or drops a database.
async fn on_server(server: &str, statement: &str) {
    try_on_server(server, statement).await.unwrap();
}

async fn try_on_server(server: &str, statement: &str) -> Result<(), DbErr> {
    let admin = sea_orm::Database::connect(server)
        .await
        .expect("the PostgreSQL server of the tests answers");
    admin.execute_unprepared(statement).await.map(drop)
}

async fn migrate(options: &DatabaseOptions) {
    let db = Database::open(options, &Clock::system()).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await.unwrap();
}

/// A master key for PostgreSQL, which gets none by default.
pub(crate) const MASTER_KEY: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The same server, another database.
fn postgres(server: &str, name: &str) -> DatabaseOptions {
    let mut url = url::Url::parse(server).unwrap();
    url.set_path(name);
    DatabaseOptions {
        connections_max: 5,
        master_key: Some(MASTER_KEY.to_owned()),
        ..DatabaseOptions::of(url)
    }
}

/// Whether the suite runs on PostgreSQL, so that its programs are available for a test's own cluster.
pub(crate) fn is_on_postgres() -> bool {
    std::env::var(VARIABLE).is_ok()
}

/// Whether the product under test connects through a pooler, which accepts no startup parameters.
pub(crate) fn is_pooled() -> bool {
    std::env::var(POOLER_VARIABLE).is_ok()
}

/// The URL by which the product under test connects.
fn pooled(server: &str, name: &str) -> DatabaseOptions {
    let Ok(pooler) = std::env::var(POOLER_VARIABLE) else {
        return postgres(server, name);
    };
    DatabaseOptions {
        statement_timeout_ms: 0,
        ..postgres(&pooler, name)
    }
}
