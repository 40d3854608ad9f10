//! Group commit on SQLite: one thread runs every write.
//!
//! Writes that arrive while a transaction commits wait for the next one and share it: one disk flush for all of them,
//! and nobody waits for a timer. Each has a savepoint of its own, so that one failure does not affect its neighbors. A
//! caller gets its result after the commit, never before.
//!
//! If more are waiting than one transaction takes, organizations take turns: however many writes one organization has
//! waiting, a write of another is in the next transaction.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::{mpsc, oneshot};

use super::{
    batch_time::BatchTime, closed::Closed, connection::Connection, sqlite_connection::SqliteConnection,
    worker::WorkerGuard,
};
use crate::{
    domain::{fairness::Turns, id::OrganizationId},
    metrics::{BatchSizes, StatementTimes},
    store::StoreError,
};

/// How many writes may wait for the next transaction before callers are held back.
const WAITING_MAX: usize = 4096;

/// The most writes that share one transaction.
const BATCH_MAX: usize = 512;

/// A future that can be sent between threads.
pub(in crate::store) type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One write, until its caller gets its result.
trait Write: Send {
    /// When it was submitted.
    fn arrived_at(&self) -> Instant;
    /// Runs the write in the open transaction. Returns false if it failed and must be undone.
    fn run(&mut self, connection: &SqliteConnection) -> bool;
    /// Sends the caller its result; `lost` is why the transaction was not committed.
    fn reply(self: Box<Self>, lost: Option<&StoreError>);
}

struct PendingWrite<F, T, E> {
    arrived_at: Instant,
    work: Option<F>,
    result: Option<Result<T, E>>,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Write for PendingWrite<F, T, E>
where
    F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn arrived_at(&self) -> Instant {
        self.arrived_at
    }

    fn run(&mut self, connection: &SqliteConnection) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = catch_unwind(AssertUnwindSafe(|| at_once(work, connection)));
        let panicked = |_| Err(StoreError::Corrupt("a write panicked".to_owned()).into());
        let result = result.unwrap_or_else(panicked);
        let done = result.is_ok();
        self.result = Some(result);
        done
    }

    fn reply(self: Box<Self>, lost: Option<&StoreError>) {
        let result = match (self.result, lost) {
            // A write that failed itself reports its own error.
            (Some(Err(error)), _) => Err(error),
            (_, Some(cause)) => Err(cause.clone().into()),
            (Some(done), None) => done,
            (None, None) => Err(stopped().into()),
        };
        // A caller that has gone away needs no result; its write is durable all the same.
        drop(self.caller.send(result));
    }
}

/// Runs a write to completion. On SQLite every statement is done when it is first polled, so a single poll is enough.
fn at_once<F, T, E>(work: F, connection: &SqliteConnection) -> Result<T, E>
where
    F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>>,
    E: From<StoreError>,
{
    let connection = Connection::SqliteTransaction(connection);
    let mut writing = pin!(work(&connection));
    match writing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => {
            Err(StoreError::Corrupt("a write waits for something other than its database".to_owned()).into())
        }
    }
}

/// What is sent to the thread.
enum Arrival {
    /// A write, and who it belongs to: an organization, or the engine itself.
    Write(Option<OrganizationId>, Box<dyn Write>),
    /// A caller that waits until everything submitted before is done.
    Last(oneshot::Sender<()>),
}

/// What is waiting in the thread.
#[derive(Default)]
struct Waiters {
    turns: Turns<Option<OrganizationId>, Box<dyn Write>>,
    last: Vec<oneshot::Sender<()>>,
}

impl Waiters {
    fn push(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Write(party, write) => self.turns.push(party, write),
            Arrival::Last(caller) => self.last.push(caller),
        }
    }

    /// Takes everything that has arrived, and blocks only if there is nothing to do. Returns false if nothing more will
    /// come.
    fn gather(&mut self, arrivals: &mut mpsc::Receiver<Arrival>) -> bool {
        while self.turns.is_empty() {
            // Dropping them is the notification.
            self.last.clear();
            let Some(first) = arrivals.blocking_recv() else {
                return false;
            };
            self.push(first);
        }
        while self.turns.len() < WAITING_MAX
            && let Ok(next) = arrivals.try_recv()
        {
            self.push(next);
        }
        true
    }
}

