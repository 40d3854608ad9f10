//! One attempt, from a lease to its record.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::RngExt as _;
use tokio::sync::Notify;
use tracing::Instrument as _;

use super::{
    heartbeat::{Flights, Pulse},
    sender::{DeliveryHeaders, Sender},
};
use crate::{
    clock::Clock,
    config::EngineOptions,
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        event_id::EventId,
        health::Sign,
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
    telemetry::spans::{AttemptSpan, NewAttempt, Spans},
};

/// All that the delivery engine works with. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) db: Database,
    pub(super) clock: Clock,
    pub(super) options: EngineOptions,
    /// Says that new work may be due, or that a webhook has room again.
    pub(super) wake: Arc<Notify>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) flights: Flights,
    sender: Sender,
    policy: Arc<RetryPolicy>,
    spans: Spans,
}

/// An attempt that may be made: what is sent, and what has to be known when it has ended.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where it goes.
    pub url: String,
    /// The headers, both signatures among them.
    pub headers: DeliveryHeaders,
    /// The exact bytes that are signed and sent.
    pub payload: Bytes,
    span: AttemptSpan,
    started_at: Timestamp,
    event_id: EventId,
    event_type: String,
    status: DeliveryStatus,
    schedule_start: u32,
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
            pulse: Arc::default(),
            flights: Flights::default(),
            sender,
            policy,
            spans: Spans::default(),
        }
    }

    /// The same, but its attempts are spans of these.
    #[must_use]
    pub fn traced(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// Makes the attempt of `lease` and records what came of it.
    ///
    /// It runs to its end even when the caller goes away, so that no lease is left behind.
    pub async fn attempt(&self, lease: Lease, trigger: AttemptTrigger) -> Result<(), StoreError> {
        let (engine, under_way) = (self.clone(), self.flights.begin(&lease));
        let attempt = tokio::spawn(async move {
            let _under_way = under_way;
            let mut prepared = engine.prepare(vec![lease], trigger).await?;
            match prepared.pop() {
                Some((lease, prepared)) => engine.carry_out(lease, trigger, prepared?).await,
                None => Ok(()),
            }
        });
        attempt
            .await
            .unwrap_or_else(|cause| Err(StoreError::Corrupt(format!("an attempt panicked: {cause}"))))
    }

    /// Reads what the attempts of these leases need, as it stands now, and signs them. Those that are not to be made are
    /// left out: the lease is lost, the webhook gone, or switched off between claim and start (then the delivery is
    /// held). Where a single one cannot be prepared, that says why.
    pub async fn prepare(
        &self,
        leases: Vec<Lease>,
        trigger: AttemptTrigger,
    ) -> Result<Vec<(Lease, Result<Prepared, StoreError>)>, StoreError> {
        let works = queue::works(&self.db, leases).await?;
        let (mut prepared, mut held) = (Vec::with_capacity(works.len()), Vec::new());
        for (lease, work) in works {
            match work {
                Ok(work) if !work.enabled && trigger == AttemptTrigger::Automatic => held.push(lease),
                Ok(work) => {
                    let signed = self.sign(work, &lease, trigger);
                    prepared.push((lease, Ok(signed)));
                }
                Err(error) => prepared.push((lease, Err(error))),
            }
        }
        self.give_back(&held).await;
        Ok(prepared)
    }

    /// Gives back the leases of attempts that are not made; those that cannot be given back end by themselves.
    pub(super) async fn give_back(&self, leases: &[Lease]) {
        if let Err(error) = queue::give_back(&self.db, leases, self.clock.now()).await {
            tracing::warn!(%error, leases = leases.len(), "leases could not be given back");
        }
    }

    fn sign(&self, work: Work, lease: &Lease, trigger: AttemptTrigger) -> Prepared {
        let started_at = self.clock.now();
        let new = NewAttempt {
            organization: lease.organization_id,
            webhook: lease.webhook_id,
            delivery: lease.delivery_id,
            event: &work.event_id,
            number: lease.number,
            trigger,
        };
        let span = self.spans.attempt(&new, work.traceparent);
        let headers = headers(&work, lease, &span, started_at);
        Prepared {
            span,
            url: work.url.url().to_string(),
            headers,
            payload: work.payload,
            started_at,
            event_id: work.event_id,
            event_type: work.event_type,
            status: work.status,
            schedule_start: work.schedule_start,
        }
    }

    /// Sends what was prepared, and records what came of it.
    pub(super) async fn carry_out(
        &self,
        lease: Lease,
        trigger: AttemptTrigger,
        mut prepared: Prepared,
    ) -> Result<(), StoreError> {
        let span = tracing::error_span!(
            "attempt",
            organization = %lease.organization_id, webhook = %lease.webhook_id, delivery = %lease.delivery_id,
            attempt = lease.number, trigger = trigger.as_str()
        );
        let carry_out = async {
            let (headers, payload) = (std::mem::take(&mut prepared.headers), prepared.payload.clone());
            let began = Instant::now();
            let outcome = self.sender.post(&prepared.url, headers, payload).await;
            self.db.metrics().attempt(trigger, &outcome, began.elapsed());
            prepared.span.ended(&outcome);
            let finished = self.conclude(lease, trigger, prepared, outcome, rand::rng().random());
            self.record(finished).await
        };
        carry_out.instrument(span).await
    }

    /// What follows from the outcome of an attempt that has just ended. `jitter` is a random number from 0 to 1.
    #[must_use]
    pub fn conclude(
        &self,
        lease: Lease,
        trigger: AttemptTrigger,
        prepared: Prepared,
        outcome: Outcome,
        jitter: f64,
    ) -> Finished {
        let ended_at = self.clock.now();
        let number = lease.number.saturating_sub(prepared.schedule_start);
        let decision = retry::decide(&self.policy, number, &outcome, ended_at, jitter);
        let is_test = trigger == AttemptTrigger::Test;
        let sign = match decision {
            Decision::Delivered => Some(Sign::Success),
            Decision::FailedAndDisable => Some(Sign::Gone),
            // A test is the customer's own question; its failure says nothing about the service of deliveries.
            Decision::RetryAt(_) | Decision::Failed => (!is_test).then_some(Sign::Failure),
        };
        // Whoever asked for a test has the answer, so it is not asked again.
        let decision = match decision {
            Decision::RetryAt(_) if is_test => Decision::Failed,
            decision => decision,
        };
        let (status, next_attempt_at) = prepared.status.after(decision);
        let exhausted = decision == Decision::Failed && prepared.status == DeliveryStatus::Pending && !is_test;
        Finished {
            lease,
            trigger,
            event_id: prepared.event_id,
            event_type: prepared.event_type,
            started_at: prepared.started_at,
            ended_at,
            outcome,
            status,
            next_attempt_at,
            sign,
            exhausted,
        }
    }

    /// Records the attempt, trying again while the database is away: the receiver has the event already, and a
    /// record that is lost means that it gets it twice.
    async fn record(&self, finished: Finished) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match finish::finish(&self.db, finished.clone()).await {
                Ok(true) => {
                    let Finished { outcome, status, .. } = &finished;
                    tracing::info!(
                        status = %status, response_status = outcome.response_status,
                        error = outcome.error.map(tracing::field::display), "attempt finished"
                    );
                    return Ok(());
                }
                Ok(false) => {
                    tracing::warn!("the lease was lost during the attempt");
                    return Ok(());
                }
                Err(StoreError::Unavailable(cause)) if tries < RECORD_TRIES_MAX => {
                    tries += 1;
                    tracing::warn!(%cause, tries, "an attempt could not be recorded yet");
                    tokio::time::sleep(RECORD_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The headers of a delivery, with both signatures over the bytes that are sent.
fn headers(work: &Work, lease: &Lease, span: &AttemptSpan, started_at: Timestamp) -> DeliveryHeaders {
    let timestamp_s = started_at.as_unix_seconds();
    let signed = signature::sign(&work.secret, work.event_id.as_str(), timestamp_s, &work.payload);
    let mut headers = vec![
        ("kallima-signature", signed.kallima_signature),
        ("webhook-id", work.event_id.to_string()),
        ("webhook-timestamp", timestamp_s.to_string()),
        ("webhook-signature", signed.webhook_signature),
        ("kallima-event", work.event_type.clone()),
        ("kallima-delivery", lease.delivery_id.to_string()),
        ("kallima-attempt", lease.number.to_string()),
    ];
    // The attempt is a span of its own in the publisher's trace, whether or not anybody exports it.
    let unseen = || work.traceparent.map(|parent| parent.child(rand::rng().random()));
    let trace = span.place().or_else(unseen);
    headers.extend(trace.map(|parent| ("traceparent", parent.to_string())));
    headers
}
