//! Group commit on PostgreSQL: concurrent writes of one kind share one statement, so that many of them cost one round
//! trip and one flush to disk. While one batch commits, the next gathers by itself; nobody waits for a timer.

use std::{future::Future, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::worker::Work;
use crate::{metrics::BatchSizes, store::StoreError};

/// How many writes may wait for the next transaction before callers wait in turn.
const WAITING_MAX: usize = 4096;

/// How many writes share one transaction at most.
const BATCH_MAX: usize = 256;

type Waiting<I, O> = (I, oneshot::Sender<Result<O, StoreError>>);

/// A way into one kind of write.
pub(in crate::store) struct Batcher<I, O> {
    waiting: mpsc::Sender<Waiting<I, O>>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self {
            waiting: self.waiting.clone(),
        }
    }
}

impl<I: Clone + Send + Sync + 'static, O: Send + 'static> Batcher<I, O> {
    /// Starts the task that runs `write` on each batch. It ends with the last clone of the batcher.
    ///
    /// `sizes` observes how many writes each transaction has. `write` takes a whole batch and returns one result per
    /// item, in order, after its commit.
    pub(in crate::store) fn spawn<F, R>(work: Work, sizes: BatchSizes, write: F) -> Self
    where
        F: Fn(Arc<[I]>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<O>, StoreError>> + Send,
    {
        let (waiting, mut arrivals) = mpsc::channel::<Waiting<I, O>>(WAITING_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            loop {
                let arrived = tokio::select! {
                    arrived = arrivals.recv_many(&mut batch, BATCH_MAX) => arrived,
                    () = work.fails_on_purpose() => 0,
                };
                if arrived == 0 {
                    break;
                }
                sizes.observe(batch.len());
                let (items, callers): (Vec<I>, Vec<_>) = batch.drain(..).unzip();
                run(&write, items.into(), callers).await;
            }
        });
        Self { waiting }
    }

    /// Hands in one write and waits until it is durable.
    pub(in crate::store) async fn submit(&self, item: I) -> Result<O, StoreError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || StoreError::Unavailable(sea_orm::DbErr::Custom("the writer has stopped".to_owned()));
        self.waiting.send((item, answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
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
            // A caller that has gone away is owed nothing; its write is durable all the same.
            for (caller, result) in callers.into_iter().zip(results) {
                drop(caller.send(Ok(result)));
            }
        }
        Err(error @ (StoreError::Unavailable(_) | StoreError::InDoubt(_))) => {
            for caller in callers {
                drop(caller.send(Err(error.clone())));
            }
        }
        // One poisonous write must not take its neighbours down: each is tried alone.
        Err(_) => {
            for (item, caller) in items.iter().zip(callers) {
                let alone = write(Arc::from([item.clone()])).await;
                let result = alone.and_then(|results| {
                    results
                        .into_iter()
                        .next()
                        .ok_or_else(|| StoreError::Corrupt("a write gave no result".to_owned()))
                });
                drop(caller.send(result));
            }
        }
    }
}
