//! How nodes that share a database divide a webhook's cap without communicating.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::domain::id::WebhookId;

/// This node's share of each webhook's cap. The nodes that share a database divide the cap, so that together they
/// respect it without communicating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapShare {
    /// This node's index, from 0, ordered by node id.
    pub index: usize,
    /// The number of live nodes; zero while this one must not send.
    pub nodes: usize,
}

impl CapShare {
    /// The share of the only node.
    pub const ALONE: Self = Self { index: 0, nodes: 1 };

    /// This node's part of a cap. A remainder goes to different nodes depending on the webhook.
    #[must_use]
    pub fn of(self, cap: usize, webhook: WebhookId) -> usize {
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
                    let share = |index| CapShare { index, nodes }.of(cap, webhook);
                    assert_eq!((0..nodes).map(share).sum::<usize>(), cap, "{nodes} nodes");
                }
            }
        }
        let first = WebhookId::new(Uuid::nil());
        assert_eq!(CapShare { index: 0, nodes: 0 }.of(10, first), 0);
    }
}
