//! One lane: the deliveries of one webhook that this node has leased, and what is known about their receiver.

use std::{collections::VecDeque, time::Duration};

use crate::{
    domain::id::{OrganizationId, WebhookId},
    store::queue::lease::{Leased, WebhookState},
};

/// How far ahead deliveries are leased: enough to keep a lane's permits busy for this long.
const AHEAD: Duration = Duration::from_millis(250);

/// The most deliveries that wait in one lane, apart from publications that arrive at the very moment it fills up.
const LANE_WAITING_MAX: usize = 512;

/// How long an attempt is assumed to take while nothing is known about a receiver.
pub(super) const PACE_UNKNOWN: Duration = Duration::from_millis(20);

/// A delivery in its lane.
#[derive(Debug)]
pub(super) struct WaitingDelivery {
    pub(super) leased: Leased,
    /// The webhook must have been read at this time or later.
    pub(super) since: Duration,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) organization: OrganizationId,
    pub(super) waiting: VecDeque<WaitingDelivery>,
    pub(super) running: usize,
    /// Attempts that are running or waiting to be recorded.
    pub(super) unrecorded: usize,
    pub(super) state: Option<(WebhookState, Duration)>,
    /// Whether the webhook is being read.
    pub(super) is_being_read: bool,
    /// Whether it is in its organization's turn queue.
    pub(super) in_turns: bool,
    /// How long attempts take, smoothed.
    pub(super) pace: Duration,
    /// Whether more is due in the queue than was claimed.
    pub(super) is_behind: bool,
}

/// The lanes of one organization.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// The webhooks that have something to start and a permit for it, in turn.
    pub(super) turns: VecDeque<WebhookId>,
    pub(super) running: usize,
    pub(super) in_turns: bool,
    /// The deliveries that wait in its lanes, and the bytes of their payloads.
    pub(super) waiting: usize,
    pub(super) waiting_bytes: usize,
}

impl Tenant {
    /// Whether it has nothing here.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0 && !self.in_turns
    }
}

impl Lane {
    /// An empty lane.
    pub(super) fn new(organization: OrganizationId) -> Self {
        Self {
            organization,
            waiting: VecDeque::new(),
            running: 0,
            unrecorded: 0,
            state: None,
            is_being_read: false,
            in_turns: false,
            pace: PACE_UNKNOWN,
            is_behind: false,
        }
    }

    /// Applies a reading of the webhook at `at`, unless something newer is known.
    pub(super) fn learn(&mut self, state: WebhookState, at: Duration) {
        if self.state.as_ref().is_none_or(|(_, known_at)| *known_at <= at) {
            self.state = Some((state, at));
        }
    }
}

/// How many deliveries a lane may hold beyond its permits, given how long an attempt takes.
pub(super) fn ahead(share: usize, pace: Duration) -> usize {
    let rounds = AHEAD.as_micros() / pace.as_micros().max(1);
    usize::try_from(rounds)
        .unwrap_or(usize::MAX)
        .saturating_mul(share)
        .min(LANE_WAITING_MAX)
}
