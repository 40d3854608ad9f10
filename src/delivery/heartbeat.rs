//! The heartbeat of a node: it says that the node is alive, renews the leases of attempts that take long, and takes
//! over from nodes that have died.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use uuid::Uuid;

use super::Engine;
use crate::store::{
    StoreError,
    nodes::{self, SILENCE_MAX},
    queue::{self, Lease},
};

/// How often the heart beats. With [`SILENCE_MAX`] it says how soon a dead node's work goes on: within five seconds.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is known of this node's own life.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    beats: Mutex<Option<Beats>>,
}

/// Beats without a gap.
#[derive(Clone, Copy, Debug)]
struct Beats {
    since: Instant,
    last: Instant,
}

impl Pulse {
    fn beats(&self) -> Option<Beats> {
        let beats = *self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.filter(|beats| beats.last.elapsed() < SILENCE_MAX)
    }

    fn beat(&self) {
        let last = Instant::now();
        let since = self.beats().map_or(last, |beats| beats.since);
        *self.beats.lock().unwrap_or_else(PoisonError::into_inner) = Some(Beats { since, last });
    }

    /// Whether the others know that this node is alive. One that slept too long, or could not reach the database, has
    /// been taken for dead: it claims nothing until it has said otherwise.
    pub(super) fn is_alive(&self) -> bool {
        self.beats().is_some()
    }

    /// Whether this node was awake, and the database there, for as long as the others may be silent. One that was not
    /// knows nothing of their silence.
    fn may_judge(&self) -> bool {
        self.beats().is_some_and(|beats| beats.since.elapsed() >= SILENCE_MAX)
    }
}

/// The token of a lease, and the delivery: of a delivery whose lease was lost there may be two attempts under way.
type FlightKey = (Uuid, Uuid);

/// The attempts under way on this node, and when their leases were last renewed.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<FlightKey, (Lease, Instant)>>>);

/// An attempt under way, until this is dropped.
pub(super) struct Flight {
    flights: Flights,
    key: FlightKey,
}

impl Flights {
    /// Notes that the attempt of `lease` begins.
    pub(super) fn begin(&self, lease: &Lease) -> Flight {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (lease.token, lease.delivery_id);
        flights.insert(key, (lease.clone(), Instant::now()));
        Flight {
            flights: self.clone(),
            key,
        }
    }

    /// Those whose leases were last renewed this long ago; they count as renewed now.
    fn renewable(&self, after: Duration) -> Vec<Lease> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = flights.values_mut().filter(|(_, renewed)| renewed.elapsed() >= after);
        due.map(|(lease, renewed)| {
            *renewed = Instant::now();
            lease.clone()
        })
        .collect()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

/// Beats until `stop` says so.
pub async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    loop {
        if let Err(error) = beat(&engine).await {
            tracing::warn!(%error, "the node could not say that it is alive");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// One beat.
pub async fn beat(engine: &Engine) -> Result<(), StoreError> {
    nodes::beat(&engine.db).await?;
    engine.pulse.beat();
    let (now, lease) = (engine.clock.now(), engine.options.lease());
    for flight in engine.flights.renewable(lease / 2) {
        queue::renew(&engine.db, &flight, now.plus(lease)).await?;
    }
    if engine.pulse.may_judge() {
        let deliveries = nodes::take_over(&engine.db, now).await?;
        if deliveries > 0 {
            tracing::warn!(deliveries, "a node has died; what it held is due again");
            engine.wake.notify_one();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_silent_too_long_knows_nothing_of_the_others() {
        let pulse = Pulse::default();
        assert!(!pulse.is_alive() && !pulse.may_judge());
        pulse.beat();
        assert!(pulse.is_alive() && !pulse.may_judge());
        let long_ago = |beats: &mut Option<Beats>, by: Duration| {
            let beats = beats.as_mut().unwrap();
            beats.since = beats.since.checked_sub(by).unwrap();
        };
        long_ago(&mut pulse.beats.lock().unwrap(), SILENCE_MAX);
        assert!(pulse.may_judge(), "it has been there all along");
        let mut beats = pulse.beats.lock().unwrap();
        beats.as_mut().unwrap().last = beats.unwrap().last.checked_sub(SILENCE_MAX).unwrap();
        drop(beats);
        assert!(!pulse.is_alive() && !pulse.may_judge());
        pulse.beat();
        assert!(pulse.is_alive() && !pulse.may_judge(), "it begins anew");
    }

    #[test]
    fn only_attempts_that_take_long_are_renewed_and_no_more_once_they_end() {
        let flights = Flights::default();
        let lease = Lease {
            organization_id: Uuid::nil(),
            delivery_id: Uuid::max(),
            webhook_id: Uuid::nil(),
            token: Uuid::nil(),
            number: 1,
        };
        let flight = flights.begin(&lease);
        assert!(flights.renewable(Duration::from_mins(1)).is_empty());
        assert_eq!(flights.renewable(Duration::ZERO).len(), 1);
        drop(flight);
        assert!(flights.renewable(Duration::ZERO).is_empty());
    }
}
