//! What the lanes are given and what they say: their limits, the time, what is to be done next.

use std::{sync::Arc, time::Duration};

use crate::{
    domain::{
        id::{OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::queue::lease::{Lease, Leased, Target},
};

/// What the lanes may do.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Attempts under way at once.
    pub attempts_max: usize,
    /// Attempts under way at once for one webhook, over all nodes.
    pub per_webhook_max: usize,
    /// How much of its lease an attempt needs when it starts.
    pub lease_needed: Duration,
}

/// The time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For how old a reading is.
    pub monotonic: Duration,
    /// For when a lease ends.
    pub time: Timestamp,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Make this attempt. Whoever takes it tells [`Lanes::ended`](super::lanes::Lanes::ended) and [`Lanes::recorded`](super::lanes::Lanes::recorded).
    Start(Start),
    /// Read these webhooks again, and tell [`Lanes::judge`](super::lanes::Lanes::judge).
    Judge(Vec<(OrganizationId, WebhookId)>),
    /// Give these leases back: their attempts are not to be made now.
    GiveBack(Vec<Lease>),
    /// The same, because this node cannot read their webhooks: it must not have them again at once.
    Postpone(Vec<Lease>),
}

/// An attempt that may be made.
#[derive(Debug)]
pub struct Start {
    /// The delivery.
    pub leased: Leased,
    /// Its webhook, as it stood at `judged_at`.
    pub target: Arc<Target>,
    /// When the webhook was read, by the monotonic clock.
    pub judged_at: Duration,
}

/// What is in the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Attempts whose requests are under way.
    pub running: usize,
    /// The same, and those that have ended and wait for their record.
    pub unrecorded: usize,
    /// Deliveries that wait for an attempt.
    pub waiting: usize,
}
