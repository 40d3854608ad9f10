//! An open database, with its two entry points `read` and `write`. It knows no table.

use std::sync::{Arc, OnceLock};

use sea_orm::{ConnectionTrait as _, DbBackend, ExecResult, Statement};
use tokio::sync::Notify;

use super::{
    StoreError,
    engine::{Connection, DatabaseEngine, batch::Batcher, postgres, side::Side, worker::Workers, writer::BoxFuture},
    once::{Once, Publish},
    queue::lease::{Finished, HandOver},
    readiness::Confirmed,
    secrets::keys::Keys,
    token_cache::TokenCache,
};
use crate::{
    clock::Clock,
    domain::{
        event::Recorded,
        id::{NodeId, OrganizationId},
        webhook::{Changed, Webhook, WebhookChange},
    },
    metrics::Metrics,
};

/// An open database. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    pub(super) engine: DatabaseEngine,
    /// Whose connections it uses.
    pub(super) side: Side,
    /// The keys that seal and open signing secrets.
    pub(super) keys: Arc<Keys>,
    /// This process, as the holder of leases.
    pub(super) node: NodeId,
    pub(super) clock: Clock,
    /// Cache of recently used tokens.
    pub(super) token_cache: Arc<TokenCache>,
    /// Receives deliveries that are leased when they are published; unset unless a server runs.
    pub(super) hand_over: Arc<OnceLock<Arc<dyn HandOver>>>,
    /// Notified when a webhook is deleted on this node.
    pub(super) deleted: Arc<Notify>,
    /// Entry points to shared statements; only on PostgreSQL, since on SQLite every write shares its transaction.
    pub(super) shared: Option<Arc<SharedWrites>>,
    pub(super) confirmed: Arc<Confirmed>,
    /// The engine's background tasks.
    pub(super) workers: Workers,
}

/// Writes that share a statement with others of their kind.
pub(super) struct SharedWrites {
    pub(super) publications: Batcher<Publish, Once<Recorded>>,
    pub(super) records: Batcher<Finished, bool>,
    pub(super) changes: Batcher<WebhookChange, Changed<Webhook>>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Database")
            .field("engine", &self.backend())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// The same database through the delivery engine's own connections.
    #[must_use]
    pub fn for_delivery(&self) -> Self {
        self.on(Side::Delivery)
    }

    /// The same database through the heartbeat's own connection.
    #[must_use]
    pub fn for_heartbeat(&self) -> Self {
        self.on(Side::Heartbeat)
    }

    /// The same database through the connection of publications.
    #[must_use]
    pub(super) fn for_publication(&self) -> Self {
        self.on(Side::Publication)
    }

    fn on(&self, side: Side) -> Self {
        Self { side, ..self.clone() }
    }

    /// Sets the receiver of deliveries that are leased when they are published. Called once, when a server starts.
    pub fn hand_over_to(&self, lanes: Arc<dyn HandOver>) {
        drop(self.hand_over.set(lanes));
    }

    /// How many attempts are in progress on this node, and how many deliveries wait for one; `None` if no server runs.
    #[must_use]
    pub fn load(&self) -> Option<(usize, usize)> {
        Some(self.hand_over.get()?.load())
    }

    /// The names of the store's background tasks.
    #[must_use]
    pub fn workers(&self) -> Vec<&'static str> {
        self.workers.names()
    }

    /// Waits until one of the store's own tasks ends, without which it is useless: returns its name, and whether it
    /// panicked.
    pub async fn worker_ended(&self) -> (&'static str, bool) {
        self.workers.ended().await
    }

    /// Sets where batches and statements are observed from now on. Called once, when a server starts.
    pub fn observe(&self, metrics: &Metrics) {
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => {
                let (sizes, times) = (metrics.batch_sizes("write"), metrics.statement_times("write"));
                sqlite.writer.observe(sizes, times);
            }
            DatabaseEngine::Postgres(postgres) => postgres.observe(metrics),
        }
        if let Some(shared) = &self.shared {
            shared.publications.observe(metrics.batch_sizes("publish"));
            shared.records.observe(metrics.batch_sizes("finish"));
            shared.changes.observe(metrics.batch_sizes("change"));
        }
    }

    /// This process, as the holder of leases.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// For look-ups: on SQLite they run at once, on the caller's thread.
    pub(super) fn read(&self) -> Connection<'_> {
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => Connection::SqliteRead(&sqlite.readers, self.side),
            DatabaseEngine::Postgres(postgres) => Connection::Postgres(postgres.side(self.side)),
        }
    }

    /// The same for reads that may take long, such as walks over history: on SQLite they use connections of their own,
    /// and the runtime knows that the thread is blocked.
    pub(super) fn read_long(&self) -> Connection<'_> {
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => Connection::SqliteLongRead(&sqlite.readers, self.side),
            DatabaseEngine::Postgres(postgres) => Connection::Postgres(postgres.side(self.side)),
        }
    }

    /// Runs a write in one transaction, committed if `work` succeeds. When this returns, it is durable.
    ///
    /// On SQLite all writes that arrive together share one commit; `work` must not wait for anything but its
    /// statements.
    pub(super) async fn write<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_in_turn(None, work).await
    }

    /// The same on behalf of an organization: it waits for the organization's turn, so that however many writes one
    /// organization has waiting, those of another do not wait for them.
    pub(super) async fn write_for<F, T, E>(&self, organization: OrganizationId, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_in_turn(Some(organization), work).await
    }

    async fn write_in_turn<F, T, E>(&self, party: Option<OrganizationId>, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a Connection<'a>) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => sqlite.writer.submit(party, work).await,
            DatabaseEngine::Postgres(postgres) => postgres::write(postgres.side(self.side), work).await,
        }
    }

    /// A write that is a single statement: on PostgreSQL one round trip.
    pub(super) async fn write_one(&self, statement: Statement) -> Result<ExecResult, StoreError> {
        match &self.engine {
            DatabaseEngine::Sqlite(sqlite) => {
                let work = sqlite.writer.submit(None, |tx| {
                    Box::pin(async move { tx.execute_raw(statement).await.map_err(StoreError::from) })
                });
                work.await
            }
            DatabaseEngine::Postgres(postgres) => {
                let executed = Box::pin(postgres.side(self.side).execute(statement)).await;
                executed.map_err(StoreError::of_commit)
            }
        }
    }

    /// Which engine it is. Only for the few functions whose SQL dialects differ.
    pub(super) fn backend(&self) -> DbBackend {
        match &self.engine {
            DatabaseEngine::Sqlite(_) => DbBackend::Sqlite,
            DatabaseEngine::Postgres(_) => DbBackend::Postgres,
        }
    }

    /// Whether other processes may hold leases and run requests. An SQLite database has one server.
    pub(super) fn has_other_nodes(&self) -> bool {
        matches!(self.engine, DatabaseEngine::Postgres(_))
    }
}
