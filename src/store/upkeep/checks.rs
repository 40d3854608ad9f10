//! What `doctor` asks of a database: nothing here changes anything that serves.

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

/// The files that opening this database would make anew, because they are not there: an SQLite database, its key.
#[must_use]
pub fn missing_files(options: &DatabaseOptions) -> Vec<PathBuf> {
    let database = sqlite_path(&options.url).map(Path::to_owned);
    [database, keys::key_file(options)]
        .into_iter()
        .flatten()
        .filter(|path| !path.exists())
        .collect()
}

/// What time it is for the database's server; none for SQLite, which has this machine's clock.
pub async fn server_time(db: &Database) -> Result<Option<Timestamp>, StoreError> {
    if db.backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let now = Statement::from_string(db.backend(), format!("SELECT {NOW}"));
    let row = db.read().query_one_raw(now).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}

/// What `doctor` asks of PostgreSQL's settings.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Its version, such as `15.9`.
    pub version: String,
    /// The same as a number, such as 150009.
    pub version_number: i32,
    /// Whether it vacuums by itself.
    pub autovacuum: bool,
    /// Connections that others than superusers may have.
    pub connections_max: i64,
    /// Nodes of the service that are in the database.
    pub nodes: i64,
}

pub(in crate::store) const SERVER_SETTINGS: &str = "
    SELECT current_setting('server_version') AS version,
        current_setting('server_version_num')::int AS version_number,
        current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on' AS autovacuum,
        (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int)::bigint
            AS connections_max,
        (SELECT count(*) FROM nodes) AS nodes";

/// PostgreSQL's settings; none for SQLite. The database must have every migration.
pub async fn server_settings(db: &Database) -> Result<Option<ServerSettings>, StoreError> {
    if db.backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let statement = Statement::from_string(db.backend(), SERVER_SETTINGS);
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

/// Opens the secrets of the oldest and the newest webhook, and says how many there were to open: none, one or two.
///
/// # Errors
/// [`StoreError::Corrupt`] where one does not open with any master key that was given.
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

/// Writes a file beside an SQLite database, to the disk itself, and takes it away again. None where there is no file.
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
