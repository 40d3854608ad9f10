//! One attempt, from a leased delivery to its record.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderName;
use rand::RngExt as _;
use tracing::{Instrument as _, Span};
use url::Url;

use super::{
    Engine,
    engine::{Flight, NOT_SENT_PAUSE},
    headers::{self, Signing},
    lanes::Start,
    sender::{DeliveryHeaders, Exchange},
};
use crate::{
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        event_id::EventId,
        health::HealthSignal,
        outcome::{ErrorWord, Outcome},
        retry::{self, Decision},
        timestamp::Timestamp,
        trace::TraceParent,
        word::Word as _,
    },
    store::{
        StoreError,
        queue::{
            finish,
            lease::{Finished, Grant, Lease, Leased, Message, Target, WebhookState},
            work,
        },
    },
    telemetry::{
        LogAttempts,
        spans::{AttemptSpan, NewAttempt},
    },
};

/// An attempt that is ready to send: the request, and what must be known when it has ended.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The URL to send to.
    pub url: Url,
    /// The headers, including both signatures.
    pub headers: DeliveryHeaders,
    /// The exact bytes that are signed and sent.
    pub payload: Bytes,
    span: AttemptSpan,
    /// The trace that the publisher's request belongs to.
    traceparent: Option<TraceParent>,
    started_at: Timestamp,
    event_id: EventId,
    event_type: String,
    status: DeliveryStatus,
    schedule_start: u32,
}