/// Observes how many writes share a transaction, how long they waited for it, and how long it took.
struct Observed {
    sizes: BatchSizes,
    times: StatementTimes,
}

/// The handle of the writer thread. The thread ends with it.
pub(in crate::store) struct Writer {
    arrivals: mpsc::Sender<Arrival>,
    observed: Arc<OnceLock<Observed>>,
    closed: Closed,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn spawn(work: WorkerGuard, connection: SqliteConnection, closed: Closed) -> Result<Self, DbErr> {
        let (handed_in, mut arrivals) = mpsc::channel::<Arrival>(WAITING_MAX);
        let observed = Arc::new(OnceLock::<Observed>::new());
        let metrics = Arc::clone(&observed);
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                let (mut waiters, mut batch_time) = (Waiters::default(), BatchTime::default());
                while waiters.gather(&mut arrivals) {
                    work.fail_on_purpose();
                    let metrics = metrics.get();
                    let organizations = waiters.turns.owners().copied().flatten();
                    let time_max = batch_time.next(organizations, Instant::now());
                    let ran = run(
                        &connection,
                        waiters.turns.take(BATCH_MAX),
                        time_max,
                        metrics.map(|metrics| &metrics.times),
                    );
                    if let Some(Observed { sizes, .. }) = metrics {
                        sizes.observe(ran);
                    }
                }
            });
        thread.map_err(|cause| DbErr::Conn(RuntimeErr::Internal(format!("no thread for SQLite: {cause}"))))?;
        Ok(Self {
            arrivals: handed_in,
            observed,
            closed,
        })
    }

    /// Sets where transactions are observed from now on: how many writes share one, and how long that takes.
    pub(in crate::store) fn observe(&self, sizes: BatchSizes, times: StatementTimes) {
        drop(self.observed.set(Observed { sizes, times }));
    }

    /// Refuses further writes, and waits for the submitted ones.
    pub(super) async fn close(&self) {
        let (caller, reply) = oneshot::channel();
        if self.arrivals.send(Arrival::Last(caller)).await.is_ok() {
            drop(reply.await);
        }
        self.closed.set();
    }

    /// Submits a write, and waits until it is durable. `party` is the organization whose turn it takes; the engine has
    /// turns of its own.
    pub(in crate::store) async fn submit<F, T, E>(&self, party: Option<OrganizationId>, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.closed.refuse().map_err(StoreError::from)?;
        let (caller, reply) = oneshot::channel();
        let write = PendingWrite {
            arrived_at: Instant::now(),
            work: Some(work),
            result: None,
            caller,
        };
        self.arrivals
            .send(Arrival::Write(party, Box::new(write)))
            .await
            .map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())?
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable(DbErr::Conn(RuntimeErr::Internal("the writer has stopped".to_owned())))
}

/// Runs writes in one transaction, for at most `time_max`, and sends their callers the results. Returns how many
/// there were.
fn run(
    connection: &SqliteConnection,
    writes: impl Iterator<Item = Box<dyn Write>>,
    time_max: Duration,
    times: Option<&StatementTimes>,
) -> usize {
    let mut ran: Vec<Box<dyn Write>> = Vec::new();
    let started_at = Instant::now();
    let mut begun = connection.control("BEGIN IMMEDIATE").map_err(StoreError::from);
    let since = Instant::now();
    for mut write in writes {
        if begun.is_ok() {
            begun = run_one(connection, write.as_mut());
        }
        ran.push(write);
        // If the transaction cannot even begin, all of them get the error at once.
        if begun.is_ok() && since.elapsed() >= time_max {
            break;
        }
    }
    let committed = begun.and_then(|()| connection.control("COMMIT").map_err(StoreError::from));
    if committed.is_err() && !connection.is_idle() {
        // Whatever it returns, the next BEGIN shows whether it worked.
        drop(connection.control("ROLLBACK"));
    }
    let lost = committed.err().map(|error| match error {
        // Every failure to begin or to commit is one of the database, not of a statement.
        StoreError::Refused(cause) => StoreError::Unavailable(cause),
        other => other,
    });
    if let Some(times) = times {
        times.took(started_at.elapsed());
        for write in &ran {
            times.waited(started_at.saturating_duration_since(write.arrived_at()));
        }
    }
    let count = ran.len();
    for write in ran {
        write.reply(lost.as_ref());
    }
    count
}

