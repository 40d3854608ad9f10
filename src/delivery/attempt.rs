//! One attempt, from a lease to its record.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::sync::Notify;

use super::sender::{DeliveryHeaders, Sender};
use crate::{
    clock::Clock,
    config::EngineOptions,
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        outcome::Outcome,
        retry::{self, Decision, RetryPolicy},
        signature,
        timestamp::Timestamp,
    },
    store::{
        Database, StoreError,
        finish::{self, Finished},
        queue::{self, Lease, Work},
    },
};

/// All that the delivery engine works with. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) db: Database,
    pub(super) clock: Clock,
    pub(super) options: EngineOptions,
    /// Says that new work may be due, or that a webhook has room again.
    pub(super) wake: Arc<Notify>,
    sender: Sender,
    policy: Arc<RetryPolicy>,
}

/// How often the record of an attempt is tried while the database is away; its lease ends about then.
const RECORD_TRIES_MAX: u32 = 5;

/// How long each of those tries waits for the database.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// An engine on this database.
    #[must_use]
    pub fn new(db: Database, clock: Clock, options: EngineOptions, sender: Sender, wake: Arc<Notify>) -> Self {
        let policy = Arc::new(options.retry_policy());
        Self {
            db,
            clock,
            options,
            wake,
            sender,
            policy,
        }
    }

    /// Makes the attempt of `lease` and records what came of it.
    ///
    /// It runs to its end even when the caller goes away, so that no lease is left behind.
    pub async fn attempt(&self, lease: Lease, trigger: AttemptTrigger) -> Result<(), StoreError> {
        let engine = self.clone();
        let attempt = tokio::spawn(async move { engine.run(lease, trigger).await });
        attempt
            .await
            .unwrap_or_else(|cause| Err(StoreError::Corrupt(format!("an attempt panicked: {cause}"))))
    }

    async fn run(&self, lease: Lease, trigger: AttemptTrigger) -> Result<(), StoreError> {
        let Some(work) = queue::work(&self.db, &lease).await? else {
            return Ok(());
        };
        if !work.enabled && trigger == AttemptTrigger::Automatic {
            // Switched off between claim and start: the delivery is held, and the attempt was not made.
            return queue::give_back(&self.db, &lease, self.clock.now()).await;
        }
        let started_at = self.clock.now();
        let headers = headers(&work, &lease, started_at);
        let outcome = self
            .sender
            .post(work.url.url().as_str(), headers, work.payload.into())
            .await;
        let finished = self.judge(lease, trigger, work.status, started_at, outcome);
        self.record(finished).await
    }

    fn judge(
        &self,
        lease: Lease,
        trigger: AttemptTrigger,
        status: DeliveryStatus,
        started_at: Timestamp,
        outcome: Outcome,
    ) -> Finished {
        let ended_at = self.clock.now();
        let decision = retry::decide(&self.policy, lease.number, &outcome, ended_at, rand::rng().random());
        // A test is one question: whoever asked has the answer, so it is not asked again.
        let decision = match (trigger, decision) {
            (AttemptTrigger::Test, Decision::RetryAt(_)) => Decision::Failed,
            (_, decision) => decision,
        };
        let (status, next_attempt_at) = status.after(decision);
        let disable = decision == Decision::FailedAndDisable;
        Finished {
            lease,
            trigger,
            started_at,
            ended_at,
            outcome,
            status,
            next_attempt_at,
            disable,
        }
    }

    /// Records the attempt, trying again while the database is away: the receiver has the event already, and a
    /// record that is lost means that it gets it twice.
    async fn record(&self, finished: Finished) -> Result<(), StoreError> {
        let lease = finished.lease.clone();
        let mut tries = 0;
        loop {
            match finish::finish(&self.db, finished.clone()).await {
                Ok(true) => {
                    let Finished { outcome, status, .. } = &finished;
                    tracing::info!(
                        organization = %lease.organization_id, webhook = %lease.webhook_id, delivery = %lease.delivery_id,
                        attempt = lease.number, status = %status, response_status = outcome.response_status,
                        error = outcome.error.map(tracing::field::display), "attempt finished"
                    );
                    return Ok(());
                }
                Ok(false) => {
                    tracing::warn!(delivery = %lease.delivery_id, attempt = lease.number, "the lease was lost during the attempt");
                    return Ok(());
                }
                Err(StoreError::Unavailable(cause)) if tries < RECORD_TRIES_MAX => {
                    tries += 1;
                    tracing::warn!(delivery = %lease.delivery_id, %cause, tries, "an attempt could not be recorded yet");
                    tokio::time::sleep(RECORD_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The headers of a delivery, with both signatures over the bytes that are sent.
fn headers(work: &Work, lease: &Lease, started_at: Timestamp) -> DeliveryHeaders {
    let timestamp_s = started_at.as_unix_seconds();
    let signed = signature::sign(&work.secret, work.event_id.as_str(), timestamp_s, &work.payload);
    vec![
        ("kallima-signature", signed.kallima_signature),
        ("webhook-id", work.event_id.to_string()),
        ("webhook-timestamp", timestamp_s.to_string()),
        ("webhook-signature", signed.webhook_signature),
        ("kallima-event", work.event_type.clone()),
        ("kallima-delivery", lease.delivery_id.to_string()),
        ("kallima-attempt", lease.number.to_string()),
    ]
}
