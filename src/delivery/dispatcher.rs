//! The loop that claims due deliveries and starts an attempt for each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

use super::Engine;
use crate::{
    config::CLAIM_BATCH_MAX,
    domain::delivery::AttemptTrigger,
    store::{
        StoreError,
        claim::{self, ClaimLimits},
        queue::Lease,
    },
};

/// How long the dispatcher waits after the database failed, before it asks again.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

/// The shortest time from one claim to the next. Attempts that end within it are replaced by one claim, not by one
/// each: a claim is a transaction, and a busy webhook would otherwise cost the others more of them than its deliveries.
const CLAIM_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// Claims and attempts until `stop` says so; then finishes the attempts under way, which takes no longer than the
/// deadline of one, and returns.
pub async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let attempts_max = usize::try_from(engine.options.attempts_max).unwrap_or(usize::MAX);
    let places = Arc::new(Semaphore::new(attempts_max));
    let mut attempts = JoinSet::new();
    let mut cursor = None;
    let mut next_claim = Instant::now();
    while !*stop.borrow() {
        // The attempts that have ended are taken off the set, so that it holds only those under way.
        while attempts.try_join_next().is_some() {}
        tokio::time::sleep_until(next_claim).await;
        next_claim = Instant::now() + CLAIM_INTERVAL_MIN;
        let pause = match dispatch(&engine, &places, &mut attempts, &mut cursor, &stop).await {
            Ok(true) => continue,
            Ok(false) => poll_pause(engine.options.poll_interval_ms),
            Err(error) => {
                tracing::error!(%error, "due deliveries could not be claimed");
                UNAVAILABLE_PAUSE
            }
        };
        tokio::select! {
            () = engine.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    tracing::info!(
        attempts = attempts_max - places.available_permits(),
        "no more deliveries are claimed; finishing the attempts under way"
    );
    attempts.join_all().await;
}

/// How long to wait when nothing is due: the interval, a quarter less or more, so that the nodes of one database do not
/// all ask in the same moment.
fn poll_pause(interval_ms: u64) -> Duration {
    Duration::from_millis(interval_ms).mul_f64(rand::rng().random_range(0.75..1.25))
}

/// Claims once and starts the attempts. True where it is worth asking again at once.
async fn dispatch(
    engine: &Engine,
    places: &Arc<Semaphore>,
    attempts: &mut JoinSet<()>,
    cursor: &mut Option<Uuid>,
    stop: &watch::Receiver<bool>,
) -> Result<bool, StoreError> {
    let free = places.available_permits() as u64;
    // Every attempt that ends wakes the loop; a node that others take for dead waits for its next heartbeat.
    if free == 0 || !engine.pulse.is_alive() {
        return Ok(false);
    }
    let limits = ClaimLimits {
        batch_max: free.min(CLAIM_BATCH_MAX),
        per_webhook_max: engine.options.attempts_per_webhook_max,
        lease: engine.options.lease(),
    };
    let claim = claim::claim(&engine.db, *cursor, limits, engine.clock.now()).await?;
    *cursor = claim.cursor;
    if *stop.borrow() {
        // The stop came while these were claimed: another node, or the next start, need not wait for their leases.
        engine.give_back(&claim.leases).await;
        return Ok(false);
    }
    let count = u32::try_from(claim.leases.len()).unwrap_or(u32::MAX);
    // Only this loop takes places, and it claims no more than there were.
    if count > 0
        && let Ok(taken) = Arc::clone(places).try_acquire_many_owned(count)
    {
        attempts.spawn(attempt_all(engine.clone(), claim.leases, taken));
    }
    Ok(claim.more)
}

/// Makes the attempts of what one claim gave. A lease whose attempt is not made ends by itself, and the delivery is
/// claimed again: nothing is lost.
async fn attempt_all(engine: Engine, leases: Vec<Lease>, mut places: OwnedSemaphorePermit) {
    let begun = leases
        .iter()
        .map(|lease| (lease.delivery_id, engine.flights.begin(lease)));
    let mut under_way: HashMap<_, _> = begun.collect();
    let prepared = match engine.prepare(leases.clone(), AttemptTrigger::Automatic).await {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::error!(%error, "claimed deliveries could not be read");
            return engine.give_back(&leases).await;
        }
    };
    let mut attempts = JoinSet::new();
    for (lease, prepared) in prepared {
        let held = (places.split(1), under_way.remove(&lease.delivery_id));
        let engine = engine.clone();
        attempts.spawn(async move {
            let (organization, webhook, delivery) = (lease.organization_id, lease.webhook_id, lease.delivery_id);
            let attempted = match prepared {
                Ok(prepared) => engine.carry_out(lease, AttemptTrigger::Automatic, prepared).await,
                Err(error) => Err(error),
            };
            if let Err(error) = attempted {
                tracing::error!(%organization, %webhook, %delivery, %error, "an attempt could not be carried through");
            }
            drop(held);
            engine.wake.notify_one();
        });
    }
    drop((places, under_way));
    while let Some(ended) = attempts.join_next().await {
        if let Err(cause) = ended {
            tracing::error!(%cause, "an attempt panicked");
        }
    }
}
