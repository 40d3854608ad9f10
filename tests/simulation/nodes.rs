//! Events of nodes, leases and receivers.

use std::time::Duration;

use kallima_webhooks::{
    domain::timestamp::Timestamp,
    store::{queue::leases, upkeep::clamp},
};
use rand::RngExt as _;

use super::{model::Mode, world::World};

impl World {
    /// A node renews what waits in its lanes.
    pub(super) async fn renew(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        let until = self.now_at(node).plus(self.lease);
        let leases = self.nodes[node].lanes.renewable(until);
        if !leases.is_empty() {
            self.tell(&format!("node {node} renews {}", leases.len()));
        }
        let mut expected = Vec::new();
        for lease in &leases {
            let owed = self.model.deliveries.get_mut(&lease.delivery_id).unwrap();
            if let Some(held) = owed.lease.as_mut().filter(|held| held.token == lease.token) {
                held.until = until;
                expected.push(lease.delivery_id);
            }
        }
        let held = leases::renew(&self.db, leases, until).await.unwrap();
        let renewed: Vec<_> = held.iter().map(|lease| lease.delivery_id).collect();
        self.must(renewed == expected, "what is renewed is what is held");
        self.nodes[node].lanes.renewed(&held, until);
    }

    /// Leases that have ended are released.
    pub(super) async fn sweep(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        let now = self.now_at(node);
        leases::release_ended(&self.db, Timestamp::from_millis(0), now)
            .await
            .unwrap();
        let mut released = 0;
        for owed in self.model.deliveries.values_mut() {
            if owed.lease.is_some_and(|held| held.until <= now) {
                owed.release(true, now);
                released += 1;
            }
        }
        if released > 0 {
            self.tell(&format!("a lease that ended is taken over, or {released}"));
        }
    }

    pub(super) async fn crash(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        self.crash_node(node).await;
    }

    pub(super) async fn crash_node(&mut self, node: usize) {
        self.tell(&format!("node {node} crashes"));
        if self.embedded {
            self.set_machine();
            self.crash_now(node);
            let now = self.now();
            leases::recover(&self.db, now).await.unwrap();
            for owed in self.model.deliveries.values_mut().filter(|owed| owed.lease.is_some()) {
                owed.release(true, now);
            }
            self.clamp(node).await;
        } else if self.rng.random_range(0..4) == 0 {
            // The database restarts, and with it every node.
            self.set_machine();
            for node in 0..self.nodes.len() {
                self.crash_now(node);
            }
            self.clamp(node).await;
        } else {
            self.crash_now(node);
            self.clamp(node).await;
        }
    }

    /// What a node does when it starts.
    async fn clamp(&mut self, node: usize) {
        let now = self.now_at(node);
        let expected = self.model.clamp(self.bounds, now);
        clamp::clamp(&self.db, self.bounds, now).await.unwrap();
        if expected > 0 {
            self.tell(&format!("{expected} times were brought back"));
        }
    }

    /// While nothing runs, the shared clock may be set wrong, or right again.
    fn set_machine(&mut self) {
        if self.rng.random_bool(0.5) {
            return;
        }
        let most = [60, 3_600, 40 * 24 * 3_600][self.rng.random_range(0..3)];
        let ahead_ms = self.rng.random_range(-most..=most) * 1_000;
        self.clock.jump(ahead_ms);
        self.tell(&format!("it starts with a clock that is {ahead_ms} ms ahead"));
    }

    /// A node reads the database's clock, which takes a moment.
    pub(super) fn beat(&mut self, node: usize) {
        let clock = self.nodes[node].clock.clone();
        let mut pass = || self.clock.advance(Duration::from_millis(self.rng.random_range(0..60)));
        let asked = clock.now();
        pass();
        let theirs = self.clock.now();
        pass();
        let moved_ms = clock.follow(asked, theirs, clock.now());
        self.tell(&format!("node {node} follows the database's clock by {moved_ms} ms"));
        let apart_ms = clock.now().as_millis() - self.clock.now().as_millis();
        self.must(
            self.embedded || apart_ms.abs() <= 120,
            &format!("node {node} is {apart_ms} ms ahead of the database"),
        );
    }

    /// Somebody sets the clock of a node that runs: nothing follows from it.
    pub(super) fn jump(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        let before = self.now_at(node);
        let ahead_s = self.rng.random_range(-40 * 24 * 3_600..=40 * 24 * 3_600_i64);
        if !self.embedded {
            self.nodes[node].clock.jump(ahead_s * 1_000);
        }
        self.tell(&format!("the wall clock jumps at node {node}, by {ahead_s} s"));
        self.must(before == self.now_at(node), "a wall clock that jumps moves nothing");
    }

    /// Everything that a node had in memory is gone. An embedded one recovers when it restarts.
    pub(super) fn crash_now(&mut self, node: usize) {
        self.flights.retain(|flight| flight.node != node);
        self.nodes[node] = self.node(node, self.nodes.len());
        self.beat(node);
    }

    /// Time passes.
    pub(super) fn advance(&mut self) {
        let by = match self.rng.random_range(0..10) {
            0..3 => Duration::from_millis(self.rng.random_range(1..2_000)),
            3..6 => Duration::from_secs(self.rng.random_range(1..30)),
            6..8 => Duration::from_secs(self.rng.random_range(30..7_200)),
            8 => Duration::from_hours(self.rng.random_range(1..30)),
            _ => Duration::from_hours(24 * self.rng.random_range(1..6)),
        };
        self.clock.advance(by);
        self.tell(&format!("{by:?} later"));
    }

    /// A receiver behaves differently from now on.
    pub(super) fn change_mode(&mut self) {
        let webhook = self.rng.random_range(0..self.model.webhooks.len());
        let mode = match self.rng.random_range(0..12) {
            0..5 => Mode::Well,
            5..8 => Mode::Failing(if self.rng.random() { 500 } else { 404 }),
            8..10 => Mode::Unreachable,
            10 => Mode::Busy {
                retry_after_s: self.rng.random_range(0..200_000),
            },
            _ => Mode::Gone,
        };
        self.model.webhooks[webhook].mode = mode;
        self.tell(&format!("webhook {webhook} is {mode:?}"));
    }
}
