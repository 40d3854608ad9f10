//! What waits in memory: a *lane* per webhook, with the deliveries that this node has leased.
//!
//! A delivery enters its lane from a publication or from a claim, and leaves it when its webhook has a free permit and
//! it is its organization's turn. Nothing here waits or does I/O: [`Lanes::next`] returns the next step.
//!
//! ```text
//! offer ──▶ lane ──▶ next: Start ──▶ attempt ──▶ ended ──▶ recorded
//!                     │ ReadWebhooks: the webhook must be read again first
//!                     └ Release: the attempt must not be made; the delivery is free again
//! ```
//! Bounds: attempts in progress (in total, per webhook, and a fair share per organization), attempts that wait to be
//! recorded, waiting deliveries and bytes (in total, and a fair share per organization).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

pub use super::step::{LaneLimits, Load, Now, Start, Step};
use super::{
    cap_share::CapShare,
    lane::{Lane, PACE_UNKNOWN, Tenant, WaitingDelivery, ahead},
};
use crate::{
    domain::{
        fairness::PermitUse,
        id::{OrganizationId, WebhookId},
        timestamp::Timestamp,
    },
    store::queue::lease::{Full, Lease, Leased, WebhookState},
};

/// How old the reading of a webhook may be when an attempt that relies on it starts. The attempt counts as started at
/// the reading: it respects every earlier change to the webhook, whichever node made it.
pub const READING_AGE_MAX: Duration = Duration::from_millis(10);

/// The most deliveries and payload bytes that wait in all lanes together; beyond either, nothing more is leased, except
/// for organizations below their fair share.
const WAITING_MAX: usize = 8192;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most attempts that have ended and wait to be recorded; beyond it no attempt starts.
const UNRECORDED_MAX: usize = 4096;

/// How many empty lanes are kept, for what they know about their receivers.
const LANES_KEPT: usize = 4096;

/// All lanes of this node.
#[derive(Debug)]
pub struct Lanes {
    limits: LaneLimits,
    cap_share: CapShare,
    by_webhook: HashMap<WebhookId, Lane>,
    tenants: HashMap<OrganizationId, Tenant>,
    /// The organizations that have a webhook in their turn queue, in turn.
    turns: VecDeque<OrganizationId>,
    /// Webhooks that must be read before any attempt of theirs starts.
    to_read: Vec<(OrganizationId, WebhookId)>,
    to_release: Vec<Lease>,
    to_postpone: Vec<Lease>,
    full: HashSet<WebhookId>,
    running: usize,
    unrecorded: usize,
    waiting: usize,
    waiting_bytes: usize,
}

