//! A database of its own for each test: an SQLite file, or a copy of a migrated PostgreSQL template.

use kallima_webhooks::{clock::Clock, config::DatabaseOptions, store::Database};
use sea_orm::ConnectionTrait as _;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// The variable that makes the suite run on PostgreSQL.
const VARIABLE: &str = "TEST_DATABASE_URL";

/// A database that is dropped with this.
pub(crate) struct TestDatabase {
    pub(crate) options: DatabaseOptions,
    /// The folder of an SQLite file.
    folder: Option<TempDir>,
    /// The server and the name of a PostgreSQL database.
    postgres: Option<(String, String)>,
}

impl TestDatabase {
    /// A database with every migration.
    pub(crate) async fn create() -> Self {
        match std::env::var(VARIABLE) {
            Ok(server) => Self::postgres(server).await,
            Err(_) => Self::sqlite().await,
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.postgres.is_some()
    }

    /// A connection beside the store, for looking behind its back.
    pub(crate) async fn connect(&self) -> sea_orm::DatabaseConnection {
        sea_orm::Database::connect(&self.options.url).await.unwrap()
    }

    /// The bytes of an SQLite database, its log included.
    pub(crate) fn sqlite_folder(&self) -> Option<&std::path::Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let options = DatabaseOptions::of(url);
        migrate(&options).await;
        Self {
            options,
            folder: Some(folder),
            postgres: None,
        }
    }

    async fn postgres(server: String) -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let admin = sea_orm::Database::connect(&server)
            .await
            .expect("PostgreSQL of TEST_DATABASE_URL answers");
        let template = TEMPLATE
            .get_or_init(|| async {
                let name = format!("kallima_template_{}", Uuid::new_v4().simple());
                admin
                    .execute_unprepared(&format!("CREATE DATABASE {name}"))
                    .await
                    .unwrap();
                migrate(&postgres(&server, &name)).await;
                name
            })
            .await;
        let name = format!("kallima_test_{}", Uuid::new_v4().simple());
        admin
            .execute_unprepared(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap();
        let options = postgres(&server, &name);
        Self {
            options,
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
        // A runtime of its own: the test's may be gone.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let admin = sea_orm::Database::connect(&server).await.unwrap();
                admin
                    .execute_unprepared(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await
                    .unwrap();
            });
        });
        dropping.join().unwrap();
    }
}

async fn migrate(options: &DatabaseOptions) {
    let db = Database::open(options, &Clock::system()).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await.unwrap();
}

/// A master key for PostgreSQL, which is not given one by itself.
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
