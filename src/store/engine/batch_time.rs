//! How long a transaction on SQLite accepts more writes.
//!
//! Long transactions share the cost of a commit among many writes, but a write that arrives during one waits for its end.
//! An organization that writes alone waits only for itself. While several write, transactions are short, so that a flood of
//! one delays the others less.

use std::time::{Duration, Instant};

use crate::domain::id::OrganizationId;

/// While a single organization writes.
const ALONE: Duration = Duration::from_millis(2);

/// While several do.
const SHARED: Duration = Duration::from_micros(500);

/// How long several are expected to go on writing.
const MEMORY: Duration = Duration::from_secs(5);

/// What is known of the organizations that wrote recently.
#[derive(Debug, Default)]
pub(super) struct BatchTime {
    last: Option<OrganizationId>,
    shared_at: Option<Instant>,
}

impl BatchTime {
    /// How long the transaction that begins now may accept writes, if these organizations wait.
    pub(super) fn next(&mut self, waiting: impl Iterator<Item = OrganizationId>, now: Instant) -> Duration {
        // Two are enough to know.
        for organization in waiting.take(2) {
            if self.last.replace(organization).is_some_and(|last| last != organization) {
                self.shared_at = Some(now);
            }
        }
        let is_shared = self
            .shared_at
            .is_some_and(|at| now.saturating_duration_since(at) < MEMORY);
        if is_shared { SHARED } else { ALONE }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn transactions_are_short_only_while_several_organizations_write() {
        let [a, b] = [1, 2].map(|number| OrganizationId::new(Uuid::from_u128(number)));
        let (mut batch_time, start) = (BatchTime::default(), Instant::now());
        let mut next = |waiting: &[OrganizationId], seconds| {
            batch_time.next(waiting.iter().copied(), start + Duration::from_secs(seconds))
        };
        assert_eq!(next(&[], 0), ALONE);
        assert_eq!([next(&[a], 0), next(&[], 1), next(&[a], 2)], [ALONE; 3]);
        assert_eq!(next(&[a, b], 3), SHARED, "both wait");
        assert_eq!([next(&[b], 4), next(&[], 7)], [SHARED; 2], "both wrote recently");
        assert_eq!(next(&[b], 8), ALONE, "one writes alone again");
        assert_eq!(next(&[a], 9), SHARED, "the other one wrote last");
    }
}
