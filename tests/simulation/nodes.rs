//! What happens to nodes, their leases, and the receivers.

use kallima_webhooks::{domain::timestamp::Timestamp, store::queue::leases};
use rand::RngExt as _;

use super::{model::Mode, world::World};

impl World {
    /// A node renews what waits in its lanes.
    pub(super) async fn renew(&mut self) {
        let (node, now) = (self.rng.random_range(0..self.nodes.len()), self.now());
        let until = now.plus(self.lease);
        let leases = self.nodes[node].lanes.renewable(until, until);
        if !leases.is_empty() {
            self.tell(&format!("node {node} renews {}", leases.len()));
        }
        for lease in &leases {
            let owed = self.model.deliveries.get_mut(&lease.delivery_id).unwrap();
            if let Some(held) = owed.lease.as_mut().filter(|held| held.token == lease.token) {
                held.until = until;
            }
        }
        leases::renew(&self.db, leases, until).await.unwrap();
    }

    /// Leases that have ended are released.
    pub(super) async fn sweep(&mut self) {
        let now = self.now();
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
        self.crash_now(node);
        if self.embedded {
            let now = self.now();
            leases::recover(&self.db, now).await.unwrap();
            for owed in self.model.deliveries.values_mut().filter(|owed| owed.lease.is_some()) {
                owed.release(true, now);
            }
        }
    }

    /// All that a node had in memory is gone. An embedded one recovers when it starts again.
    pub(super) fn crash_now(&mut self, node: usize) {
        self.flights.retain(|flight| flight.node != node);
        self.nodes[node] = Self::node(node, self.nodes.len());
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
