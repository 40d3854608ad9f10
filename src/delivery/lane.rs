//! One lane: the deliveries of one webhook that this node has leased, and what is known of their receiver.

use std::{collections::VecDeque, time::Duration};

use crate::{
    domain::id::{OrganizationId, WebhookId},
    store::queue::lease::{Judgement, Leased},
};

/// How long a lane may keep its permits busy by itself: so far ahead deliveries are leased.
const AHEAD: Duration = Duration::from_millis(250);

/// Deliveries that wait in one lane at most, beside the publications that arrive in the very moment it is filled.
const LANE_WAITING_MAX: usize = 512;

/// How long an attempt is taken to last while nothing is known of a receiver.
pub(super) const PACE_UNKNOWN: Duration = Duration::from_millis(20);

/// A delivery in its lane.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) leased: Leased,
    /// The webhook must have been read at this time or later.
    pub(super) since: Duration,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) organization: OrganizationId,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) running: usize,
    /// Those that run, and those that wait for their record.
    pub(super) unrecorded: usize,
    pub(super) judgement: Option<(Judgement, Duration)>,
    /// Whether a reading of the webhook is under way.
    pub(super) is_judged: bool,
    /// Whether it stands in its organization's ring.
    pub(super) in_ring: bool,
    /// How long attempts last, smoothed.
    pub(super) pace: Duration,
    /// Whether more is due in the queue than was claimed.
    pub(super) is_behind: bool,
}

/// The lanes of one organization.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// The webhooks that have something to start and a permit for it, in turn.
    pub(super) ring: VecDeque<WebhookId>,
    pub(super) running: usize,
    pub(super) in_ring: bool,
    /// Deliveries, and bytes of their payloads, that wait in its lanes.
    pub(super) waiting: usize,
    pub(super) waiting_bytes: usize,
}

impl Tenant {
    /// Whether nothing of it is here.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0 && !self.in_ring
    }
}

impl Lane {
    /// One with nothing in it.
    pub(super) fn new(organization: OrganizationId) -> Self {
        Self {
            organization,
            waiting: VecDeque::new(),
            running: 0,
            unrecorded: 0,
            judgement: None,
            is_judged: false,
            in_ring: false,
            pace: PACE_UNKNOWN,
            is_behind: false,
        }
    }

    /// Takes in what was read of the webhook at `at`, unless something newer is known.
    pub(super) fn learn(&mut self, judgement: Judgement, at: Duration) {
        if self.judgement.as_ref().is_none_or(|(_, known_at)| *known_at <= at) {
            self.judgement = Some((judgement, at));
        }
    }
}

/// How many deliveries a lane may hold beyond its permits, by how long an attempt lasts.
pub(super) fn ahead(share: usize, pace: Duration) -> usize {
    let rounds = AHEAD.as_micros() / pace.as_micros().max(1);
    usize::try_from(rounds)
        .unwrap_or(usize::MAX)
        .saturating_mul(share)
        .min(LANE_WAITING_MAX)
}
