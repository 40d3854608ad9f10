//! The model: the promises of the engine, restated without a database.

use std::{collections::BTreeMap, time::Duration};

use kallima_webhooks::{
    config::TimeBounds,
    domain::{
        delivery::DeliveryStatus,
        health::{Health, HealthSignal, Notice, PROBE_PAUSE_MAX},
        id::{DeliveryId, LeaseToken, WebhookId},
        outcome::{ErrorWord, Outcome, RetryAfter},
        secret::Secret,
        timestamp::Timestamp,
    },
    store::{
        queue::lease::Lease,
        upkeep::clamp::{RATE_PAUSE_MAX, TOLERANCE},
    },
};

/// The cap on attempts in progress for one webhook in the simulation.
pub(super) const CAP: usize = 3;

/// The retry schedule of the simulation, in seconds.
pub(super) const SCHEDULE_S: [u64; 2] = [5, 7_200];

/// What a receiver does with every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Well,
    Failing(u16),
    Unreachable,
    Busy { retry_after_s: u64 },
    Gone,
}

impl Mode {
    /// The outcome of an attempt.
    pub(super) fn outcome(self) -> Outcome {
        let response = |status: u16, retry_after| Outcome {
            response_status: Some(status),
            response_body: Some(String::new()),
            error: (status >= 300).then_some(ErrorWord::ResponseStatus),
            retry_after,
        };
        match self {
            Self::Well => response(200, None),
            Self::Failing(status) => response(status, None),
            Self::Unreachable => Outcome {
                error: Some(ErrorWord::Timeout),
                ..Outcome::default()
            },
            Self::Busy { retry_after_s } => response(503, Some(RetryAfter::Seconds(retry_after_s))),
            Self::Gone => response(410, None),
        }
    }
}

/// A webhook as it must be.
pub(super) struct Webhook {
    pub(super) id: WebhookId,
    pub(super) url: String,
    pub(super) secret: Secret,
    pub(super) deleted: bool,
    /// The prefix of the types it wants; `None` for all but operational ones.
    pub(super) wants: Option<&'static str>,
    pub(super) health: Health,
    pub(super) mode: Mode,
}

impl Webhook {
    pub(super) fn is_owed(&self, event_type: &str) -> bool {
        let wanted = match self.wants {
            Some(prefix) => event_type.starts_with(prefix),
            None => !event_type.starts_with("webhook"),
        };
        !self.deleted && self.health.enabled && wanted
    }
}

/// A lease that a node was given.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) token: LeaseToken,
    pub(super) until: Timestamp,
}

/// A delivery as it must be.
pub(super) struct Owed {
    pub(super) webhook: usize,
    pub(super) event_type: String,
    pub(super) payload: Vec<u8>,
    pub(super) status: DeliveryStatus,
    /// Attempts begun.
    pub(super) attempts: u32,
    /// When the next is due, while nobody holds it.
    pub(super) due: Timestamp,
    pub(super) lease: Option<Held>,
    pub(super) schedule_start: u32,
    /// The number of the last attempt that reached the receiver.
    pub(super) arrived: u32,
    /// Whether the receiver ever accepted it.
    pub(super) accepted: bool,
    /// Whether a 410 or the end of the schedule is behind a failure.
    pub(super) given_up: bool,
}

impl Owed {
    pub(super) fn new(webhook: usize, event_type: &str, payload: Vec<u8>, due: Timestamp) -> Self {
        Self {
            webhook,
            event_type: event_type.to_owned(),
            payload,
            status: DeliveryStatus::Pending,
            attempts: 0,
            due,
            lease: None,
            schedule_start: 0,
            arrived: 0,
            accepted: false,
            given_up: false,
        }
    }

    pub(super) fn is_held_by(&self, lease: &Lease) -> bool {
        self.lease.is_some_and(|held| held.token == lease.token)
    }

    pub(super) fn is_leased(&self, now: Timestamp) -> bool {
        self.lease.is_some_and(|held| held.until > now)
    }

