//! The inputs and outputs of the lanes: their limits, the time, the next step.

use std::{sync::Arc, time::Duration};

use crate::{
    domain::{
        id::{OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::queue::lease::{Lease, Leased, Target},
};

/// The limits of the lanes.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Attempts in progress at once.
    pub attempts_max: usize,
    /// Attempts in progress at once per webhook, across all nodes.
    pub per_webhook_max: usize,
    /// How much of its lease an attempt needs when it starts.
    pub lease_needed: Duration,
}

/// The time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For the age of a reading.
    pub monotonic: Duration,
    /// For the end of a lease.
    pub time: Timestamp,
}

/// The next step.
#[derive(Debug)]
pub enum Step {
    /// Make this attempt. The caller reports to [`Lanes::ended`](super::lanes::Lanes::ended) and
    /// [`Lanes::recorded`](super::lanes::Lanes::recorded).
    Start(Start),
    /// Read these webhooks again, and pass the result to [`Lanes::webhooks_read`](super::lanes::Lanes::webhooks_read).
    ReadWebhooks(Vec<(OrganizationId, WebhookId)>),
    /// Release these leases: their attempts must not be made now.
    Release(Vec<Lease>),
    /// The same, because this node cannot read their webhooks: it must not get them again at once.
    Postpone(Vec<Lease>),
}

/// An attempt that may be made.
#[derive(Debug)]
pub struct Start {
    /// The delivery.
    pub leased: Leased,
    /// Its webhook, as read at `read_at`.
    pub target: Arc<Target>,
    /// When the webhook was read, by the monotonic clock.
    pub read_at: Duration,
}

/// The contents of the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Attempts whose requests are in progress.
    pub running: usize,
    /// The same, plus those that have ended and wait to be recorded.
    pub unrecorded: usize,
    /// Deliveries that wait for an attempt.
    pub waiting: usize,
}
