//! SQLite in this process: sea-orm's `ConnectionTrait` on rusqlite.
//!
//! A statement runs on the thread that asks for it. With its page in memory a look-up takes some ten microseconds, less
//! than handing it to another thread would. What may take longer, a walk over history, runs on connections of its own
//! and tells the runtime that it blocks ([`Sqlite::reading_long`]), so that it delays no other task. The delivery engine
//! has connections of its own for both: however much the API reads, a claim waits for no request.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::{OpenFlags, Row, config::DbConfig};
use sea_orm::{DbErr, ExecResult, ProxyExecResult, ProxyRow, QueryResult, RuntimeErr, Statement};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
};

use super::{
    rows::{Column, Kinds, Shape, bind, failed, proxy_row, shape_of},
    side::Side,
    worker::Workers,
    writer::Writer,
};
use crate::store::source::Creation;

/// How long a statement waits for another process's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections for look-ups, and for reads that may take long. A look-up never waits for a long read.
const READERS: usize = 4;
const LONG_READERS: usize = 2;

/// The delivery engine's own: it reads in a few large statements.
const DELIVERY_READERS: usize = 2;
const DELIVERY_LONG_READERS: usize = 1;

/// Prepared statements that a connection keeps.
const STATEMENTS_KEPT: usize = 256;

/// The table of the migrations.
const MIGRATIONS: &str = "seaql_migrations";

/// What was done, for `/metrics` and the benchmarks.
#[derive(Debug, Default)]
pub(in crate::store) struct Counts {
    /// Statements run.
    pub(in crate::store) statements: AtomicU64,
    /// Transactions committed.
    pub(in crate::store) commits: AtomicU64,
}

/// An open SQLite database: its readers and its writer.
pub(in crate::store) struct Sqlite {
    path: PathBuf,
    api: Readers,
    delivery: Readers,
    pub(in crate::store) writer: Writer,
    kinds: Arc<Kinds>,
    pub(in crate::store) counts: Arc<Counts>,
}

impl Sqlite {
    /// Opens the database file. Where it may have been made for this, it is switched to WAL, which stays with the file; one
    /// that was there is left as it is.
    pub(in crate::store) fn open(
        path: &Path,
        kinds: Kinds,
        creation: Creation,
        workers: &Workers,
    ) -> Result<Self, DbErr> {
        let (kinds, counts) = (Arc::new(kinds), Arc::new(Counts::default()));
        let open = |mode| Connection::open(path, mode, &kinds, &counts);
        let writer = open(Mode::Write)?;
        if creation == Creation::Allowed {
            writer.execute_script("PRAGMA journal_mode = WAL")?;
        }
        let writer = Writer::spawn(workers.begin("sqlite writer"), writer)?;
        let readers = |short, long| Readers::open(short, long, || open(Mode::Read));
        Ok(Self {
            path: path.to_owned(),
            api: readers(READERS, LONG_READERS)?,
            delivery: readers(DELIVERY_READERS, DELIVERY_LONG_READERS)?,
            writer,
            kinds,
            counts,
        })
    }

    /// Waits for the writes that were handed in, and moves the log into the database file.
    pub(in crate::store) async fn close(&self) -> Result<(), DbErr> {
        self.writer.close().await;
        let connection = self.connect()?;
        // Whoever reads keeps a part of the log: it is moved the next time.
        drop(connection.execute_script("PRAGMA wal_checkpoint(TRUNCATE)"));
        Ok(())
    }

    /// A connection of its own that writes, for migrations.
    pub(in crate::store) fn connect(&self) -> Result<Connection, DbErr> {
        Connection::open(&self.path, Mode::Write, &self.kinds, &self.counts)
    }

    /// A connection of its own whose reads all see the database as it is at its first one.
    pub(in crate::store) fn snapshot(&self) -> Result<Connection, DbErr> {
        let connection = Connection::open(&self.path, Mode::Read, &self.kinds, &self.counts)?;
        connection.execute_script("BEGIN")?;
        Ok(connection)
    }

    /// Runs a look-up on the caller's thread.
    pub(super) fn reading<T>(&self, side: Side, read: impl FnOnce(&mut Inner) -> Result<T, DbErr>) -> Result<T, DbErr> {
        self.writer.refuse_if_closed()?;
        self.readers(side).short.run(read)
    }

