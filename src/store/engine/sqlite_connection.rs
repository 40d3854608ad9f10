//! One connection to SQLite: it runs sea-orm's statements on rusqlite.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{OpenFlags, Row, config::DbConfig};
use sea_orm::{DbErr, ExecResult, ProxyExecResult, ProxyRow, QueryResult, Statement};

use super::rows::{Column, Kinds, Shape, bind, failed, proxy_row, shape_of};

/// How long a statement waits for another process's write lock.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many prepared statements a connection keeps.
const STATEMENTS_KEPT: usize = 256;

/// Counters for `/metrics` and the benchmarks.
#[derive(Debug, Default)]
pub(in crate::store) struct Counts {
    /// Statements run.
    pub(in crate::store) statements: AtomicU64,
    /// Transactions committed.
    pub(in crate::store) commits: AtomicU64,
}

/// Whether a connection may write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    Write,
}

/// One connection. Its statements take turns.
pub(in crate::store) struct SqliteConnection {
    inner: Mutex<Inner>,
}

/// A connection, with what it has learned about the statements that it keeps.
pub(super) struct Inner {
    connection: rusqlite::Connection,
    shapes: HashMap<String, Arc<Shape>>,
    kinds: Arc<Kinds>,
    counts: Arc<Counts>,
}

impl SqliteConnection {
    /// Opens the database file and configures the connection.
    pub(super) fn open(path: &Path, mode: Mode, kinds: &Arc<Kinds>, counts: &Arc<Counts>) -> Result<Self, DbErr> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // Makes plans independent of the bound values: otherwise a statement is prepared again whenever they change.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(failed)?;
        let set = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(failed);
        // With WAL, a commit is on disk before it is acknowledged, and survives a power cut.
        set("synchronous", "FULL")?;
        set("foreign_keys", "ON")?;
        match mode {
            Mode::Read => set("query_only", "ON")?,
            // Each write has a savepoint, whose undo pages would otherwise go to a temporary file: a fifth of the whole
            // time of publishing.
            Mode::Write => set("temp_store", "MEMORY")?,
        }
        let inner = Mutex::new(Inner {
            connection,
            shapes: HashMap::new(),
            kinds: Arc::clone(kinds),
            counts: Arc::clone(counts),
        });
        Ok(Self { inner })
    }

    /// The connection, unless a statement is running on it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Inner>> {
        self.inner.try_lock().ok()
    }

    /// The connection, when its turn comes.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn execute(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
        self.lock().execute(statement)
    }

    pub(in crate::store) fn execute_script(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.lock().execute_script(sql)
    }

    pub(super) fn query_one(&self, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
        self.lock().query_one(statement)
    }

    pub(super) fn query_all(&self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.lock().query_all(statement)
    }

    /// A statement's rows, for the proxy that migrations run over.
    pub(in crate::store) fn rows(&self, statement: &Statement) -> Result<Vec<ProxyRow>, DbErr> {
        let mut rows = Vec::new();
        self.lock().run(statement, |row, columns| {
            rows.push(proxy_row(row, columns)?);
            Ok(true)
        })?;
        Ok(rows)
    }

    /// Runs one of the few statements that begin and end transactions.
    pub(super) fn control(&self, sql: &str) -> Result<(), DbErr> {
        let inner = self.lock();
        let mut statement = inner.connection.prepare_cached(sql).map_err(failed)?;
        statement.raw_execute().map_err(failed)?;
        if sql == "COMMIT" {
            inner.counts.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether no transaction is open: some failures, such as a full disk, end it.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().connection.is_autocommit()
    }
}

impl Inner {
    pub(super) fn execute(&mut self, statement: &Statement) -> Result<ExecResult, DbErr> {
        self.run(statement, |_, _| Ok(true))?;
        Ok(ProxyExecResult::new(0, self.connection.changes()).into())
    }

    pub(super) fn execute_script(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        self.counts.statements.fetch_add(1, Ordering::Relaxed);
        self.connection.execute_batch(sql).map_err(failed)?;
        Ok(ProxyExecResult::new(0, self.connection.changes()).into())
    }

    pub(super) fn query_one(&mut self, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut first = None;
        self.run(statement, |row, columns| {
            first = Some(proxy_row(row, columns)?.into());
            Ok(false)
        })?;
        Ok(first)
    }

    pub(super) fn query_all(&mut self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut rows = Vec::new();
        self.run(statement, |row, columns| {
            rows.push(proxy_row(row, columns)?.into());
            Ok(true)
        })?;
        Ok(rows)
    }

    /// Runs a statement, and passes the rows to `each` until it has seen enough.
    fn run(
        &mut self,
        statement: &Statement,
        mut each: impl FnMut(&Row<'_>, &[Column]) -> Result<bool, DbErr>,
    ) -> Result<(), DbErr> {
        self.counts.statements.fetch_add(1, Ordering::Relaxed);
        let mut prepared = self.connection.prepare_cached(&statement.sql).map_err(failed)?;
        let shape = if let Some(shape) = self.shapes.get(&statement.sql) {
            Arc::clone(shape)
        } else {
            let shape = Arc::new(shape_of(&prepared, &self.kinds));
            // The program has fewer statements than this; one-off statements are not kept.
            if self.shapes.len() < 2 * STATEMENTS_KEPT {
                self.shapes.insert(statement.sql.clone(), Arc::clone(&shape));
            }
            shape
        };
        for (index, parameter) in shape.parameters.iter().enumerate() {
            let value = statement.values.as_ref().and_then(|values| values.0.get(*parameter));
            let missing = || DbErr::Type(format!("a statement lacks its parameter {}", parameter + 1));
            bind(&mut prepared, index + 1, value.ok_or_else(missing)?)?;
        }
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            if !each(row, &shape.columns)? {
                break;
            }
        }
        Ok(())
    }
}
