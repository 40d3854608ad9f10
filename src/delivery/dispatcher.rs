//! The loop that claims due deliveries and fills the lanes: retries, backlog, what a dead node left behind, webhooks
//! with a rate limit or an open breaker. Published events go to their lanes directly.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use rand::RngExt as _;
use tokio::{sync::watch, time::Instant};

use super::Engine;
use crate::{
    domain::{fairness::Turns, id::WebhookId, timestamp::Timestamp},
    store::{
        StoreError,
        queue::{
            claim::{self, Ready, Wanted},
            lease::Grant,
        },
    },
};

/// How long the dispatcher waits after the database failed before it tries again.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

/// The shortest interval between two walks over the queue.
const WALK_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// The longest wait for the next walk while something is due that the lanes have no room for.
const NO_ROOM_INTERVAL: Duration = Duration::from_millis(250);

/// The most deliveries in one claim.
const CLAIM_MAX: usize = 1000;

/// The fewest deliveries of one webhook that a claim takes as long as that many are due: a claim costs a step per webhook.
const SLICE_MIN: usize = 10;

/// Claims until `stop` is set; then finishes the attempts in progress and returns.
pub async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let mut dispatcher = Dispatcher {
        engine: engine.clone(),
        cursor: None,
        has_claimed: false,
        next_at: None,
        is_ready: false,
        next_walk: Instant::now(),
        last_walk: Instant::now(),
    };
    while !*stop.borrow() {
        let pause = match dispatcher.round().await {
            Ok(pause) => pause,
            Err(error) => {
                if error.is_temporary() {
                    tracing::warn!(exception.message = %error, "due deliveries could not be claimed; retrying soon");
                } else {
                    tracing::error!(exception.message = %error, "due deliveries could not be claimed");
                }
                UNAVAILABLE_PAUSE
            }
        };
        tokio::select! {
            () = engine.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    engine.finish().await;
}

/// The longest wait when nothing is due: the interval, give or take up to a quarter, so that the nodes of one database
/// do not all query at the same time.
fn poll_pause(interval_ms: u64) -> Duration {
    Duration::from_millis(interval_ms).mul_f64(rand::rng().random_range(0.75..1.25))
}

/// The state of the claims.
struct Dispatcher {
    engine: Engine,
    /// The walk continues after this webhook, so that each gets its turn.
    cursor: Option<WebhookId>,
    /// Whether something was claimed since the walk last began with the first webhook.
    has_claimed: bool,
    /// When the first delivery that is not due yet will be, as far as is known since the walk last began.
    next_at: Option<Timestamp>,
    /// Whether something was due since then.
    is_ready: bool,
    /// When to look for webhooks with something due, unless a hint comes earlier.
    next_walk: Instant,
    /// When that was last done. Hints in quick succession count as one.
    last_walk: Instant,
}

impl Dispatcher {
    /// Claims once. Returns how long the next round may wait.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        let poll = poll_pause(self.engine.options.poll_interval_ms);
        // A node that others may consider dead waits for its next heartbeat, and one with wrong keys for the right
        // ones.
        if !self.engine.may_work() {
            return Ok(poll);
        }
        self.refill().await?;
        let (now, is_due) = (Instant::now(), self.engine.is_due.load(Ordering::SeqCst));
        let next_walk = if is_due {
            self.last_walk + WALK_INTERVAL_MIN
        } else {
            self.next_walk
        };
        if now < next_walk {
            return Ok(next_walk - now);
        }
        self.engine.is_due.store(false, Ordering::SeqCst);
        self.last_walk = now;
        let walked = self.walk(poll).await;
        if walked.is_err() {
            self.engine.is_due.store(true, Ordering::SeqCst);
        }
        let pause = walked?;
        self.next_walk = Instant::now() + pause;
        Ok(pause)
    }

    /// Refills the lanes that run low although more is due, without looking for others.
    async fn refill(&self) -> Result<(), StoreError> {
        let low = self.engine.lanes().low();
        let wanted = low.into_iter().map(|(organization_id, webhook_id)| Ready {
            organization_id,
            webhook_id,
            grant: Grant::Plain,
        });
        self.claim(wanted.collect()).await.map(drop)
    }

    /// Finds webhooks with something due, and claims from them. Returns how long to wait before the next walk: until
    /// something known is due, but at most `poll`, since other nodes may have queued something.
    async fn walk(&mut self, poll: Duration) -> Result<Duration, StoreError> {
        let engine = &self.engine;
        let now = engine.clock.now();
        let walk = claim::ready(&engine.db, self.cursor, now).await?;
        self.cursor = walk.cursor;
        self.next_at = self.next_at.into_iter().chain(walk.next_at).min();
        self.is_ready |= !walk.ready.is_empty();
        self.has_claimed |= self.claim(walk.ready).await? > 0;
        if self.cursor.is_some() {
            return Ok(WALK_INTERVAL_MIN);
        }
        // It has gone all the way round. If it found nothing to claim, it waits.
        let (next_at, is_ready) = (self.next_at.take(), std::mem::take(&mut self.is_ready));
        if std::mem::take(&mut self.has_claimed) {
            return Ok(WALK_INTERVAL_MIN);
        }
        let rest = next_at.map_or(poll, |next_at| next_at.since(now).min(poll));
        let rest = if is_ready { rest.min(NO_ROOM_INTERVAL) } else { rest };
        Ok(rest.max(WALK_INTERVAL_MIN))
    }

    /// What to claim from these webhooks: what the lanes have room for, organization by organization in turn, and not so
    /// much of one webhook that the others have to wait for the next claim.
    fn wanted(&self, ready: Vec<Ready>) -> Vec<Wanted> {
        let engine = &self.engine;
        let slice = (CLAIM_MAX / ready.len().max(1)).max(SLICE_MIN);
        let mut taken = 0;
        let mut wanted = Vec::new();
        let mut turns = Turns::default();
        for ready in ready {
            turns.push(ready.organization_id, ready);
        }
        let mut lanes = engine.lanes();
        for ready in turns.take(usize::MAX) {
            let room = match ready.grant {
                Grant::Probe => usize::from(lanes.may_probe(ready.webhook_id)),
                Grant::Plain if lanes.is_well_filled(ready.webhook_id) => 0,
                _ => lanes.room(ready.organization_id, ready.webhook_id),
            };
            let spare = lanes
                .room_for(ready.organization_id)
                .min(CLAIM_MAX)
                .saturating_sub(taken);
            let room = room.min(slice).min(spare);
            taken += room;
            if room > 0 {
                wanted.push(Wanted { ready, room });
            } else if ready.grant == Grant::Plain {
                lanes.set_behind(ready.organization_id, ready.webhook_id, true);
            }
        }
        wanted
    }

    /// Claims from these webhooks. Returns how many deliveries it claimed.
    async fn claim(&self, ready: Vec<Ready>) -> Result<usize, StoreError> {
        let engine = &self.engine;
        let wanted = self.wanted(ready);
        if wanted.is_empty() {
            return Ok(0);
        }
        let at = engine.clock.monotonic();
        let claimed = claim::claim(&engine.db, wanted.clone(), engine.options.lease(), engine.clock.now()).await?;
        let count = claimed.len();
        let mut taken = HashMap::<WebhookId, usize>::new();
        for leased in &claimed {
            *taken.entry(leased.lease.webhook_id).or_default() += 1;
        }
        {
            let mut lanes = engine.lanes();
            for Wanted { ready, room } in wanted.iter().filter(|wanted| wanted.ready.grant == Grant::Plain) {
                let taken = taken.get(&ready.webhook_id).copied().unwrap_or_default();
                lanes.set_behind(ready.organization_id, ready.webhook_id, taken >= *room);
            }
        }
        engine.offer(claimed, at);
        Ok(count)
    }
}
