//! Opening a database: the engine, its keys, the shared writes, migrations, and the lock of an embedded one. The only
//! file that knows all the others.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    sync::{Arc, OnceLock},
};

use migration::{Migrator, MigratorTrait as _};
use sea_orm::{
    ConnectionTrait as _, DbBackend, DbErr, ProxyDatabaseTrait, ProxyExecResult, ProxyRow, Statement,
    TransactionTrait as _,
};
use uuid::Uuid;

use super::{
    Database, StoreError,
    database::SharedWrites,
    engine::{
        DatabaseEngine,
        batch::Batcher,
        postgres::Postgres,
        side::Side,
        sqlite::{self, Sqlite},
        sqlite_connection::SqliteConnection,
        worker::Workers,
    },
    entity,
    once::Publish,
    queue::{finish, lease::Finished, nodes, publish_batch},
    secrets::keys::Keys,
    source::{Creation, OWNER_ONLY, OpenError, database_file, sqlite_path, with_suffix},
    webhook_batch,
};
use crate::{
    clock::Clock,
    config::DatabaseOptions,
    domain::{id::NodeId, webhook::WebhookChange},
};

/// Lets one process migrate at a time, until its transaction ends; a transaction-level lock, unlike a session-level
/// one, also works behind PgBouncer. Waiting for that turn may take long; waiting for a table that is in use may not,
/// because all later users of the table would queue up behind it. The number is arbitrary, but must never change.
const MIGRATION_LOCK: &str = "SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = 0;
    SELECT pg_advisory_xact_lock(8230645551847);
    SET LOCAL lock_timeout = '5s'";

impl Database {
    /// Opens a database. An SQLite file is created if it does not exist. The clock follows that of a PostgreSQL server.
    pub async fn open(options: &DatabaseOptions, clock: &Clock) -> Result<Self, OpenError> {
        Self::open_as(NodeId::new(Uuid::new_v4()), options, clock).await
    }

    /// The same for a process that has a name already, which its log says before the database is open.
    pub async fn open_as(node: NodeId, options: &DatabaseOptions, clock: &Clock) -> Result<Self, OpenError> {
        Self::open_by(node, options, clock, Creation::Allowed).await
    }

    /// Opens an existing database, and creates no file: it is an error if an SQLite database does not exist or has none
    /// of our tables, or if its key file does not exist.
    pub async fn open_existing(options: &DatabaseOptions, clock: &Clock) -> Result<Self, OpenError> {
        Self::open_by(NodeId::new(Uuid::new_v4()), options, clock, Creation::Refused).await
    }

    /// The same, and every migration must have been applied.
    pub async fn open_migrated(options: &DatabaseOptions, clock: &Clock) -> Result<Self, OpenError> {
        let db = Self::open_existing(options, clock).await?;
        if Migrator::missing(&db.read()).await? > 0 {
            let name = sqlite_path(&options.url).map(|path| path.display().to_string());
            let name = name.unwrap_or_else(|| "the PostgreSQL database".to_owned());
            return Err(OpenError::NotMigrated(name));
        }
        Ok(db)
    }

    async fn open_by(
        node: NodeId,
        options: &DatabaseOptions,
        clock: &Clock,
        creation: Creation,
    ) -> Result<Self, OpenError> {
        let workers = Workers::default();
        let engine = if options.is_sqlite() {
            let path = sqlite_path(&options.url).ok_or(OpenError::InMemory)?;
            let path = database_file(path, creation)?;
            if creation == Creation::Refused && !sqlite::is_ours(&path)? {
                return Err(OpenError::NotMigrated(path.display().to_string()));
            }
            DatabaseEngine::Sqlite(Arc::new(Sqlite::open(
                &path,
                entity::column_kinds(),
                creation,
                &workers,
            )?))
        } else if options.is_postgres() {
            DatabaseEngine::Postgres(Postgres::open(options, node, &workers).await?)
        } else {
            return Err(OpenError::UnknownEngine);
        };
        let mut db = Self {
            engine,
            side: Side::Api,
            keys: Arc::new(Keys::load(options, creation)?),
            node,
            clock: clock.clone(),
            token_cache: Arc::default(),
            hand_over: Arc::new(OnceLock::new()),
            deleted: Arc::default(),
            shared: None,
            confirmed: Arc::default(),
            workers,
        };
        if matches!(db.engine, DatabaseEngine::Postgres(_)) {
            db.shared = Some(Arc::new(shared_writes(&db)));
        }
        nodes::follow_clock(&db).await?;
        Ok(db)
    }