    /// Whether a node may claim it.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.status == DeliveryStatus::Pending && self.lease.is_none() && self.due <= now
    }

    pub(super) fn give(&mut self, lease: &Lease, until: Timestamp) {
        assert_eq!(lease.number, self.attempts + 1, "attempt numbers rise by one");
        self.attempts = lease.number;
        self.lease = Some(Held {
            token: lease.token,
            until,
        });
    }

    /// Its lease is released, or ended without a record. The attempt does not count if it was not made.
    pub(super) fn release(&mut self, is_made: bool, now: Timestamp) {
        self.lease = None;
        self.attempts -= u32::from(!is_made);
        if self.status == DeliveryStatus::Pending {
            self.due = now;
        }
    }

    /// The state after an attempt with this outcome; true if that was the last of the schedule.
    ///
    /// `planned` is when the engine says that the next one is due: it must be no earlier than the schedule and what
    /// the receiver asked for, and no more than a tenth later.
    pub(super) fn end(&mut self, outcome: &Outcome, is_test: bool, planned: Option<Timestamp>, now: Timestamp) -> bool {
        self.lease = None;
        if self.status == DeliveryStatus::Canceled {
            return false;
        }
        if outcome.error.is_none() {
            self.status = DeliveryStatus::Delivered;
            return false;
        }
        if self.status != DeliveryStatus::Pending {
            return false;
        }
        let made = usize::try_from(self.attempts - self.schedule_start).unwrap();
        let last = made > SCHEDULE_S.len();
        if is_test || last || outcome.response_status == Some(410) {
            self.status = DeliveryStatus::Failed;
            self.given_up = true;
            return last && !is_test && outcome.response_status != Some(410);
        }
        let delay = Duration::from_secs(SCHEDULE_S[made - 1]);
        let asked = match outcome.retry_after {
            Some(RetryAfter::Seconds(seconds)) => Duration::from_secs(seconds.clamp(1, 86_400)),
            _ => Duration::ZERO,
        };
        let wait = planned.expect("a next attempt is planned").since(now);
        assert!(
            wait >= delay && wait >= asked,
            "{wait:?} is less than {delay:?} or {asked:?}"
        );
        assert!(
            wait <= (delay + delay / 10).max(asked),
            "{wait:?} is more than {delay:?} and {asked:?}"
        );
        self.due = now.plus(wait);
        false
    }
}

/// The operational event that the organization must get: its type, the webhook it is about, who receives it.
pub(super) type News = (&'static str, WebhookId, Vec<WebhookId>);

/// Everything that must be.
#[derive(Default)]
pub(super) struct Model {
    pub(super) webhooks: Vec<Webhook>,
    pub(super) deliveries: BTreeMap<DeliveryId, Owed>,
}

impl Model {
    /// Corrects times that are further ahead than possible; returns how many there were.
    pub(super) fn clamp(&mut self, bounds: TimeBounds, now: Timestamp) -> usize {
        let now = now.plus(TOLERANCE);
        let mut clamped = 0;
        let mut at_most = |time: &mut Timestamp, most: Timestamp| {
            clamped += usize::from(*time > most);
            *time = (*time).min(most);
        };
        let waiting = self.deliveries.values_mut();
        for owed in waiting.filter(|owed| owed.status == DeliveryStatus::Pending && owed.lease.is_none()) {
            at_most(&mut owed.due, now.plus(bounds.wait));
        }
        for held in self.deliveries.values_mut().filter_map(|owed| owed.lease.as_mut()) {
            at_most(&mut held.until, now.plus(bounds.lease));
        }
        for webhook in &mut self.webhooks {
            let pause = if webhook.health.breaker_open() {
                PROBE_PAUSE_MAX
            } else {
                RATE_PAUSE_MAX
            };
            at_most(&mut webhook.health.resume_at, now.plus(pause));
            if let Some(since) = &mut webhook.health.failing_since {
                at_most(since, now);
            }
        }
        clamped
    }

    pub(super) fn owed_to(&self, event_type: &str, but: Option<WebhookId>) -> Vec<WebhookId> {
        let owed = self
            .webhooks
            .iter()
            .filter(|webhook| webhook.is_owed(event_type) && Some(webhook.id) != but);
        let mut ids: Vec<WebhookId> = owed.map(|webhook| webhook.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Records how an attempt ended; returns the operational events that the organization must get.
    pub(super) fn end(
        &mut self,
        id: DeliveryId,
        outcome: &Outcome,
        is_test: bool,
        planned: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<News> {
        let owed = self.deliveries.get_mut(&id).unwrap();
        let exhausted = owed.end(outcome, is_test, planned, now) && !owed.event_type.starts_with("webhook");
        let signal = match (outcome.error, outcome.response_status) {
            (None, _) => Some(HealthSignal::Success),
            (_, Some(410)) => Some(HealthSignal::Gone),
            _ => (!is_test).then_some(HealthSignal::Failure),
        };
        let webhook = &mut self.webhooks[owed.webhook];
        let about = webhook.id;
        let notice = signal
            .filter(|_| !webhook.deleted)
            .and_then(|signal| webhook.health.record(signal, now));
        let exhausted = exhausted && !webhook.deleted && webhook.health.record_exhausted(now).is_some();
        let kinds = notice.map(|notice| match notice {
            Notice::Failing { .. } => "webhook.failing",
            Notice::Disabled { .. } => "webhook.disabled",
            Notice::Recovered => "webhook.recovered",
        });
        let kinds = kinds
            .into_iter()
            .chain(exhausted.then_some("webhook_delivery.exhausted"));
        let mut news: Vec<News> = kinds
            .map(|kind| (kind, about, self.owed_to(kind, Some(about))))
            .collect();
        news.sort();
        news
    }
}
