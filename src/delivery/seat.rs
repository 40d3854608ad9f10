//! How nodes that share a database divide the cap of a webhook, without asking each other.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::domain::id::WebhookId;

/// The place of this node among those that share a database. The cap of a webhook is divided among them, so that
/// together they keep it without asking each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// From zero, in the order of the nodes' ids.
    pub index: usize,
    /// Nodes that are alive; zero while this one must not send.
    pub nodes: usize,
}

impl Seat {
    /// The seat of the only node.
    pub const ALONE: Self = Self { index: 0, nodes: 1 };

    /// This node's share of a cap. What does not divide goes to other nodes for each webhook.
    #[must_use]
    pub fn share(self, cap: usize, webhook: WebhookId) -> usize {
        let Self { index, nodes } = self;
        if nodes == 0 {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        webhook.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % nodes as u64).unwrap_or_default();
        cap / nodes + usize::from((index + turn) % nodes < cap % nodes)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_shares_of_all_nodes_are_the_cap_whatever_the_webhook() {
        for nodes in 1..=13 {
            for cap in [1, 3, 10, 64] {
                for number in 0..20 {
                    let webhook = WebhookId::new(Uuid::from_u128(number));
                    let share = |index| Seat { index, nodes }.share(cap, webhook);
                    assert_eq!((0..nodes).map(share).sum::<usize>(), cap, "{nodes} nodes");
                }
            }
        }
        let first = WebhookId::new(Uuid::nil());
        assert_eq!(Seat { index: 0, nodes: 0 }.share(10, first), 0);
    }
}