impl Lanes {
    /// Empty lanes.
    #[must_use]
    pub fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            cap_share: CapShare::ALONE,
            by_webhook: HashMap::new(),
            tenants: HashMap::new(),
            turns: VecDeque::new(),
            to_read: Vec::new(),
            to_release: Vec::new(),
            to_postpone: Vec::new(),
            full: HashSet::new(),
            running: 0,
            unrecorded: 0,
            waiting: 0,
            waiting_bytes: 0,
        }
    }

    /// Puts deliveries in their lanes, with what is known about their webhooks since `at`. A webhook about which
    /// nothing is given is read before the next attempt.
    ///
    /// What does not fit is released: deliveries that one transaction leases together have not been counted here yet.
    pub fn offer(&mut self, leased: Vec<Leased>, states: Vec<(WebhookId, WebhookState)>, at: Duration) {
        let mut touched = HashSet::new();
        for leased in leased {
            let (organization, webhook) = (leased.lease.organization_id, leased.lease.webhook_id);
            if self.is_full_for(organization) {
                self.to_release.push(leased.lease);
                self.set_behind(organization, webhook, true);
                continue;
            }
            let bytes = leased.message.payload.len();
            self.waiting += 1;
            self.waiting_bytes += bytes;
            let tenant = self.tenants.entry(organization).or_default();
            tenant.waiting += 1;
            tenant.waiting_bytes += bytes;
            let lane = self
                .by_webhook
                .entry(webhook)
                .or_insert_with(|| Lane::new(organization));
            lane.waiting.push_back(WaitingDelivery { leased, since: at });
            touched.insert(webhook);
        }
        // What was claimed was leased for its webhook's current state, about which older readings say nothing.
        for webhook in &touched {
            if let Some(lane) = self.by_webhook.get_mut(webhook) {
                lane.state = None;
            }
        }
        for (webhook, state) in states {
            if let Some(lane) = self.by_webhook.get_mut(&webhook) {
                lane.learn(state, at);
            }
        }
        for webhook in touched {
            self.queue_up(webhook);
        }
    }

    /// Applies readings of webhooks made at `at` or later.
    pub fn webhooks_read(&mut self, states: Vec<(WebhookId, WebhookState)>, at: Duration) {
        for (webhook, state) in states {
            if let Some(lane) = self.by_webhook.get_mut(&webhook) {
                lane.is_being_read = false;
                lane.learn(state, at);
                self.queue_up(webhook);
            }
        }
    }

    /// Reading these webhooks failed; it is retried when their next turn comes.
    pub fn read_failed(&mut self, webhooks: &[(OrganizationId, WebhookId)]) {
        for (_, webhook) in webhooks {
            if let Some(lane) = self.by_webhook.get_mut(webhook) {
                lane.is_being_read = false;
                self.queue_up(*webhook);
            }
        }
    }

    /// Discards what is known about a webhook that was changed on this node: the next attempt reads it again.
    pub fn forget(&mut self, webhook: WebhookId) {
        if let Some(lane) = self.by_webhook.get_mut(&webhook) {
            lane.state = None;
        }
    }

    /// Forgets what is known of every webhook.
    pub fn forget_all(&mut self) {
        for lane in self.by_webhook.values_mut() {
            lane.state = None;
        }
    }

    /// Returns the next step; `None` while every permit is in use or nothing waits. `may_start` is false on a node that
    /// the others may consider dead.
    pub fn next(&mut self, now: Now, may_start: bool) -> Option<Step> {
        if let Some(step) = self.refuse() {
            return Some(step);
        }
        while may_start && self.unrecorded < UNRECORDED_MAX {
            let Some(webhook) = self.take_turn() else { break };
            if let Some(start) = self.start(webhook, now) {
                return Some(Step::Start(start));
            }
        }
        if let Some(step) = self.refuse() {
            return Some(step);
        }
        (!self.to_read.is_empty()).then(|| Step::ReadWebhooks(std::mem::take(&mut self.to_read)))
    }

    /// What this node must not attempt now.
    fn refuse(&mut self) -> Option<Step> {
        if !self.to_release.is_empty() {
            return Some(Step::Release(std::mem::take(&mut self.to_release)));
        }
        (!self.to_postpone.is_empty()).then(|| Step::Postpone(std::mem::take(&mut self.to_postpone)))
    }

    /// An attempt's request has ended: its permit is free. Returns true if the lane runs low although more is due.
    pub fn ended(&mut self, lease: &Lease, took: Duration) -> bool {
        self.running = self.running.saturating_sub(1);
        if let Some(tenant) = self.tenants.get_mut(&lease.organization_id) {
            tenant.running = tenant.running.saturating_sub(1);
            if tenant.is_idle() {
                self.tenants.remove(&lease.organization_id);
            }
        }
        let Some(lane) = self.by_webhook.get_mut(&lease.webhook_id) else {
            return false;
        };
        lane.running = lane.running.saturating_sub(1);
        lane.pace = (lane.pace * 7 + took) / 8;
        self.queue_up(lease.webhook_id);
        self.is_low(lease.webhook_id)
    }

    /// An attempt's record is durable, or was given up. Returns true if attempts were waiting for that.
    pub fn recorded(&mut self, lease: &Lease) -> bool {
        if let Some(lane) = self.by_webhook.get_mut(&lease.webhook_id) {
            lane.unrecorded = lane.unrecorded.saturating_sub(1);
        }
        let was_full = self.unrecorded >= UNRECORDED_MAX;
        self.unrecorded = self.unrecorded.saturating_sub(1);
        was_full
    }

    /// How many more deliveries of a webhook may be leased to this node.
    #[must_use]
    pub fn room(&self, organization: OrganizationId, webhook: WebhookId) -> usize {
        let share = self.cap_share.of(self.limits.per_webhook_max, webhook);
        if share == 0 {
            return 0;
        }
        let lane = self.by_webhook.get(&webhook);
        let (pace, held) = lane.map_or((PACE_UNKNOWN, 0), |lane| (lane.pace, lane.running + lane.waiting.len()));
        let room = (share + ahead(share, pace)).saturating_sub(held);
        room.min(self.room_for(organization))
    }

    /// How many more deliveries of an organization may be leased to this node. One that holds less than its fair share gets
    /// some even while the lanes are full.
    #[must_use]
    pub fn room_for(&self, organization: OrganizationId) -> usize {
        if self.waiting < WAITING_MAX && self.waiting_bytes < WAITING_BYTES_MAX {
            return WAITING_MAX - self.waiting;
        }
        let has_waiting = |tenant: &&Tenant| tenant.waiting > 0;
        let own = self.tenants.get(&organization).filter(has_waiting);
        let holders = self.tenants.values().filter(has_waiting).count() + usize::from(own.is_none());
        let (held, held_bytes) = own.map_or((0, 0), |tenant| (tenant.waiting, tenant.waiting_bytes));
        let of = |max, taken| PermitUse { max, taken, holders };
        if of(WAITING_BYTES_MAX, self.waiting_bytes).allows(held_bytes) {
            of(WAITING_MAX, self.waiting).left(held)
        } else {
            0
        }
    }

    /// Whether this node may send the one attempt that an open breaker lets through.
    #[must_use]
    pub fn may_probe(&self, webhook: WebhookId) -> bool {
        // Until the last one is recorded, the database does not know whether there will be another.
        let is_idle = |lane: &Lane| lane.unrecorded == 0 && lane.waiting.is_empty();
        self.cap_share.of(1, webhook) == 1 && self.by_webhook.get(&webhook).is_none_or(is_idle)
    }

    /// Which of these organizations and their webhooks have no room now; `None` if nothing at all may be leased.
    #[must_use]
    pub fn full(&self, organizations: &[OrganizationId]) -> Option<Full> {
        // With more nodes than permits some have none, and only a claim knows which.
        let divides = (1..=self.limits.per_webhook_max).contains(&self.cap_share.nodes);
        let is_full = |organization: &&OrganizationId| self.is_full_for(**organization);
        divides.then(|| Full {
            webhooks: self.full.clone(),
            organizations: organizations.iter().filter(is_full).copied().collect(),
        })
    }

    /// Notes whether a webhook has more due than this node has leased.
    pub fn set_behind(&mut self, organization: OrganizationId, webhook: WebhookId, is_behind: bool) {
        if is_behind || self.by_webhook.contains_key(&webhook) {
            let lane = self
                .by_webhook
                .entry(webhook)
                .or_insert_with(|| Lane::new(organization));
            lane.is_behind = is_behind;
        }
    }

    /// The webhooks that have more due, and room for it.
    #[must_use]
    pub fn low(&self) -> Vec<(OrganizationId, WebhookId)> {
        let behind = self.by_webhook.iter().filter(|(_, lane)| lane.is_behind);
        let behind = behind.map(|(webhook, lane)| (lane.organization, *webhook));
        behind.filter(|(_, webhook)| self.is_low(*webhook)).collect()
    }

    /// Whether enough of a webhook is leased for now although more is due: it is claimed from again when it runs low.
    #[must_use]
    pub fn is_well_filled(&self, webhook: WebhookId) -> bool {
        self.by_webhook.get(&webhook).is_some_and(|lane| lane.is_behind) && !self.is_low(webhook)
    }

    /// Sets this node's share of the caps.
    pub fn set_cap_share(&mut self, cap_share: CapShare) {
        if self.cap_share == cap_share {
            return;
        }
        self.cap_share = cap_share;
        let webhooks: Vec<WebhookId> = self.by_webhook.keys().copied().collect();
        for webhook in webhooks {
            self.queue_up(webhook);
        }
    }

    /// Empties the lanes: the caller releases what waits. Attempts in progress continue.
    pub fn drain(&mut self) -> Vec<Lease> {
        let mut leases = std::mem::take(&mut self.to_release);
        leases.append(&mut self.to_postpone);
        for lane in self.by_webhook.values_mut() {
            leases.extend(lane.waiting.drain(..).map(|waiting| waiting.leased.lease));
        }
        (self.waiting, self.waiting_bytes) = (0, 0);
        for tenant in self.tenants.values_mut() {
            (tenant.waiting, tenant.waiting_bytes) = (0, 0);
        }
        let webhooks: Vec<WebhookId> = self.by_webhook.keys().copied().collect();
        for webhook in webhooks {
            self.queue_up(webhook);
        }
        leases
    }

    /// The waiting leases that end before `ends_before`.
    #[must_use]
    pub fn renewable(&self, ends_before: Timestamp) -> Vec<Lease> {
        let waiting = self.by_webhook.values().flat_map(|lane| &lane.waiting);
        let ending = waiting.filter(|waiting| waiting.leased.until < ends_before);
        ending.map(|waiting| waiting.leased.lease.clone()).collect()
    }

    /// These leases were renewed until `until`.
    pub fn renewed(&mut self, leases: &[Lease], until: Timestamp) {
        let renewed: HashSet<_> = leases.iter().map(|lease| (lease.delivery_id, lease.token)).collect();
        for waiting in self.by_webhook.values_mut().flat_map(|lane| &mut lane.waiting) {
            let lease = &waiting.leased.lease;
            if renewed.contains(&(lease.delivery_id, lease.token)) {
                waiting.leased.until = until;
            }
        }
    }

    /// The current contents of the lanes.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            running: self.running,
            unrecorded: self.unrecorded,
            waiting: self.waiting,
        }
    }

    fn is_full_for(&self, organization: OrganizationId) -> bool {
        self.room_for(organization) == 0
    }

    /// Whether a claim is worthwhile: half of what the lane may hold is free, or its permits may soon be idle.
    fn is_low(&self, webhook: WebhookId) -> bool {
        let Some(lane) = self.by_webhook.get(&webhook).filter(|lane| lane.is_behind) else {
            return false;
        };
        let share = self.cap_share.of(self.limits.per_webhook_max, webhook);
        let wanted = share + ahead(share, lane.pace);
        let room = self.room(lane.organization, webhook);
        room * 2 >= wanted || (room > 0 && lane.waiting.len() < share)
    }

    /// Puts a lane in its organization's turn queue if it has something to start and a permit for it.
    fn queue_up(&mut self, webhook: WebhookId) {
        let share = self.cap_share.of(self.limits.per_webhook_max, webhook);
        let Some(organization) = self.by_webhook.get(&webhook).map(|lane| lane.organization) else {
            return;
        };
        let is_full = self.room(organization, webhook) == 0;
        let Some(lane) = self.by_webhook.get_mut(&webhook) else {
            return;
        };
        if is_full {
            self.full.insert(webhook);
        } else {
            self.full.remove(&webhook);
        }
        if lane.waiting.is_empty() && lane.unrecorded == 0 && !lane.is_behind && self.by_webhook.len() > LANES_KEPT {
            self.by_webhook.remove(&webhook);
            self.full.remove(&webhook);
            return;
        }
        let Some(lane) = self.by_webhook.get_mut(&webhook) else {
            return;
        };
        if lane.in_turns || lane.is_being_read || lane.waiting.is_empty() || lane.running >= share {
            return;
        }
        lane.in_turns = true;
        let tenant = self.tenants.entry(lane.organization).or_default();
        tenant.turns.push_back(webhook);
        if !tenant.in_turns {
            tenant.in_turns = true;
            self.turns.push_back(lane.organization);
        }
    }

    /// The webhook whose turn it is: organizations take turns, and so do each one's webhooks. Once every permit is in
    /// use, the reserve is for organizations below their fair share.
    fn take_turn(&mut self) -> Option<WebhookId> {
        let busy = self
            .tenants
            .values()
            .filter(|tenant| tenant.running > 0 || tenant.in_turns);
        let is_crowded = self.running >= self.limits.attempts_max;
        let permits = PermitUse {
            max: self.limits.attempts_max,
            taken: self.running,
            // Counted only if it matters.
            holders: if is_crowded { busy.count() } else { 1 },
        };
        let may_start = |organization| {
            let tenant: Option<&Tenant> = self.tenants.get(organization);
            tenant.is_some_and(|tenant| permits.allows(tenant.running))
        };
        let chosen = self.turns.iter().position(may_start)?;
        let organization = self.turns.remove(chosen)?;
        let tenant = self.tenants.get_mut(&organization)?;
        let webhook = tenant.turns.pop_front();
        tenant.in_turns = !tenant.turns.is_empty();
        if tenant.in_turns {
            self.turns.push_back(organization);
        }
        let webhook = webhook?;
        if let Some(lane) = self.by_webhook.get_mut(&webhook) {
            lane.in_turns = false;
        }
        Some(webhook)
    }

    /// Starts the first delivery of a lane, if its webhook allows it; otherwise returns what must be done first.
    fn start(&mut self, webhook: WebhookId, now: Now) -> Option<Start> {
        let lane = self.by_webhook.get_mut(&webhook)?;
        let since = lane.waiting.front()?.since;
        let known = lane.state.clone();
        let fresh = known.filter(|(_, at)| *at >= since && now.monotonic.saturating_sub(*at) <= READING_AGE_MAX);
        let Some((state, read_at)) = fresh else {
            lane.is_being_read = true;
            self.to_read.push((lane.organization, webhook));
            return None;
        };
        let waiting = lane.waiting.pop_front()?;
        self.waiting = self.waiting.saturating_sub(1);
        let bytes = waiting.leased.message.payload.len();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        let tenant = self.tenants.entry(lane.organization).or_default();
        tenant.waiting = tenant.waiting.saturating_sub(1);
        tenant.waiting_bytes = tenant.waiting_bytes.saturating_sub(bytes);
        let WaitingDelivery { leased, .. } = waiting;
        let ends_too_soon = leased.until < now.time.plus(self.limits.lease_needed);
        let target = match state {
            WebhookState::Present(target) if target.allows(leased.grant) && !ends_too_soon => target,
            refused => {
                let organization = lane.organization;
                let refuse = match refused {
                    WebhookState::Unreadable => &mut self.to_postpone,
                    WebhookState::Present(_) | WebhookState::Deleted => &mut self.to_release,
                };
                refuse.push(leased.lease);
                self.queue_up(webhook);
                if self.tenants.get(&organization).is_some_and(Tenant::is_idle) {
                    self.tenants.remove(&organization);
                }
                return None;
            }
        };
        self.running += 1;
        self.unrecorded += 1;
        let organization = lane.organization;
        lane.running += 1;
        lane.unrecorded += 1;
        self.tenants.entry(organization).or_default().running += 1;
        self.queue_up(webhook);
        Some(Start {
            leased,
            target,
            read_at,
        })
    }
}
