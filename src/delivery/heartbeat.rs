//! The heartbeat of a node: it says that the node is alive, learns which others are, and takes over from those that have
//! died. Beside it, leases are renewed and released.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Engine, seat::Seat};
use crate::{
    domain::{id::NodeId, timestamp::Timestamp},
    store::{
        Database, StoreError,
        queue::{
            leases,
            nodes::{self, SILENCE_MAX},
        },
    },
};

/// How often the heart beats. With [`SILENCE_MAX`] it says how soon a dead node's work goes on: within five seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often leases that ended without a record are looked for, and how far that goes back before the last time: a
/// transaction that was under way then may have committed since.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const SWEEP_MARGIN: Duration = Duration::from_secs(15);

/// How long before a waiting lease would be too short for an attempt it is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(4);

/// How long a record takes at most while the database is well; the lease of one that takes longer is renewed.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);

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

/// Beats until `stop` says so.
pub async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let heart = engine.db.for_heartbeat();
    loop {
        if let Err(error) = beat_by(&engine, &heart).await {
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
    beat_by(engine, &engine.db.for_heartbeat()).await
}

async fn beat_by(engine: &Engine, heart: &Database) -> Result<(), StoreError> {
    let pulse = nodes::beat(heart, engine.pulse.may_judge(), engine.clock.now()).await?;
    engine.pulse.beat();
    let seat = seat(&pulse.nodes, heart.node(), engine.pulse.may_judge());
    engine.lanes().sit(seat);
    if pulse.released > 0 {
        tracing::warn!(
            deliveries = pulse.released,
            "a node has died; what it held is due again"
        );
        engine.hint();
    }
    engine.pump();
    Ok(())
}

/// This node's place among those that are alive. One that has just come sends nothing until every other one knows of it
/// or has fallen silent: till then they divide the caps without it.
fn seat(nodes: &[NodeId], own: NodeId, is_known: bool) -> Seat {
    let index = nodes.iter().position(|node| *node == own);
    match index {
        Some(index) if is_known || nodes.len() == 1 => Seat {
            index,
            nodes: nodes.len(),
        },
        _ => Seat { index: 0, nodes: 0 },
    }
}

/// Renews the leases of what waits in the lanes, and releases those of this node that ended without a record, until
/// `stop` says so. Apart from the heartbeat: however much that is, the node is alive.
pub async fn run_leases(engine: Engine, mut stop: watch::Receiver<bool>) {
    let mut swept = Timestamp::from_millis(0);
    loop {
        let renewed = renew(&engine).await;
        if let Err(error) = &renewed {
            tracing::warn!(%error, "leases could not be renewed");
        }
        let now = engine.clock.now();
        // What waits for its record is renewed first: its lease may have ended while the database was away.
        if renewed.is_ok() && now.since(swept) >= SWEEP_INTERVAL {
            match leases::release_ended(&engine.db, swept.minus(SWEEP_MARGIN), now).await {
                Ok(released) => {
                    swept = now;
                    if released > 0 {
                        tracing::warn!(
                            deliveries = released,
                            "leases ended without a record; they are due again"
                        );
                        engine.hint();
                    }
                }
                Err(error) => tracing::warn!(%error, "ended leases could not be released"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// Renews what waits and would end too soon for an attempt, and what has waited for its record.
pub async fn renew(engine: &Engine) -> Result<(), StoreError> {
    let (now, lease) = (engine.clock.now(), engine.options.lease());
    let ends_before = now.plus(engine.options.lease_needed() + RENEWED_BEFORE);
    let mut leases = engine.lanes().renewable(ends_before, now.plus(lease));
    let late = engine.clock.monotonic().checked_sub(RECORDED_WITHIN);
    leases.extend(
        late.map(|late| engine.records.waiting_since(late))
            .into_iter()
            .flatten(),
    );
    leases::renew(&engine.db, leases, now.plus(lease)).await
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
}
