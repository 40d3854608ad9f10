//! The loop that claims due deliveries and starts an attempt for each.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use uuid::Uuid;

use super::Engine;
use crate::{
    config::CLAIM_BATCH_MAX,
    domain::delivery::AttemptTrigger,
    store::{
        StoreError,
        queue::{self, ClaimLimits, Lease},
    },
};

/// How long the dispatcher waits after the database failed, before it asks again.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

/// Claims and attempts until `stop` says so; then finishes the attempts under way, which takes no longer than the
/// deadline of one, and returns.
pub async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(
        usize::try_from(engine.options.attempts_max).unwrap_or(usize::MAX),
    ));
    let mut attempts = JoinSet::new();
    let mut cursor = None;
    while !*stop.borrow() {
        // The attempts that have ended are taken off the set, so that it holds only those under way.
        while attempts.try_join_next().is_some() {}
        let pause = match dispatch(&engine, &places, &mut attempts, &mut cursor).await {
            Ok(true) => continue,
            Ok(false) => Duration::from_millis(engine.options.poll_interval_ms),
            Err(error) => {
                tracing::error!(%error, "due deliveries could not be claimed");
                UNAVAILABLE_PAUSE
            }
        };
        tokio::select! {
            () = engine.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
    tracing::info!(
        attempts = attempts.len(),
        "no more deliveries are claimed; finishing the attempts under way"
    );
    attempts.join_all().await;
}

/// Claims once and starts the attempts. True where it is worth asking again at once.
async fn dispatch(
    engine: &Engine,
    places: &Arc<Semaphore>,
    attempts: &mut JoinSet<()>,
    cursor: &mut Option<Uuid>,
) -> Result<bool, StoreError> {
    let free = places.available_permits() as u64;
    if free == 0 {
        // Every attempt that ends wakes the loop.
        return Ok(false);
    }
    let limits = ClaimLimits {
        batch_max: free.min(CLAIM_BATCH_MAX),
        per_webhook_max: engine.options.attempts_per_webhook_max,
        lease: engine.options.lease(),
    };
    let claim = queue::claim(&engine.db, *cursor, limits, engine.clock.now()).await?;
    *cursor = claim.cursor;
    for lease in claim.leases {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            break;
        };
        attempts.spawn(attempt(engine.clone(), lease, place));
    }
    Ok(claim.more)
}

async fn attempt(engine: Engine, lease: Lease, place: OwnedSemaphorePermit) {
    let delivery = lease.delivery_id;
    if let Err(error) = engine.attempt(lease, AttemptTrigger::Automatic).await {
        // The lease ends by itself, and the delivery is claimed again: nothing is lost.
        tracing::error!(%delivery, %error, "an attempt could not be carried through");
    }
    drop(place);
    engine.wake.notify_one();
}
