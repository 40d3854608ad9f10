//! The words of the queue: what is leased, what it sends, and where it goes.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::domain::{
    delivery::{AttemptTrigger, DeliveryStatus},
    destination::Destination,
    event_id::EventId,
    health::HealthSignal,
    id::{DeliveryId, LeaseToken, OrganizationId, WebhookId},
    outcome::Outcome,
    secret::Secret,
    timestamp::Timestamp,
    trace::TraceParent,
};

/// A leased delivery: the right to make attempt `number`, until the lease ends.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Whose delivery it is.
    pub organization_id: OrganizationId,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The webhook it is owed to.
    pub webhook_id: WebhookId,
    /// Known to the holder alone: fences every later write.
    pub token: LeaseToken,
    /// The number of the attempt that may be made.
    pub number: u32,
}

impl Lease {
    /// The attempt's number, as the column keeps it.
    pub(super) fn number_column(&self) -> i32 {
        i32::try_from(self.number).unwrap_or(i32::MAX)
    }
}

/// An event as its deliveries send it. They share it.
#[derive(Debug)]
pub struct Message {
    /// The event's id.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: String,
    /// The exact bytes to sign and send.
    pub payload: Bytes,
    /// The trace that the publisher named.
    pub traceparent: Option<TraceParent>,
}

/// A delivery that this node holds, with all that does not change before its attempt.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The lease.
    pub lease: Lease,
    /// When the lease ends, unless it is renewed.
    pub until: Timestamp,
    /// What is sent.
    pub message: Arc<Message>,
    /// The delivery's status before the attempt.
    pub status: DeliveryStatus,
    /// Attempts made before its present schedule began.
    pub schedule_start: u32,
    /// What the lease was given for.
    pub grant: Grant,
}

/// What a lease was given for. An attempt is made only where that still holds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The plain case: the breaker is closed, and the webhook has no rate of its own.
    Plain,
    /// The one attempt that an open breaker lets out.
    Probe,
    /// The webhook has a rate of its own, which counts this attempt.
    Rated,
    /// Somebody asked for this attempt: it is made in any case.
    Manual,
}

/// A lease and what it was given for.
pub(super) type Granted = (Lease, Grant);

/// A webhook as attempts need it, as it stood when it was read.
#[derive(Debug)]
pub struct Target {
    /// Where to send.
    pub url: Destination,
    /// What to sign with.
    pub secret: Secret,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Whether only probes go out.
    pub breaker_open: bool,
    /// Whether it has a rate of its own.
    pub rated: bool,
}

impl Target {
    /// Whether an attempt that was leased for `grant` may be made.
    #[must_use]
    pub fn allows(&self, grant: Grant) -> bool {
        match grant {
            Grant::Manual => true,
            Grant::Plain => self.enabled && !self.breaker_open && !self.rated,
            Grant::Probe => self.enabled,
            Grant::Rated => self.enabled && !self.breaker_open,
        }
    }
}

/// What is known of a webhook that was looked at.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// It is there.
    Known(Arc<Target>),
    /// It was deleted.
    Gone,
    /// It cannot be read by this node, which lacks the key of its secret.
    Unreadable,
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The lease it was made under.
    pub lease: Lease,
    /// Why it was made.
    pub trigger: AttemptTrigger,
    /// The event that was sent.
    pub event_id: EventId,
    /// That event's type.
    pub event_type: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What it came to.
    pub outcome: Outcome,
    /// The delivery's status now.
    pub status: DeliveryStatus,
    /// When the next attempt is due, while one is planned.
    pub next_attempt_at: Option<Timestamp>,
    /// What it says about the webhook's health; nothing if it was a test that failed.
    pub signal: Option<HealthSignal>,
    /// Whether it used up the delivery's schedule.
    pub exhausted: bool,
}

/// A delivery and a token: a batch may hold a lease that was lost together with the one that came after it.
pub(super) type Fence = (DeliveryId, LeaseToken);

impl Finished {
    pub(super) fn fence(&self) -> Fence {
        (self.lease.delivery_id, self.lease.token)
    }

    /// Whether it says nothing about its webhook that has to be written down, as long as the webhook is well.
    pub(super) fn is_plain(&self) -> bool {
        self.outcome.error.is_none() && self.status == DeliveryStatus::Delivered
    }

    /// How long it took in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        u64::try_from(self.ended_at.since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// The same, as the column keeps it.
    pub(super) fn duration_column(&self) -> i64 {
        i64::try_from(self.duration_ms()).unwrap_or(i64::MAX)
    }
}

/// Whose deliveries a node may not lease as it publishes.
#[derive(Clone, Debug, Default)]
pub struct Full {
    /// The webhooks whose lanes have no room for another delivery.
    pub webhooks: HashSet<WebhookId>,
    /// The organizations that have their share of all lanes, once these are full.
    pub organizations: HashSet<OrganizationId>,
}

impl Full {
    /// Whether it says so of this webhook.
    #[must_use]
    pub fn has(&self, organization: OrganizationId, webhook: WebhookId) -> bool {
        self.organizations.contains(&organization) || self.webhooks.contains(&webhook)
    }
}

/// What a node may lease as it publishes.
#[derive(Clone, Debug)]
pub struct Room {
    /// What has no room for another delivery.
    pub full: Full,
    /// How long leases last.
    pub lease: Duration,
}

/// Where deliveries go that are leased to this node when they are published: the lanes of the delivery engine, handed in
/// by `server`.
pub trait HandOver: Send + Sync + fmt::Debug {
    /// What may be leased now for these organizations; `None` if this node takes nothing at all.
    fn room(&self, organizations: &[OrganizationId]) -> Option<Room>;

    /// Takes deliveries whose leases are durable, with their webhooks as they stood at `judged_at` or later (of
    /// [`Clock::monotonic`](crate::clock::Clock::monotonic)).
    fn take(&self, leased: Vec<Leased>, judgements: Vec<(WebhookId, Judgement)>, judged_at: Duration);

    /// Takes leases of attempts that cannot be made now: they are given back as soon as the database takes them.
    fn not_made(&self, leases: Vec<Lease>);

    /// Some deliveries are due and belong to nobody yet.
    fn due(&self);

    /// How many attempts are under way on this node, and how many deliveries wait for one.
    fn load(&self) -> (usize, usize);

    /// A webhook was changed on this node: what is known of it is known no more, and what was held may be due.
    fn changed(&self, webhook: WebhookId);
}
