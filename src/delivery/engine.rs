//! The engine: the state that all of this module shares, and the pump that turns waiting deliveries into attempts.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    lanes::{LaneLimits, Lanes, Load, Now, Start, Step},
    liveness::Liveness,
    records::Records,
    sender::Sender,
};
use crate::{
    clock::Clock,
    config::EngineOptions,
    domain::{
        delivery::{AttemptTrigger, DisabledReason},
        id::{OrganizationId, WebhookId},
        retry::RetryPolicy,
        timestamp::Timestamp,
    },
    metrics::Metrics,
    store::{
        Database, StoreError,
        queue::{
            lease::{HandOver, Lease, Leased, Room, WebhookState},
            leases, work,
        },
    },
    telemetry::{LogAttempts, spans::Spans},
};

/// The delivery engine's shared state. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) db: Database,
    pub(super) clock: Clock,
    pub(super) options: EngineOptions,
    pub(super) liveness: Arc<Liveness>,
    pub(super) sender: Sender,
    pub(super) policy: Arc<RetryPolicy>,
    pub(super) spans: Spans,
    pub(super) log_attempts: LogAttempts,
    pub(super) metrics: Metrics,
    /// Wakes the dispatcher: something is due, or a lane runs low.
    pub(super) wake: Arc<Notify>,
    /// Whether something is due that is not in any lane.
    pub(super) is_due: Arc<AtomicBool>,
    /// Attempts that have ended and wait to be recorded.
    pub(super) records: Arc<Records>,
    lanes: Arc<Mutex<Lanes>>,
    is_stopping: Arc<AtomicBool>,
    /// Leases of attempts that were not made and could not be released yet, with the times at which they are due.
    left: Arc<Mutex<Vec<(Lease, Timestamp)>>>,
    /// Notified when an attempt has been recorded.
    quiet: Arc<Notify>,
}

/// How long a delivery waits whose attempt could not be sent: because descriptors, ports or memory ran out, or because
/// what it needs could not be read.
pub(super) const NOT_SENT_PAUSE: Duration = Duration::from_secs(1);

/// How long a delivery waits if this node cannot read its webhook although its keys are right: the row is damaged.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

impl Engine {
    /// An engine on this database.
    #[must_use]
    pub fn new(db: &Database, clock: Clock, options: EngineOptions, sender: Sender) -> Self {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let limits = LaneLimits {
            attempts_max: count(options.attempts_max.into()),
            per_webhook_max: count(options.attempts_per_webhook_max),
            lease_needed: options.lease_needed(),
        };
        Self {
            db: db.for_delivery(),
            clock,
            policy: Arc::new(options.retry_policy()),
            options,
            liveness: Arc::default(),
            sender,
            spans: Spans::default(),
            log_attempts: LogAttempts::default(),
            metrics: Metrics::default(),
            wake: Arc::default(),
            is_due: Arc::new(AtomicBool::new(true)),
            records: Arc::default(),
            lanes: Arc::new(Mutex::new(Lanes::new(limits))),
            is_stopping: Arc::default(),
            left: Arc::default(),
            quiet: Arc::default(),
        }
    }

    /// The same, with its attempts traced, logged and counted as given here.
    #[must_use]
    pub fn observed(self, spans: Spans, log_attempts: LogAttempts, metrics: Metrics) -> Self {
        Self {
            spans,
            log_attempts,
            metrics,
            ..self
        }
    }

