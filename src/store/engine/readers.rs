//! The read-only connections to SQLite.
//!
//! A statement runs on its caller's thread. With its page in memory a look-up takes some ten microseconds, less than
//! handing it to another thread would. Reads that may take longer, such as walks over history, run on connections of
//! their own and notify the runtime that they block ([`Readers::reading_long`]), so that they delay no other task. The
//! delivery engine has its own connections for both: however much the API reads, a claim waits for no request.

use std::sync::atomic::{AtomicUsize, Ordering};

use sea_orm::{DbErr, RuntimeErr};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
};

use super::{
    closed::Closed,
    side::Side,
    sqlite_connection::{Inner, SqliteConnection},
};

/// Connections for look-ups, and for reads that may take long. A look-up never waits for a long read.
const READERS: usize = 4;
const LONG_READERS: usize = 2;

/// The delivery engine's own: it reads in a few large statements.
const DELIVERY_READERS: usize = 2;
const DELIVERY_LONG_READERS: usize = 1;

/// The connections that each side reads with.
pub(in crate::store) struct Readers {
    api: SideReaders,
    delivery: SideReaders,
    closed: Closed,
}

impl Readers {
    /// Opens all of them with `open`.
    pub(super) fn open(open: impl Fn() -> Result<SqliteConnection, DbErr>, closed: Closed) -> Result<Self, DbErr> {
        Ok(Self {
            api: SideReaders::open(READERS, LONG_READERS, &open)?,
            delivery: SideReaders::open(DELIVERY_READERS, DELIVERY_LONG_READERS, &open)?,
            closed,
        })
    }

    /// Runs a look-up on the caller's thread.
    pub(super) fn reading<T>(&self, side: Side, read: impl FnOnce(&mut Inner) -> Result<T, DbErr>) -> Result<T, DbErr> {
        self.closed.refuse()?;
        self.of(side).short.run(read)
    }

    /// Runs a read that may take long: on the caller's thread, and the runtime is notified that it blocks.
    ///
    /// If all connections are in use, it waits as a task. A blocked thread per waiter would use up the threads that the
    /// runtime may have, and the runtime would stall.
    pub(super) async fn reading_long<T>(
        &self,
        side: Side,
        read: impl FnOnce(&mut Inner) -> Result<T, DbErr>,
    ) -> Result<T, DbErr> {
        let SideReaders { long, long_turns, .. } = self.of(side);
        let _turn = long_turns.acquire().await.map_err(closed)?;
        self.closed.refuse()?;
        let is_shared =
            Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        if is_shared {
            tokio::task::block_in_place(|| long.run(read))
        } else {
            long.run(read)
        }
    }

    /// The pools of readers: name, connections in use, connections.
    pub(in crate::store) fn pools(&self) -> [(&'static str, u32, u32); 4] {
        let of = |name, pool: &ReaderPool| (name, count(pool.busy()), count(pool.connections.len()));
        [
            of("read", &self.api.short),
            of("read_long", &self.api.long),
            of("delivery", &self.delivery.short),
            of("delivery_long", &self.delivery.long),
        ]
    }

    fn of(&self, side: Side) -> &SideReaders {
        match side {
            Side::Api => &self.api,
            Side::Delivery | Side::Heartbeat | Side::Publication => &self.delivery,
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

/// The connections that one side reads with.
struct SideReaders {
    short: ReaderPool,
    long: ReaderPool,
    /// One permit per connection of `long`.
    long_turns: Semaphore,
}

impl SideReaders {
    fn open(short: usize, long: usize, open: impl Fn() -> Result<SqliteConnection, DbErr>) -> Result<Self, DbErr> {
        let pool = |connections: usize| {
            Ok::<_, DbErr>(ReaderPool {
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

/// Interchangeable connections.
struct ReaderPool {
    connections: Vec<SqliteConnection>,
    next: AtomicUsize,
}

impl ReaderPool {
    fn run<T>(&self, read: impl FnOnce(&mut Inner) -> Result<T, DbErr>) -> Result<T, DbErr> {
        let pool = &self.connections;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |step: usize| pool.get((first + step) % pool.len());
        let free = (0..pool.len()).filter_map(turn).find_map(SqliteConnection::try_lock);
        match (free, turn(0)) {
            (Some(mut free), _) => read(&mut free),
            (None, Some(next)) => read(&mut next.lock()),
            (None, None) => Err(DbErr::Custom("a pool without connections".to_owned())),
        }
    }

    fn busy(&self) -> usize {
        let is_busy = |connection: &&SqliteConnection| connection.try_lock().is_none();
        self.connections.iter().filter(is_busy).count()
    }
}
