//! What a node knows about its own liveness.

use std::{
    sync::{Mutex, PoisonError, atomic::AtomicBool},
    time::Instant,
};

use crate::store::queue::nodes::SILENCE_MAX;

/// What is known about this node's own liveness.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    beats: Mutex<Option<Beats>>,
    /// Whether the wall clock was found wrong, so that it is logged once.
    pub(super) is_skewed: AtomicBool,
    /// Whether the clock was set back, so that stored times may lie too far ahead.
    pub(super) was_set_back: AtomicBool,
}

/// Heartbeats without a gap.
#[derive(Clone, Copy, Debug)]
struct Beats {
    since: Instant,
    last: Instant,
}

impl Liveness {
    fn beats(&self) -> Option<Beats> {
        let beats = *self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.filter(|beats| beats.last.elapsed() < SILENCE_MAX)
    }

    /// The node has reported that it is alive.
    pub(super) fn beat(&self) {
        let last = Instant::now();
        let since = self.beats().map_or(last, |beats| beats.since);
        *self.beats.lock().unwrap_or_else(PoisonError::into_inner) = Some(Beats { since, last });
    }

    /// Starts counting again: a node whose clock has jumped knows nothing about the others' silence.
    pub(super) fn restart(&self) {
        *self.beats.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the others know that this node is alive. One that slept too long, or could not reach the database, has
    /// been considered dead: it claims nothing until it has reported again.
    pub(super) fn is_alive(&self) -> bool {
        self.beats().is_some()
    }

    /// Whether this node was awake, and the database available, for as long as the others may be silent. Otherwise it
    /// knows nothing about their silence.
    pub(super) fn may_take_over(&self) -> bool {
        self.beats().is_some_and(|beats| beats.since.elapsed() >= SILENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_that_was_silent_too_long_knows_nothing_about_the_others() {
        let liveness = Liveness::default();
        assert!(!liveness.is_alive() && !liveness.may_take_over());
        liveness.beat();
        assert!(liveness.is_alive() && !liveness.may_take_over());
        let long_ago = |beats: &mut Option<Beats>, by: Duration| {
            let beats = beats.as_mut().unwrap();
            beats.since = beats.since.checked_sub(by).unwrap();
        };
        long_ago(&mut liveness.beats.lock().unwrap(), SILENCE_MAX);
        assert!(liveness.may_take_over(), "it has been there all along");
        let mut beats = liveness.beats.lock().unwrap();
        beats.as_mut().unwrap().last = beats.unwrap().last.checked_sub(SILENCE_MAX).unwrap();
        drop(beats);
        assert!(!liveness.is_alive() && !liveness.may_take_over());
        liveness.beat();
        assert!(liveness.is_alive() && !liveness.may_take_over(), "it starts again");
    }
}
