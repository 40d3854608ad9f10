//! Group commit on PostgreSQL: concurrent writes of one kind share one statement, so that many of them cost one round
//! trip and one disk flush. While one batch commits, the next one fills up; nobody waits for a timer. If more are
//! waiting than one batch takes, organizations take turns.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use tokio::sync::{mpsc, oneshot};

use super::worker::WorkerGuard;
use crate::{
    domain::{fairness::Turns, id::OrganizationId},
    metrics::BatchSizes,
    store::StoreError,
};

/// How many writes may wait for the next transaction before callers are held back.
const WAITING_MAX: usize = 4096;

/// The most writes that share one transaction. More would hardly make it faster, and every later write waits for all of
/// it.
const BATCH_MAX: usize = 64;

type PendingItem<I, O> = (I, oneshot::Sender<Result<O, StoreError>>);

/// The entry point for one kind of write.
pub(in crate::store) struct Batcher<I, O> {
    waiting: mpsc::Sender<PendingItem<I, O>>,
    sizes: Arc<OnceLock<BatchSizes>>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self {
            waiting: self.waiting.clone(),
            sizes: Arc::clone(&self.sizes),
        }
    }
}

impl<I: Clone + Send + Sync + 'static, O: Send + 'static> Batcher<I, O> {
    /// Starts the task that runs `write` on each batch. It ends when the last clone of the batcher is dropped.
    ///
    /// `organization` returns whose turn a write takes. `write` takes a whole batch and returns one result per item, in
    /// order, after its commit.
    pub(in crate::store) fn spawn<F, R>(work: WorkerGuard, organization: fn(&I) -> OrganizationId, write: F) -> Self
    where
        F: Fn(Arc<[I]>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<O>, StoreError>> + Send,
    {
        let (waiting, mut arrivals) = mpsc::channel::<PendingItem<I, O>>(WAITING_MAX);
        let sizes = Arc::new(OnceLock::<BatchSizes>::new());
        let observed = Arc::clone(&sizes);
        tokio::spawn(async move {
            let mut turns = Turns::default();
            loop {
                if turns.is_empty() {
                    let first = tokio::select! {
                        first = arrivals.recv() => first,
                        () = work.fails_on_purpose() => None,
                    };
                    let Some(first) = first else { break };
                    turns.push(organization(&first.0), first);
                }
                while turns.len() < WAITING_MAX
                    && let Ok(next) = arrivals.try_recv()
                {
                    turns.push(organization(&next.0), next);
                }
                let (items, callers): (Vec<I>, Vec<_>) = turns.take(BATCH_MAX).unzip();
                if let Some(sizes) = observed.get() {
                    sizes.observe(items.len());
                }
                run(&write, items.into(), callers).await;
            }
        });
        Self { waiting, sizes }
    }

    /// Sets where the sizes of batches are observed from now on.
    pub(in crate::store) fn observe(&self, sizes: BatchSizes) {
        drop(self.sizes.set(sizes));
    }

    /// Submits one write and waits until it is durable.
    pub(in crate::store) async fn submit(&self, item: I) -> Result<O, StoreError> {
        let (caller, reply) = oneshot::channel();
        let stopped = || StoreError::Unavailable(sea_orm::DbErr::Custom("the writer has stopped".to_owned()));
        self.waiting.send((item, caller)).await.map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())?
    }
}

async fn run<I, O, F, R>(write: &F, items: Arc<[I]>, callers: Vec<oneshot::Sender<Result<O, StoreError>>>)
where
    I: Clone + Send + Sync + 'static,
    F: Fn(Arc<[I]>) -> R,
    R: Future<Output = Result<Vec<O>, StoreError>>,
{
    match write(Arc::clone(&items)).await {
        Ok(results) => {
            // A caller that has gone away needs no result; its write is durable all the same.
            for (caller, result) in callers.into_iter().zip(results) {
                drop(caller.send(Ok(result)));
            }
        }
        Err(error @ (StoreError::Unavailable(_) | StoreError::InDoubt(_))) => {
            for caller in callers {
                drop(caller.send(Err(error.clone())));
            }
        }
        // One poisonous write must not fail its neighbors: each is retried alone.
        Err(_) => {
            for (item, caller) in items.iter().zip(callers) {
                let alone = write(Arc::from([item.clone()])).await;
                let result = alone.and_then(|results| {
                    results
                        .into_iter()
                        .next()
                        .ok_or_else(|| StoreError::Corrupt("a write returned no result".to_owned()))
                });
                drop(caller.send(result));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn another_organizations_write_is_in_the_next_batch() {
        let (ran, go) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (seen, going) = (Arc::clone(&ran), Arc::clone(&go));
        let write = move |batch: Arc<[OrganizationId]>| {
            let going = Arc::clone(&going);
            seen.lock().unwrap().push(batch.to_vec());
            async move {
                going
                    .acquire()
                    .await
                    .map_err(|_| StoreError::Corrupt("closed".to_owned()))?
                    .forget();
                Ok(vec![(); batch.len()])
            }
        };
        let batcher = Batcher::spawn(
            crate::store::engine::worker::Workers::default().begin("test"),
            |item: &OrganizationId| *item,
            write,
        );
        let [busy, other] = [1, 2].map(|number| OrganizationId::new(Uuid::from_u128(number)));
        let submit = |item| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(item).await })
        };
        let mut writes = vec![submit(busy)];
        while ran.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        // All of these wait for the first batch.
        writes.extend((0..3 * BATCH_MAX).map(|_| submit(busy)));
        writes.push(submit(other));
        while batcher.waiting.capacity() > WAITING_MAX - (writes.len() - 1) {
            tokio::task::yield_now().await;
        }
        go.add_permits(10);
        for write in writes {
            write.await.unwrap().unwrap();
        }
        let ran = ran.lock().unwrap();
        assert_eq!(ran[1].len(), BATCH_MAX);
        assert_eq!(ran[1][..3], [busy, other, busy]);
    }
}