/// The pause before recording an attempt is retried while the database is unavailable.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Makes the attempt of `lease` and records its outcome.
    ///
    /// It runs to completion even if the caller goes away, so that no lease is left behind.
    pub async fn attempt(&self, lease: Lease, trigger: AttemptTrigger) -> Result<(), StoreError> {
        let engine = self.clone();
        let attempt = tokio::spawn(async move {
            match engine.read(lease.clone()).await {
                Ok(Some(start)) => engine.carry_out(start, trigger, None).await,
                // Nothing was sent, so it does not count.
                Ok(None) => engine.release(vec![lease], Duration::ZERO).await,
                Err(error) => {
                    engine.release(vec![lease], NOT_SENT_PAUSE).await;
                    return Err(error);
                }
            }
            Ok(())
        });
        attempt
            .await
            .unwrap_or_else(|cause| Err(StoreError::Corrupt(format!("an attempt panicked: {cause}"))))
    }

    /// Reads what a lease's attempt needs. `None` if the delivery or its webhook is gone.
    async fn read(&self, lease: Lease) -> Result<Option<Start>, StoreError> {
        let until = self.clock.now().plus(self.options.lease());
        let Some(leased) = work::for_manual(&self.db, lease, until).await? else {
            return Ok(None);
        };
        let read_at = self.clock.monotonic();
        let webhook = (leased.lease.organization_id, leased.lease.webhook_id);
        let state = work::read_webhooks(&self.db, &[webhook]).await?.pop();
        match state {
            Some((_, WebhookState::Present(target))) => Ok(Some(Start {
                leased,
                target,
                read_at,
            })),
            Some((_, WebhookState::Unreadable)) => Err(StoreError::unreadable_secret()),
            _ => Ok(None),
        }
    }

    /// Prepares and signs an attempt. It counts as started when its webhook was read.
    #[must_use]
    pub fn prepare(&self, start: &Start, trigger: AttemptTrigger) -> Prepared {
        let Start {
            leased,
            target,
            read_at,
        } = start;
        let (lease, message) = (&leased.lease, &leased.message);
        let age = self.clock.monotonic().saturating_sub(*read_at);
        let started_at = self.clock.now().minus(age);
        let new = NewAttempt {
            organization: lease.organization_id,
            webhook: lease.webhook_id,
            delivery: lease.delivery_id,
            event: &message.event_id,
            number: lease.number,
            trigger,
        };
        let span = self.spans.attempt(&new, message.traceparent);
        let headers = headers(message, target, lease, &span, self.clock.real().minus(age));
        Prepared {
            span,
            url: target.url.url().clone(),
            headers,
            payload: message.payload.clone(),
            traceparent: message.traceparent,
            started_at,
            event_id: message.event_id.clone(),
            event_type: message.event_type.clone(),
            status: leased.status,
            schedule_start: leased.schedule_start,
        }
    }

    /// Makes an attempt, and records its outcome. `flight` holds its permit until the request has ended: recording it
    /// holds up no other attempt.
    pub(super) async fn carry_out(&self, start: Start, trigger: AttemptTrigger, mut flight: Option<Flight>) {
        let mut prepared = self.prepare(&start, trigger);
        let Leased {
            lease, until, grant, ..
        } = start.leased;
        let span = log_span(&lease, trigger, &prepared);
        let carry_out = async {
            let (headers, payload) = (std::mem::take(&mut prepared.headers), prepared.payload.clone());
            let began = Instant::now();
            let exchange = self.sender.post(&prepared.url, &headers, payload).await;
            let took = began.elapsed();
            if let Some(flight) = &mut flight {
                flight.ended(took);
            }
            let outcome = match exchange {
                Exchange::Ended(outcome) => outcome,
                Exchange::Local(cause) if trigger == AttemptTrigger::Automatic => {
                    return self.not_sent(lease, &cause).await;
                }
                // The client that requested it waits for the result.
                Exchange::Local(cause) => {
                    tracing::warn!(exception.message = %cause, "a requested attempt could not be sent");
                    Outcome {
                        error: Some(ErrorWord::Network),
                        ..Outcome::default()
                    }
                }
            };
            self.measure(&lease, trigger, &prepared, &outcome, took);
            prepared.span.ended(&outcome);
            let (webhook, has_failed) = (lease.webhook_id, outcome.error.is_some());
            let finished = self.conclude(lease, trigger, prepared, outcome, rand::rng().random());
            self.record(finished, until).await;
            if has_failed {
                // The breaker may be open now, or the webhook disabled.
                self.lanes().forget(webhook);
            }
        };
        carry_out.instrument(span).await;
        if grant != Grant::Plain {
            // The breaker may be closed now, so that what it held back is due.
            self.hint();
        }
    }

    /// An attempt could not be sent because this machine ran out of something: it does not count, and is made a little
    /// later.
    async fn not_sent(&self, lease: Lease, cause: &std::io::Error) {
        tracing::warn!(exception.message = %cause, "an attempt could not be sent; retrying later");
        self.release(vec![lease], NOT_SENT_PAUSE).await;
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
        let signal = match decision {
            Decision::Delivered => Some(HealthSignal::Success),
            Decision::FailedAndDisable => Some(HealthSignal::Gone),
            // A test is the customer's own experiment; its failure says nothing about regular deliveries.
            Decision::RetryAt(_) | Decision::Failed if is_test => None,
            Decision::RetryAt(_) | Decision::Failed if self.options.has_breaker => Some(HealthSignal::Failure),
            Decision::RetryAt(_) | Decision::Failed => Some(HealthSignal::FailureWithoutBreaker),
        };
        // The client that requested a test has its result, so it is not retried.
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
            signal,
            exhausted,
        }
    }

    /// Measures an attempt that has ended. A test was not owed to anybody, and a replayed event was published long ago.
    fn measure(&self, lease: &Lease, trigger: AttemptTrigger, prepared: &Prepared, outcome: &Outcome, took: Duration) {
        let metrics = &self.metrics;
        metrics.attempt(trigger, outcome, took);
        if trigger == AttemptTrigger::Test || prepared.schedule_start > 0 {
            return;
        }
        let published_at = lease.delivery_id.made_at();
        if lease.number == 1 {
            metrics.first_attempt(prepared.started_at.since(published_at));
        }
        if prepared.status == DeliveryStatus::Pending && outcome.delivered() {
            metrics.delivered(self.clock.now().since(published_at));
        }
    }

    /// Logs an attempt. One that succeeded is logged only if configured: a summary counts those.
    fn log_end(&self, finished: &Finished) {
        let Finished { outcome, status, .. } = finished;
        let code = outcome.response_status;
        let duration_ms = finished.duration_ms();
        let word = outcome.error.map(ErrorWord::as_str);
        if word.is_some() || self.log_attempts == LogAttempts::Each {
            tracing::info!(
                kallima.delivery.status = status.as_str(), http.response.status_code = code, error.type = word,
                duration_ms, "attempt finished"
            );
        } else {
            tracing::debug!(
                kallima.delivery.status = status.as_str(),
                http.response.status_code = code,
                duration_ms,
                "attempt finished"
            );
        }
    }

    /// Records an attempt, and retries while the database is unavailable: the receiver already has the event, and
    /// losing the record means that it gets the event twice. The lease is renewed meanwhile; a stopping server waits
    /// until the lease would have ended.
    async fn record(&self, finished: Finished, until: Timestamp) {
        let _awaiting = self.records.hold(&finished.lease, self.clock.monotonic());
        let mut is_logged = false;
        loop {
            match finish::finish(&self.db, finished.clone()).await {
                Ok(true) => {
                    if finished.exhausted {
                        self.metrics.exhausted();
                    }
                    self.log_end(&finished);
                    return;
                }
                Ok(false) => {
                    self.metrics.leases_lost(1);
                    tracing::warn!("the lease was lost during the attempt");
                    return;
                }
                Err(StoreError::Unavailable(cause) | StoreError::InDoubt(cause))
                    if !self.is_stopping() || self.clock.now() < until =>
                {
                    if !std::mem::replace(&mut is_logged, true) {
                        tracing::warn!(exception.message = %cause, "an attempt could not be recorded yet; retrying until the database is back");
                    }
                    tokio::time::sleep(RECORD_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(exception.message = %error, "an attempt could not be recorded");
                    return;
                }
            }
        }
    }
}

