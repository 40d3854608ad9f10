//! SQLite in this process: sea-orm's `ConnectionTrait` on rusqlite.
//!
//! A statement runs on the thread that asks for it. With its page in memory a look-up takes some ten microseconds, less
//! than handing it to another thread would. What may take longer, a walk over history, runs on connections of its own
//! and tells the runtime that it blocks ([`Sqlite::reading_long`]), so that it delays no other task. The delivery engine
//! has connections of its own for both: however much the API reads, a claim waits for no request.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::{CachedStatement, OpenFlags, Row, config::DbConfig, types::ValueRef};
use sea_orm::{DbErr, ExecResult, ProxyExecResult, ProxyRow, QueryResult, RuntimeErr, Statement, Value, prelude::Uuid};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
};

use super::{postgres::Side, writer::Writer};

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

/// Result codes of a lock, a full or failing disk, and a file that went away: the same call may succeed later
/// (<https://www.sqlite.org/rescode.html>): busy, locked, no memory, read-only, interrupted, I/O error, full, cannot open.
const PASSING: [i32; 8] = [5, 6, 7, 8, 9, 10, 13, 14];

/// What a column holds. SQLite itself knows integers, texts and blobs only, and sea-orm asks for more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Bool,
    Int,
    BigInt,
    Text,
    Bytes,
    Uuid,
}