/// Runs one write in its savepoint. An error ends the whole transaction.
fn run_one(connection: &SqliteConnection, write: &mut dyn Write) -> Result<(), StoreError> {
    connection.control("SAVEPOINT one")?;
    if write.run(connection) {
        return Ok(connection.control("RELEASE one")?);
    }
    if connection.is_idle() {
        // SQLite has rolled back everything: the disk or memory is full.
        return Err(StoreError::Unavailable(DbErr::Conn(RuntimeErr::Internal(
            "the transaction was rolled back by another write's failure".to_owned(),
        ))));
    }
    connection.control("ROLLBACK TO one")?;
    Ok(connection.control("RELEASE one")?)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use sea_orm::{ConnectionTrait as _, Statement};
    use tokio::task::JoinHandle;
    use uuid::Uuid;

    use super::*;
    use crate::store::{
        engine::{rows::Kinds, side::Side, sqlite::Sqlite, worker::Workers},
        source::Creation,
    };

    fn database() -> (tempfile::TempDir, Arc<Sqlite>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        std::fs::File::create(&path).unwrap();
        let sqlite = Sqlite::open(&path, Kinds::new(), Creation::Allowed, &Workers::default()).unwrap();
        let connection = sqlite.connect().unwrap();
        connection
            .execute_script("CREATE TABLE t (n INTEGER NOT NULL UNIQUE) STRICT")
            .unwrap();
        (folder, Arc::new(sqlite))
    }

    async fn insert(sqlite: &Sqlite, number: i64, then: Result<(), StoreError>) -> Result<(), StoreError> {
        let write = sqlite.writer.submit(None, move |tx| {
            Box::pin(async move {
                let insert = Statement::from_sql_and_values(
                    tx.get_database_backend(),
                    "INSERT INTO t (n) VALUES ($1)",
                    [number.into()],
                );
                tx.execute_raw(insert).await?;
                then
            })
        });
        write.await
    }

    async fn numbers(sqlite: &Sqlite) -> Vec<i64> {
        let all = Statement::from_string(sea_orm::DbBackend::Sqlite, "SELECT n FROM t ORDER BY n");
        let rows = Connection::SqliteRead(&sqlite.readers, Side::Api)
            .query_all_raw(all)
            .await
            .unwrap();
        rows.iter().map(|row| row.try_get("", "n").unwrap()).collect()
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_its_neighbors_as_they_are() {
        let (_folder, sqlite) = database();
        let refused = Err(StoreError::Corrupt("no".to_owned()));
        let (first, second, third, twice) = tokio::join!(
            insert(&sqlite, 1, Ok(())),
            insert(&sqlite, 2, refused),
            insert(&sqlite, 3, Ok(())),
            insert(&sqlite, 1, Ok(())),
        );
        assert!(first.is_ok() && third.is_ok());
        assert!(matches!(second, Err(StoreError::Corrupt(_))));
        assert!(matches!(twice, Err(StoreError::Refused(_))), "{twice:?}");
        assert_eq!(numbers(&sqlite).await, [1, 3]);
    }

    /// A write that records whose it was when it ran.
    fn noted(
        sqlite: &Arc<Sqlite>,
        party: Option<OrganizationId>,
        ran: &Arc<Mutex<Vec<Option<OrganizationId>>>>,
    ) -> JoinHandle<Result<(), StoreError>> {
        let (sqlite, ran) = (Arc::clone(sqlite), Arc::clone(ran));
        tokio::spawn(async move {
            let write = sqlite.writer.submit(party, move |_| {
                ran.lock().unwrap().push(party);
                Box::pin(async { Ok::<_, StoreError>(()) })
            });
            write.await
        })
    }

    #[tokio::test]
    async fn another_organizations_write_is_next_but_one() {
        let (_folder, sqlite) = database();
        let [busy, other] = [1, 2].map(|number| Some(OrganizationId::new(Uuid::from_u128(number))));
        // Blocks the thread until all the others wait.
        let (go, going) = std::sync::mpsc::channel::<()>();
        let (running, is_running) = oneshot::channel();
        let first = sqlite.writer.submit(None, move |_| {
            running.send(()).unwrap();
            assert!(going.recv().is_err(), "nothing is ever said");
            Box::pin(async { Ok::<_, StoreError>(()) })
        });
        let ran = Arc::default();
        let others = async {
            is_running.await.unwrap();
            let mut writes = Vec::new();
            for _ in 0..2 * BATCH_MAX {
                writes.push(noted(&sqlite, busy, &ran));
            }
            writes.push(noted(&sqlite, other, &ran));
            while sqlite.writer.arrivals.capacity() > WAITING_MAX - writes.len() {
                tokio::task::yield_now().await;
            }
            drop(go);
            // Closing waits for all of them.
            sqlite.writer.close().await;
            assert_eq!(ran.lock().unwrap().len(), writes.len());
            for write in writes {
                write.await.unwrap().unwrap();
            }
        };
        let (first, ()) = tokio::join!(first, others);
        first.unwrap();
        assert_eq!(ran.lock().unwrap()[..3], [busy, other, busy]);
    }

    #[tokio::test]
    async fn a_write_that_panics_is_undone_and_the_next_one_runs() {
        let (_folder, sqlite) = database();
        let panics = sqlite.writer.submit(None, |tx| {
            Box::pin(async move {
                tx.execute_unprepared("INSERT INTO t (n) VALUES (7)").await?;
                if tx.get_database_backend() == sea_orm::DbBackend::Sqlite {
                    std::panic::panic_any("on purpose");
                }
                Ok::<_, StoreError>(())
            })
        });
        assert!(matches!(panics.await, Err(StoreError::Corrupt(_))));
        insert(&sqlite, 1, Ok(())).await.unwrap();
        assert_eq!(numbers(&sqlite).await, [1]);
    }

    #[tokio::test]
    async fn a_lock_that_another_process_holds_fails_all_of_a_batch_as_unavailable() {
        let (_folder, sqlite) = database();
        let other = sqlite.connect().unwrap();
        other.control("BEGIN IMMEDIATE").unwrap();
        let waiting = insert(&sqlite, 1, Ok(())).await;
        assert!(matches!(waiting, Err(StoreError::Unavailable(_))), "{waiting:?}");
        other.control("ROLLBACK").unwrap();
        insert(&sqlite, 1, Ok(())).await.unwrap();
        assert_eq!(numbers(&sqlite).await, [1]);
    }

    /// More than the runtime has threads: a task that waits for a connection must not block one.
    const LONG_READS: usize = 600;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn long_reads_of_the_api_hold_up_neither_the_engine_nor_the_runtime() {
        let (_folder, sqlite) = database();
        let (begun, mut is_begun) = tokio::sync::mpsc::unbounded_channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..LONG_READS {
            let (sqlite, begun, held) = (Arc::clone(&sqlite), begun.clone(), Arc::clone(&held));
            reads.spawn(async move {
                let read = sqlite.readers.reading_long(Side::Api, |_| {
                    begun.send(()).unwrap();
                    // Ends when the other end is dropped.
                    Ok(held.lock().unwrap().recv().is_err())
                });
                read.await
            });
        }
        is_begun.recv().await.unwrap();
        // Only a running task makes the engine's reads.
        let engine = Arc::clone(&sqlite);
        let reads_of_engine = tokio::spawn(async move {
            engine.readers.reading(Side::Delivery, |_| Ok(())).unwrap();
            engine.readers.reading_long(Side::Delivery, |_| Ok(true)).await.unwrap()
        });
        assert!(reads_of_engine.await.unwrap());
        drop(release);
        let ended = reads.join_all().await;
        assert!(
            ended.into_iter().all(|read| read.unwrap()),
            "each read was held until then"
        );
    }
}