    /// Runs a read that may take long: on the caller's thread, which the runtime is told to do without meanwhile.
    ///
    /// Who finds all connections in use waits as a task. A thread for each of them would use up those that the runtime
    /// may have, and then it would stand still.
    pub(super) async fn reading_long<T>(
        &self,
        side: Side,
        read: impl FnOnce(&mut Inner) -> Result<T, DbErr>,
    ) -> Result<T, DbErr> {
        let Readers { long, long_turns, .. } = self.readers(side);
        let _turn = long_turns.acquire().await.map_err(closed)?;
        self.writer.refuse_if_closed()?;
        let is_shared =
            Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        if is_shared {
            tokio::task::block_in_place(|| long.run(read))
        } else {
            long.run(read)
        }
    }

    /// The pools of readers: name, connections that serve a statement now, connections.
    pub(in crate::store) fn pools(&self) -> [(&'static str, u32, u32); 4] {
        let of = |name, pool: &Pool| (name, count(pool.busy()), count(pool.connections.len()));
        [
            of("read", &self.api.short),
            of("read_long", &self.api.long),
            of("delivery", &self.delivery.short),
            of("delivery_long", &self.delivery.long),
        ]
    }

    fn readers(&self, side: Side) -> &Readers {
        match side {
            Side::Api => &self.api,
            Side::Delivery | Side::Heartbeat => &self.delivery,
        }
    }
}

fn count(connections: usize) -> u32 {
    u32::try_from(connections).unwrap_or(u32::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn closed(error: tokio::sync::AcquireError) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(error.to_string()))
}

/// The connections that one side reads by.
struct Readers {
    short: Pool,
    long: Pool,
    /// A permit for each connection of `long`.
    long_turns: Semaphore,
}

impl Readers {
    fn open(short: usize, long: usize, open: impl Fn() -> Result<Connection, DbErr>) -> Result<Self, DbErr> {
        let pool = |connections: usize| {
            Ok::<_, DbErr>(Pool {
                connections: (0..connections).map(|_| open()).collect::<Result<_, _>>()?,
                next: AtomicUsize::new(0),
            })
        };
        Ok(Self {
            short: pool(short)?,
            long: pool(long)?,
            long_turns: Semaphore::new(long),
        })
    }
}

/// Connections of which a statement takes any.
struct Pool {
    connections: Vec<Connection>,
    next: AtomicUsize,
}

impl Pool {
    fn run<T>(&self, read: impl FnOnce(&mut Inner) -> Result<T, DbErr>) -> Result<T, DbErr> {
        let pool = &self.connections;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |step: usize| pool.get((first + step) % pool.len());
        let free = (0..pool.len())
            .filter_map(turn)
            .find_map(|connection| connection.inner.try_lock().ok());
        match (free, turn(0)) {
            (Some(mut free), _) => read(&mut free),
            (None, Some(next)) => read(&mut next.lock()),
            (None, None) => Err(DbErr::Custom("a pool without connections".to_owned())),
        }
    }

    fn busy(&self) -> usize {
        let is_busy = |connection: &&Connection| connection.inner.try_lock().is_err();
        self.connections.iter().filter(is_busy).count()
    }
}

/// Whether a database file has been migrated by any version of ours. It only reads, so that a file of another program
/// stays as it is.
pub(in crate::store) fn is_ours(path: &Path) -> Result<bool, DbErr> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.table_exists(None, MIGRATIONS).map_err(failed)
}

/// Whether a connection may write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

/// One connection. Its statements take turns.
pub(in crate::store) struct Connection {
    inner: Mutex<Inner>,
}

/// A connection, and what it has learned of the statements that it keeps.
pub(super) struct Inner {
    connection: rusqlite::Connection,
    shapes: HashMap<String, Arc<Shape>>,
    kinds: Arc<Kinds>,
    counts: Arc<Counts>,
}

impl Connection {
    fn open(path: &Path, mode: Mode, kinds: &Arc<Kinds>, counts: &Arc<Counts>) -> Result<Self, DbErr> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // A plan does not depend on the values that are bound: otherwise a statement is prepared again whenever they change.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(failed)?;
        let set = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(failed);
        // With WAL, a commit is on disk before it is acknowledged, power cut included.
        set("synchronous", "FULL")?;
        set("foreign_keys", "ON")?;
        match mode {
            Mode::Read => set("query_only", "ON")?,
            // Each write has a savepoint, and the pages to undo it go to a temporary file otherwise: a fifth of all the
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
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

    /// The rows of a statement, for the proxy that migrations run over.
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

    /// Runs a statement, and hands `each` the rows until it has seen enough.
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
            // The statements of the program are fewer than this; what is written for one call is not kept.
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
