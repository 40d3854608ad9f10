//! The types of the queue: leases, the messages they send, and where those go.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::domain::{
    delivery::{AttemptTrigger, DeliveryStatus, DisabledReason},
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
    /// The organization that owns the delivery.
    pub organization_id: OrganizationId,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The webhook it is owed to.
    pub webhook_id: WebhookId,
    /// Known only to the holder: fences every later write.
    pub token: LeaseToken,
    /// The number of the attempt that may be made.
    pub number: u32,
}

impl Lease {
    /// The attempt's number in the column's type.
    pub(super) fn number_column(&self) -> i32 {
        i32::try_from(self.number).unwrap_or(i32::MAX)
    }
}

/// An event as its deliveries send it, shared between them.
#[derive(Debug)]
pub struct Message {
    /// The event's id.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: String,
    /// The exact bytes to sign and send.
    pub payload: Bytes,
    /// The trace that the publisher's request belongs to.
    pub traceparent: Option<TraceParent>,
}

/// A delivery that this node holds, with everything that does not change before its attempt.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The lease.
    pub lease: Lease,
    /// When the lease ends, unless it is renewed.
    pub until: Timestamp,
    /// The message to send.
    pub message: Arc<Message>,
    /// The delivery's status before the attempt.
    pub status: DeliveryStatus,
    /// Attempts made before its current schedule began.
    pub schedule_start: u32,
    /// What the lease was granted for.
    pub grant: Grant,
}

/// What a lease was granted for. An attempt is made only if that still applies when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The plain case: the breaker is closed, and the webhook has no rate limit of its own.
    Plain,
    /// The one attempt that an open breaker lets through.
    Probe,
    /// The webhook has a rate limit of its own, which counts this attempt.
    Rated,
    /// The attempt was requested: it is made in any case.
    Manual,
}

/// A lease and what it was granted for.
pub(super) type Granted = (Lease, Grant);

/// A webhook as attempts need it, as of when it was read.
#[derive(Debug)]
pub struct Target {
    /// Where to send.
    pub url: Destination,
    /// The signing secret.
    pub secret: Secret,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Whether only probes are sent.
    pub breaker_open: bool,
    /// Whether it has a rate limit of its own.
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

/// The result of reading a webhook.
#[derive(Clone, Debug)]
pub enum WebhookState {
    /// It exists.
    Present(Arc<Target>),
    /// It was deleted.
    Deleted,
    /// This node cannot read it, since it lacks the key of its secret.
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
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its result.
    pub outcome: Outcome,
    /// The delivery's status now.
    pub status: DeliveryStatus,
    /// When the next attempt is due, if one is scheduled.
    pub next_attempt_at: Option<Timestamp>,
    /// What it says about the webhook's health; `None` if it was a test that failed.
    pub signal: Option<HealthSignal>,
    /// Whether it used up the delivery's schedule.
    pub exhausted: bool,
}

/// A delivery and a token: a batch may hold both a lost lease and the one that succeeded it.
pub(super) type Fence = (DeliveryId, LeaseToken);

impl Finished {
    pub(super) fn fence(&self) -> Fence {
        (self.lease.delivery_id, self.lease.token)
    }

    /// Whether it changes nothing about its webhook, as long as the webhook is healthy.
    pub(super) fn is_plain(&self) -> bool {
        self.outcome.error.is_none() && self.status == DeliveryStatus::Delivered
    }

    /// How long it took, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        u64::try_from(self.ended_at.since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }

    /// The same in the column's type.
    pub(super) fn duration_column(&self) -> i64 {
        i64::try_from(self.duration_ms()).unwrap_or(i64::MAX)
    }
}

/// Webhooks and organizations whose deliveries a node may not lease when it publishes.
#[derive(Clone, Debug, Default)]
pub struct Full {
    /// Webhooks whose lanes have no room for another delivery.
    pub webhooks: HashSet<WebhookId>,
    /// Organizations that have used up their share of all lanes, once these are full.
    pub organizations: HashSet<OrganizationId>,
}

impl Full {
    /// Whether this webhook is included.
    #[must_use]
    pub fn has(&self, organization: OrganizationId, webhook: WebhookId) -> bool {
        self.organizations.contains(&organization) || self.webhooks.contains(&webhook)
    }
}

/// What a node may lease when it publishes.
#[derive(Clone, Debug)]
pub struct Room {
    /// Who has no room for another delivery.
    pub full: Full,
    /// How long leases last.
    pub lease: Duration,
}

/// Takes deliveries that are leased to this node when they are published: implemented by the delivery engine's lanes,
/// handed in by `server`.
pub trait HandOver: Send + Sync + fmt::Debug {
    /// What may be leased now for these organizations; `None` if this node takes nothing at all.
    fn room(&self, organizations: &[OrganizationId]) -> Option<Room>;

    /// Takes deliveries whose leases are durable, with their webhooks as read at `read_at` or later (in
    /// [`Clock::monotonic`](crate::clock::Clock::monotonic) time).
    fn take(&self, leased: Vec<Leased>, states: Vec<(WebhookId, WebhookState)>, read_at: Duration);

    /// Takes leases of attempts that cannot be made now: they are released as soon as the database allows.
    fn not_made(&self, leases: Vec<Lease>);

    /// Some deliveries are due and not leased to anyone yet.
    fn due(&self);

    /// How many attempts are in progress on this node, and how many deliveries wait for one.
    fn load(&self) -> (usize, usize);

    /// A webhook was changed on this node: what is cached about it is outdated, and what was held back may be due.
    fn changed(&self, webhook: WebhookId);

    /// The service disabled a webhook.
    fn disabled(&self, reason: DisabledReason);

    /// The database was emptied: nothing that waits in memory is owed any longer, and no webhook is as it was.
    fn emptied(&self);
}