    /// Applies the missing migrations: all of them or none, in one transaction. If several processes do this at once,
    /// one goes first and the others find nothing left to do.
    ///
    /// Returns how many were missing.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        let missing = Migrator::missing(&self.read()).await?;
        if missing == 0 {
            return Ok(0);
        }
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => migrate_sqlite(sqlite.connect()?).await?,
            DatabaseEngine::Postgres(postgres) => {
                let connection = postgres.for_migrations().await?;
                let tx = connection.begin().await?;
                tx.execute_unprepared(MIGRATION_LOCK).await?;
                Migrator::up(&tx, None).await?;
                tx.commit().await.map_err(StoreError::of_commit)?;
                connection.close().await?;
            }
        }
        Ok(missing)
    }

    /// Whether every migration of this version has been applied.
    pub async fn has_every_migration(&self) -> Result<bool, StoreError> {
        Ok(Migrator::missing(&self.read()).await? == 0)
    }

    /// Whether the database takes writes: a PostgreSQL standby does not.
    pub async fn takes_writes(&self) -> Result<bool, StoreError> {
        let DatabaseEngine::Postgres(postgres) = &self.engine else {
            self.write(|_| Box::pin(async { Ok::<_, StoreError>(()) })).await?;
            return Ok(true);
        };
        let statement = Statement::from_string(DbBackend::Postgres, "SHOW transaction_read_only");
        let row = self.read().query_one_raw(statement).await?;
        let read_only: Option<String> = row.map(|row| row.try_get_by_index(0)).transpose()?;
        let takes_writes = read_only.as_deref() == Some("off");
        if !takes_writes {
            postgres.primary.turned_read_only();
        }
        Ok(takes_writes)
    }

    /// How the connection to PostgreSQL is encrypted, as the server sees it; `None` for SQLite.
    pub async fn describe_connection(&self) -> Result<Option<String>, StoreError> {
        const TLS: &str = "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
        let DatabaseEngine::Postgres(postgres) = &self.engine else {
            return Ok(None);
        };
        let statement = Statement::from_string(DbBackend::Postgres, TLS);
        let row = self.read().query_one_raw(statement).await?;
        let name = postgres.primary.name();
        let Some(row) = row else {
            return Ok(Some(format!("plaintext to {name}")));
        };
        let (version, cipher): (String, String) = (row.try_get("", "version")?, row.try_get("", "cipher")?);
        let verified = postgres.primary.verification();
        Ok(Some(format!("{version} ({cipher}) to {name}, {verified}")))
    }

    /// Closes every connection, after the statements in progress.
    pub async fn close(self) -> Result<(), StoreError> {
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => sqlite.close().await?,
            DatabaseEngine::Postgres(postgres) => postgres.close().await,
        }
        Ok(())
    }
}

/// The entry points to statements that many writes share. A request waits for its batch, not for a connection.
fn shared_writes(db: &Database) -> SharedWrites {
    let side = db.for_publication();
    let publications = Batcher::spawn(
        db.workers.begin("publish batches"),
        |publish: &Publish| publish.publication.organization_id,
        move |batch| publish_batch::record_batch(side.clone(), batch),
    );
    let side = db.for_delivery();
    let records = Batcher::spawn(
        db.workers.begin("finish batches"),
        |finished: &Finished| finished.lease.organization_id,
        move |batch| finish::finish_batch(side.clone(), batch),
    );
    let side = db.clone();
    let changes = Batcher::spawn(
        db.workers.begin("change batches"),
        |change: &WebhookChange| change.organization_id,
        move |batch| webhook_batch::change_batch(side.clone(), batch),
    );
    SharedWrites {
        publications,
        records,
        changes,
    }
}

/// sea-orm's migrator takes only sea-orm's own connection types; this is the one that can be implemented outside of it.
struct Proxy(SqliteConnection);

impl std::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Proxy")
    }
}

#[async_trait::async_trait]
impl ProxyDatabaseTrait for Proxy {
    async fn query(&self, statement: Statement) -> Result<Vec<ProxyRow>, DbErr> {
        self.0.rows(&statement)
    }

    async fn execute(&self, statement: Statement) -> Result<ProxyExecResult, DbErr> {
        self.0.execute(&statement).map(Into::into)
    }
}

async fn migrate_sqlite(connection: SqliteConnection) -> Result<(), StoreError> {
    connection.execute_script("BEGIN IMMEDIATE")?;
    let proxy: Box<dyn ProxyDatabaseTrait> = Box::new(Proxy(connection));
    let proxy = sea_orm::Database::connect_proxy(DbBackend::Sqlite, Arc::new(proxy)).await?;
    // Dropped without a commit, the connection rolls back.
    Migrator::up(&proxy, None).await?;
    proxy.execute_unprepared("COMMIT").await?;
    Ok(())
}

/// One process's exclusive claim to serve from an SQLite file, held until it is dropped or the process ends, however it
/// ends. PostgreSQL needs none: its nodes share the database.
#[derive(Debug)]
pub struct ServerLock(#[expect(dead_code, reason = "held for its lock, which ends with it")] Option<File>);

impl ServerLock {
    /// Claims the database of `url` for this process. A missing SQLite file is created if `creation` allows.
    pub fn acquire(url: &str, creation: Creation) -> Result<Self, OpenError> {
        let Some(path) = sqlite_path(url) else {
            return Ok(Self(None));
        };
        let path = with_suffix(&database_file(path, creation)?, "lock");
        let failed = |cause| OpenError::Lock {
            path: path.clone(),
            cause,
        };
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(OWNER_ONLY)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path)),
            Err(std::fs::TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }
}
