//! A node's heartbeat: it reports that the node is alive, reads which others are, and takes over from dead ones.
//! Alongside it, leases are renewed and released.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::sync::watch;

use super::{Engine, cap_share::CapShare};
use crate::{
    domain::{id::NodeId, timestamp::Timestamp},
    store::{
        Database, StoreError,
        queue::{
            leases,
            nodes::{self, CLOCK_MOVED_MAX},
        },
        upkeep::clamp,
    },
};

/// The interval of the heartbeat. With [`nodes::SILENCE_MAX`] it determines how soon a dead node's work continues:
/// within five seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often leases that ended without a record are searched for, and how far each search goes back before the previous
/// one: a transaction that was in progress then may have committed since.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const SWEEP_MARGIN: Duration = Duration::from_secs(15);

/// A waiting lease is renewed this long before it would be too short for an attempt.
const RENEWED_BEFORE: Duration = Duration::from_secs(4);

/// The longest that recording takes while the database is healthy; leases of slower records are renewed.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);

/// Beats until `stop` is set.
pub async fn run(engine: Engine, mut stop: watch::Receiver<bool>) {
    let heart = engine.db.for_heartbeat();
    loop {
        if let Err(error) = beat_by(&engine, &heart).await {
            tracing::warn!(exception.message = %error, "the heartbeat failed");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// One heartbeat.
pub async fn beat(engine: &Engine) -> Result<(), StoreError> {
    beat_by(engine, &engine.db.for_heartbeat()).await
}

async fn beat_by(engine: &Engine, heart: &Database) -> Result<(), StoreError> {
    if engine.db.key_fault().is_some() {
        // It sends nothing, so it must not have a share of what may be sent.
        nodes::leave(heart).await?;
        nodes::follow_clock(heart).await?;
        heart.confirm();
        engine.liveness.restart();
        engine.pump();
        return Ok(());
    }
    let heartbeat = nodes::beat(heart, engine.liveness.may_take_over()).await?;
    heart.confirm();
    check_clock(engine, heartbeat.clock_moved_ms);
    engine.liveness.beat();
    let cap_share = cap_share(&heartbeat.nodes, heart.node(), engine.liveness.may_take_over());
    engine.lanes().set_cap_share(cap_share);
    engine.metrics.set_nodes(heartbeat.nodes.len());
    if heartbeat.released > 0 {
        engine.metrics.took_over();
        tracing::warn!(
            kallima.deliveries = heartbeat.released,
            "a node has died; its leases were released"
        );
        engine.hint();
    }
    engine.pump();
    Ok(())
}

/// Logs when the database's clock jumps, and when this machine's is wrong or right again.
fn check_clock(engine: &Engine, moved_ms: i64) {
    let is_far = |millis: i64| u128::from(millis.unsigned_abs()) > CLOCK_MOVED_MAX.as_millis();
    let liveness = &engine.liveness;
    if is_far(moved_ms) {
        tracing::warn!(
            kallima.clock.moved_ms = moved_ms,
            "the database's clock has jumped; this node follows it"
        );
        liveness.restart();
        liveness.was_set_back.fetch_or(moved_ms < 0, Ordering::SeqCst);
    }
    let skew_ms = engine.clock.skew_ms();
    let is_skewed = is_far(skew_ms);
    if liveness.is_skewed.swap(is_skewed, Ordering::SeqCst) == is_skewed {
        return;
    }
    if !is_skewed {
        tracing::info!(kallima.clock.skew_ms = skew_ms, "this machine's clock is right again");
    } else if engine.clock.follows() {
        tracing::warn!(
            kallima.clock.skew_ms = skew_ms,
            "this machine's clock and the database's differ; the database's counts: correct the machine's (NTP)"
        );
    } else {
        tracing::warn!(
            kallima.clock.skew_ms = skew_ms,
            "this machine's clock has jumped; the server continues by the time since its start: restart it once the clock \
             is right"
        );
    }
}

/// This node's share among the nodes that are alive. A new one sends nothing until every other node knows about it or
/// has fallen silent: until then they divide the caps without it.
fn cap_share(nodes: &[NodeId], own: NodeId, is_known: bool) -> CapShare {
    let index = nodes.iter().position(|node| *node == own);
    match index {
        Some(index) if is_known || nodes.len() == 1 => CapShare {
            index,
            nodes: nodes.len(),
        },
        _ => CapShare { index: 0, nodes: 0 },
    }
}

/// Releases what could not be released before, renews the leases of what waits in the lanes, and releases those of this
/// node that ended without a record, until `stop` is set. Separate from the heartbeat: however much work that is, the
/// node is alive.
pub async fn run_leases(engine: Engine, mut stop: watch::Receiver<bool>) {
    let mut sweep = Sweep::default();
    loop {
        if let Err(error) = maintain_leases(&engine, &mut sweep).await {
            tracing::warn!(exception.message = %error, "leases could not be renewed or released");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// How far ended leases have been searched for.
#[derive(Clone, Copy, Debug, Default)]
struct Sweep {
    /// Up to which time, by the clock.
    until: Option<Timestamp>,
    /// When, by the monotonic clock.
    at: Option<Duration>,
}

/// One round. A failure skips the rest: a lease that could not be released or renewed must not be treated as one whose
/// attempt may have been made.
async fn maintain_leases(engine: &Engine, sweep: &mut Sweep) -> Result<(), StoreError> {
    engine.release_unreleased().await?;
    if engine.db.key_fault().is_some() {
        // This node can do nothing with what waits. Another one may.
        let waiting = engine.lanes().drain();
        engine.release(waiting, Duration::ZERO).await;
    }
    renew(engine).await?;
    let (now, monotonic) = (engine.clock.now(), engine.clock.monotonic());
    if engine.liveness.was_set_back.load(Ordering::SeqCst) {
        clamp::clamp(&engine.db, engine.options.bounds(), now).await?;
        engine.liveness.was_set_back.store(false, Ordering::SeqCst);
        *sweep = Sweep::default();
    }
    if sweep.at.is_some_and(|at| monotonic.saturating_sub(at) < SWEEP_INTERVAL) {
        return Ok(());
    }
    let since = sweep
        .until
        .map_or(Timestamp::from_millis(0), |until| until.minus(SWEEP_MARGIN));
    let released = leases::release_ended(&engine.db, since, now).await?;
    *sweep = Sweep {
        until: Some(now),
        at: Some(monotonic),
    };
    if released > 0 {
        engine.metrics.leases_lost(released);
        tracing::warn!(
            kallima.deliveries = released,
            "leases ended without a record; they are due again"
        );
        engine.hint();
    }
    Ok(())
}

/// Renews the leases that would end too soon for an attempt, and those that have waited for their record.
pub async fn renew(engine: &Engine) -> Result<(), StoreError> {
    let (now, lease) = (engine.clock.now(), engine.options.lease());
    let ends_before = now.plus(engine.options.lease_needed() + RENEWED_BEFORE);
    let mut leases = engine.lanes().renewable(ends_before);
    let late = engine.clock.monotonic().checked_sub(RECORDED_WITHIN);
    leases.extend(
        late.map(|late| engine.records.waiting_since(late))
            .into_iter()
            .flatten(),
    );
    if leases.is_empty() {
        return Ok(());
    }
    let until = now.plus(lease);
    let held = leases::renew(&engine.db, leases, until).await?;
    engine.lanes().renewed(&held, until);
    Ok(())
}