    pub(super) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current contents of the lanes.
    #[must_use]
    pub fn load(&self) -> Load {
        self.lanes().load()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Reports that something is due that nobody has claimed.
    pub fn hint(&self) {
        self.is_due.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Starts whatever may start now, and triggers what the rest is waiting for. Called after everything that may let
    /// an attempt start; it never blocks.
    pub(super) fn pump(&self) {
        let may_start = self.may_work();
        loop {
            let now = Now {
                monotonic: self.clock.monotonic(),
                time: self.clock.now(),
            };
            let step = self.lanes().next(now, may_start);
            match step {
                None => return,
                Some(Step::Start(start)) => self.spawn(start),
                Some(Step::ReadWebhooks(webhooks)) => drop(tokio::spawn(self.clone().read_webhooks(webhooks))),
                Some(Step::Release(leases)) => drop(tokio::spawn({
                    let engine = self.clone();
                    async move { engine.release(leases, Duration::ZERO).await }
                })),
                Some(Step::Postpone(leases)) => drop(tokio::spawn({
                    let engine = self.clone();
                    async move { engine.postpone(leases).await }
                })),
            }
        }
    }

    /// Whether this node may claim and send: the others know that it is alive, and its master keys open the secrets.
    pub(super) fn may_work(&self) -> bool {
        self.liveness.is_alive() && self.db.key_fault().is_none()
    }

    /// Releases leases whose webhooks this node cannot read. If its keys are the reason, another node may have them at
    /// once: this one claims nothing until its keys are right.
    async fn postpone(&self, leases: Vec<Lease>) {
        let pause = if self.db.key_fault().is_some() {
            Duration::ZERO
        } else {
            UNREADABLE_PAUSE
        };
        self.release(leases, pause).await;
    }

    fn spawn(&self, start: Start) {
        let flight = Flight {
            engine: self.clone(),
            lease: start.leased.lease.clone(),
            has_ended: false,
        };
        let engine = self.clone();
        tokio::spawn(async move { engine.carry_out(start, AttemptTrigger::Automatic, Some(flight)).await });
    }

    async fn read_webhooks(self, webhooks: Vec<(OrganizationId, WebhookId)>) {
        let at = self.clock.monotonic();
        match work::read_webhooks(&self.db, &webhooks).await {
            Ok(states) => self.lanes().webhooks_read(states, at),
            Err(error) => {
                tracing::warn!(exception.message = %error, "webhooks with waiting deliveries could not be read; retrying soon");
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.lanes().read_failed(&webhooks);
            }
        }
        self.pump();
    }

    /// Releases the leases of attempts that are not made; the deliveries are due after a pause. While the database is
    /// unavailable they are kept, and released once it is back: until then the attempts still count.
    pub(super) async fn release(&self, leases: Vec<Lease>, pause: Duration) {
        let due_at = self.clock.now().plus(pause);
        if let Err(error) = leases::release(&self.db, leases.clone(), due_at).await {
            tracing::warn!(exception.message = %error, kallima.leases = leases.len(), "leases could not be released yet");
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.extend(leases.into_iter().map(|lease| (lease, due_at)));
        }
    }

    /// Releases what could not be released before.
    pub(super) async fn release_unreleased(&self) -> Result<(), StoreError> {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(due_at) = left.iter().map(|(_, due_at)| *due_at).max() else {
            return Ok(());
        };
        let leases = left.iter().map(|(lease, _)| lease.clone()).collect();
        let released = leases::release(&self.db, leases, due_at).await;
        if released.is_err() {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
        } else {
            self.hint();
        }
        released
    }

    /// Puts claimed deliveries in the lanes; their webhooks must be read at `at` or later.
    pub(super) fn offer(&self, claimed: Vec<Leased>, at: Duration) {
        if claimed.is_empty() {
            return;
        }
        self.lanes().offer(claimed, Vec::new(), at);
        self.pump();
    }

    /// Stops taking deliveries, releases the waiting ones, and returns when every attempt in progress is recorded. That
    /// takes no longer than an attempt's deadline, plus its record.
    pub(super) async fn finish(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        let waiting = self.lanes().drain();
        tracing::info!(
            kallima.deliveries.waiting = waiting.len(),
            kallima.attempts.running = self.load().unrecorded,
            "no more deliveries are claimed; finishing the attempts in progress"
        );
        self.release(waiting, Duration::ZERO).await;
        loop {
            let quiet = self.quiet.notified();
            if self.load().unrecorded == 0 {
                return;
            }
            quiet.await;
        }
    }
}

impl HandOver for Engine {
    fn room(&self, organizations: &[OrganizationId]) -> Option<Room> {
        if self.is_stopping() || !self.may_work() {
            return None;
        }
        Some(Room {
            full: self.lanes().full(organizations)?,
            lease: self.options.lease(),
        })
    }

    fn take(&self, leased: Vec<Leased>, states: Vec<(WebhookId, WebhookState)>, read_at: Duration) {
        if self.is_stopping() {
            let unwanted = leased.into_iter().map(|one| one.lease).collect();
            let engine = self.clone();
            tokio::spawn(async move { engine.release(unwanted, Duration::ZERO).await });
            return;
        }
        self.lanes().offer(leased, states, read_at);
        self.pump();
    }

    fn not_made(&self, leases: Vec<Lease>) {
        let engine = self.clone();
        tokio::spawn(async move { engine.release(leases, NOT_SENT_PAUSE).await });
    }

    fn due(&self) {
        self.hint();
    }

    fn load(&self) -> (usize, usize) {
        let load = self.lanes().load();
        (load.running, load.waiting)
    }

    fn changed(&self, webhook: WebhookId) {
        self.lanes().forget(webhook);
        self.hint();
    }

    fn disabled(&self, reason: DisabledReason) {
        self.metrics.webhook_disabled(reason);
    }

    fn emptied(&self) {
        let mut lanes = self.lanes();
        // Their leases are gone with the queue: there is nothing to give back.
        drop(lanes.drain());
        lanes.forget_all();
    }
}

/// An attempt in progress. However it ends, its permit is released.
pub(super) struct Flight {
    engine: Engine,
    lease: Lease,
    has_ended: bool,
}

impl Flight {
    /// The request has ended: another one may start.
    pub(super) fn ended(&mut self, took: Duration) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let is_low = self.engine.lanes().ended(&self.lease, took);
        self.engine.pump();
        if is_low {
            self.engine.wake.notify_one();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.ended(Duration::ZERO);
        let was_full = {
            let mut lanes = self.engine.lanes();
            lanes.recorded(&self.lease)
        };
        if was_full {
            self.engine.pump();
        }
        self.engine.quiet.notify_waiters();
    }
}