/// What the columns of each table hold.
pub(in crate::store) type Kinds = HashMap<String, HashMap<String, Kind>>;

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
    /// Opens the database file, which is created if it does not exist.
    pub(in crate::store) fn open(path: &Path, kinds: Kinds) -> Result<Self, DbErr> {
        let (kinds, counts) = (Arc::new(kinds), Arc::new(Counts::default()));
        let open = |mode| Connection::open(path, mode, &kinds, &counts);
        // The writer first: it creates the file and switches it to WAL.
        let writer = Writer::spawn(open(Mode::Write)?)?;
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

/// What a statement takes and gives.
struct Shape {
    /// Which value each parameter is, from zero. `$3` is the third, wherever it stands; SQLite itself takes it for a name.
    parameters: Vec<usize>,
    columns: Vec<Column>,
}

/// A column of a result; of an expression nothing is known.
struct Column {
    name: String,
    kind: Option<Kind>,
}

impl Connection {
    fn open(path: &Path, mode: Mode, kinds: &Arc<Kinds>, counts: &Arc<Counts>) -> Result<Self, DbErr> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        // A plan does not depend on the values that are bound: otherwise a statement is prepared again whenever they change.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(failed)?;
        let set = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(failed);
        set("journal_mode", "WAL")?;
        // With WAL, a commit is on disk before it is acknowledged, power cut included.
        set("synchronous", "FULL")?;
        set("foreign_keys", "ON")?;
        if mode == Mode::Read {
            set("query_only", "ON")?;
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

/// The parameters of a statement, and the columns of its result. Their kind is that of the table's column that they come
/// from.
fn shape_of(statement: &CachedStatement<'_>, kinds: &Kinds) -> Shape {
    let parameter = |index: usize| {
        let name = statement.parameter_name(index).and_then(|name| name.strip_prefix('$'));
        name.and_then(|number| number.parse().ok())
            .unwrap_or(index)
            .saturating_sub(1)
    };
    let parameters = (1..=statement.parameter_count()).map(parameter).collect();
    let columns = statement.columns_with_metadata();
    let columns = columns.iter().map(|column| {
        let origin = column.table_name().zip(column.origin_name());
        Column {
            name: column.name().to_owned(),
            kind: origin.and_then(|(table, name)| kinds.get(table)?.get(name).copied()),
        }
    });
    Shape {
        parameters,
        columns: columns.collect(),
    }
}

fn bind(statement: &mut CachedStatement<'_>, index: usize, value: &Value) -> Result<(), DbErr> {
    let bound = match value {
        Value::Bool(value) => statement.raw_bind_parameter(index, value),
        Value::TinyInt(value) => statement.raw_bind_parameter(index, value),
        Value::SmallInt(value) => statement.raw_bind_parameter(index, value),
        Value::Int(value) => statement.raw_bind_parameter(index, value),
        Value::BigInt(value) => statement.raw_bind_parameter(index, value),
        Value::TinyUnsigned(value) => statement.raw_bind_parameter(index, value),
        Value::SmallUnsigned(value) => statement.raw_bind_parameter(index, value),
        Value::Unsigned(value) => statement.raw_bind_parameter(index, value),
        Value::BigUnsigned(value) => {
            let value = value.map(i64::try_from).transpose();
            let value = value.map_err(|_| DbErr::Type("a number is too large for SQLite".to_owned()))?;
            statement.raw_bind_parameter(index, value)
        }
        Value::Float(value) => statement.raw_bind_parameter(index, value.map(f64::from)),
        Value::Double(value) => statement.raw_bind_parameter(index, value),
        Value::String(value) => statement.raw_bind_parameter(index, value.as_deref()),
        Value::Bytes(value) => statement.raw_bind_parameter(index, value.as_deref()),
        Value::Uuid(value) => statement.raw_bind_parameter(index, value.as_ref().map(|id| id.as_bytes().as_slice())),
        other => return Err(DbErr::Type(format!("SQLite takes no {other:?}"))),
    };
    bound.map_err(failed)
}

fn proxy_row(row: &Row<'_>, columns: &[Column]) -> Result<ProxyRow, DbErr> {
    let mut values = BTreeMap::new();
    for (index, column) in columns.iter().enumerate() {
        let stored = row.get_ref(index).map_err(failed)?;
        let wrong = || DbErr::Type(format!("column {} holds {:?}", column.name, stored.data_type()));
        let value = value_of(stored, column.kind).ok_or_else(wrong)?;
        values.insert(column.name.clone(), value);
    }
    Ok(ProxyRow::new(values))
}

/// A stored value as sea-orm's type of that kind; as it is stored where nothing is known of the column.
fn value_of(stored: ValueRef<'_>, kind: Option<Kind>) -> Option<Value> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(match (kind, stored) {
        (Some(Kind::Bool), ValueRef::Null) => Value::Bool(None),
        (Some(Kind::Bool), ValueRef::Integer(value)) => Value::Bool(Some(value != 0)),
        (Some(Kind::Int), ValueRef::Null) => Value::Int(None),
        (Some(Kind::Int), ValueRef::Integer(value)) => Value::Int(Some(i32::try_from(value).ok()?)),
        (Some(Kind::BigInt) | None, ValueRef::Null) => Value::BigInt(None),
        (Some(Kind::BigInt) | None, ValueRef::Integer(value)) => Value::BigInt(Some(value)),
        (Some(Kind::Text), ValueRef::Null) => Value::String(None),
        (Some(Kind::Text) | None, ValueRef::Text(bytes)) => Value::String(Some(text(bytes)?)),
        (Some(Kind::Bytes), ValueRef::Null) => Value::Bytes(None),
        (Some(Kind::Bytes) | None, ValueRef::Blob(bytes)) => Value::Bytes(Some(bytes.to_vec())),
        (Some(Kind::Uuid), ValueRef::Null) => Value::Uuid(None),
        (Some(Kind::Uuid), ValueRef::Blob(bytes)) => Value::Uuid(Some(Uuid::from_slice(bytes).ok()?)),
        (None, ValueRef::Real(value)) => Value::Double(Some(value)),
        (Some(_), _) => return None,
    })
}

/// A failure of SQLite. A passing one is told as a failure of the connection.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
pub(super) fn failed(error: rusqlite::Error) -> DbErr {
    let passing = error
        .sqlite_error()
        .is_some_and(|cause| PASSING.contains(&(cause.extended_code & 0xff)));
    let text = RuntimeErr::Internal(error.to_string());
    if passing { DbErr::Conn(text) } else { DbErr::Exec(text) }
}
