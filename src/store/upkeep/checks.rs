//! What `doctor` checks in a database: nothing here changes anything in use.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, QueryOrder as _, Statement};

use crate::{
    config::DatabaseOptions,
    domain::timestamp::Timestamp,
    store::{
        Database, StoreError,
        entity::webhook,
        queue::nodes::NOW,
        secrets::{keys, open_secret},
        source::sqlite_path,
    },
};

/// The missing files that opening this database would create: an SQLite database, its key.
#[must_use]
pub fn missing_files(options: &DatabaseOptions) -> Vec<PathBuf> {
    let database = sqlite_path(&options.url).map(Path::to_owned);
    [database, keys::key_file(options)]
        .into_iter()
        .flatten()
        .filter(|path| !path.exists())
        .collect()
}

/// The time of the database's server; `None` for SQLite, which uses this machine's clock.
pub async fn server_time(db: &Database) -> Result<Option<Timestamp>, StoreError> {
    if db.backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let now = Statement::from_string(db.backend(), format!("SELECT {NOW}"));
    let row = db.read().query_one_raw(now).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}

/// What `doctor` checks of PostgreSQL's settings.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Its version, such as `15.9`.
    pub version: String,
    /// The same as a number, such as 150009.
    pub version_number: i32,
    /// Whether autovacuum is on.
    pub autovacuum: bool,
    /// Connections available to users other than superusers.
    pub connections_max: i64,
    /// Nodes of the service in the database.
    pub nodes: i64,
}

pub(in crate::store) const SETTINGS: &str = "
    SELECT current_setting('server_version') AS version,
        current_setting('server_version_num')::int AS version_number,
        current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on' AS autovacuum,
        (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int)::bigint
            AS connections_max,
        (SELECT count(*) FROM nodes) AS nodes";

/// PostgreSQL's settings; `None` for SQLite. The database must have every migration.
pub async fn server_settings(db: &Database) -> Result<Option<ServerSettings>, StoreError> {
    if db.backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let statement = Statement::from_string(db.backend(), SETTINGS);
    let Some(row) = db.read().query_one_raw(statement).await? else {
        return Ok(None);
    };
    Ok(Some(ServerSettings {
        version: row.try_get("", "version")?,
        version_number: row.try_get("", "version_number")?,
        autovacuum: row.try_get("", "autovacuum")?,
        connections_max: row.try_get("", "connections_max")?,
        nodes: row.try_get("", "nodes")?,
    }))
}

/// Opens the secrets of the oldest and the newest webhook, and returns how many there were to open: none, one or two.
///
/// # Errors
/// [`StoreError::Corrupt`] if no configured master key opens one of them.
pub async fn open_secrets(db: &Database) -> Result<usize, StoreError> {
    let oldest = webhook::Entity::find()
        .order_by_asc(webhook::Column::Id)
        .one(&db.read())
        .await?;
    let newest = webhook::Entity::find()
        .order_by_desc(webhook::Column::Id)
        .one(&db.read())
        .await?;
    let mut rows: Vec<_> = oldest.into_iter().chain(newest).collect();
    rows.dedup_by_key(|row| row.id);
    for row in &rows {
        open_secret(db, row)?;
    }
    Ok(rows.len())
}

/// Writes a file next to an SQLite database, through to the disk, and removes it again. `None` if there is no file.
#[must_use]
pub fn try_disk(options: &DatabaseOptions) -> Option<io::Result<()>> {
    let database = sqlite_path(&options.url)?;
    let trial = PathBuf::from(format!("{}.doctor.{}", database.display(), std::process::id()));
    let written = fs::File::create_new(&trial).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    Some(written.and_then(|()| fs::remove_file(&trial)))
}