/// The log's span for an attempt. It has the level error, so that no filter removes it from the lines inside it.
fn log_span(lease: &Lease, trigger: AttemptTrigger, prepared: &Prepared) -> Span {
    let parent = prepared.span.parent();
    let trace = parent.or(prepared.traceparent).map(TraceParent::trace_id);
    tracing::error_span!(
        "attempt",
        kallima.organization.id = %lease.organization_id,
        kallima.webhook.id = %lease.webhook_id,
        kallima.delivery.id = %lease.delivery_id,
        kallima.event.id = prepared.event_id.as_str(),
        kallima.attempt.number = lease.number,
        kallima.attempt.trigger = trigger.as_str(),
        trace_id = trace.map(|id| display(format!("{id:032x}"))),
        span_id = parent.map(|parent| display(format!("{:016x}", parent.span_id()))),
    )
}

/// The headers of a delivery, with both signatures over the bytes that are sent.
fn headers(
    message: &Message,
    target: &Target,
    lease: &Lease,
    span: &AttemptSpan,
    signed_at: Timestamp,
) -> DeliveryHeaders {
    let mut headers = headers::signed(&Signing {
        secret: &target.secret,
        event_id: &message.event_id,
        event_type: &message.event_type,
        delivery_id: lease.delivery_id,
        attempt: lease.number,
        timestamp_s: signed_at.as_unix_seconds(),
        body: &message.payload,
    });
    // The attempt is a span of its own in the publisher's trace, whether or not it is exported.
    let unseen = || message.traceparent.map(|parent| parent.child(rand::rng().random()));
    let trace = span.parent().or_else(unseen);
    headers.extend(trace.map(|parent| (HeaderName::from_static("traceparent"), parent.to_string())));
    headers
}
