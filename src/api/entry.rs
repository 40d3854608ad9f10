//! The order in which requests start their work, once it is known whose they are: organizations take turns.
//!
//! The runtime keeps tasks that can run in one queue, first come, first served. Hundreds of connections of one organization,
//! each with a request to answer, would be ahead of every step of everybody else's requests and deliveries, and there are
//! many steps. So only a few requests start in each *round*, which lasts until every task that can run now has run. The
//! others wait here, where organizations take turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::{fairness::Turns, id::OrganizationId};

/// How many requests start in one round.
const ROUND_MAX: usize = 8;

/// Where requests wait to start. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Entry(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Requests that have started in this round.
    begun: usize,
    /// Whether a task is counting rounds. There is none while the service is idle.
    is_counted: bool,
    waiting: Turns<OrganizationId, oneshot::Sender<()>>,
}

impl Entry {
    /// Waits until a request of this organization may start. Returns at once unless a round is full.
    pub(super) async fn wait(&self, organization: OrganizationId) {
        let turn = {
            let mut state = self.lock();
            if !state.is_counted {
                state.is_counted = true;
                tokio::spawn(self.clone().count());
            }
            if state.begun < ROUND_MAX && state.waiting.is_empty() {
                state.begun += 1;
                return;
            }
            let (begin, turn) = oneshot::channel();
            state.waiting.push(organization, begin);
            turn
        };
        // The sender is never dropped unused while `self` lives.
        drop(turn.await);
    }

    /// Counts rounds until one passes in which nothing starts.
    async fn count(self) {
        loop {
            // Resumes after every task that can run now.
            tokio::task::yield_now().await;
            if !self.lock().next_round() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Starts the requests of the next round. False if nothing started in the last one and nothing waits.
    fn next_round(&mut self) -> bool {
        self.is_counted = self.begun > 0 || !self.waiting.is_empty();
        self.begun = 0;
        while self.begun < ROUND_MAX
            && let Some(begin) = self.waiting.pop()
        {
            // A client that has hung up uses no turn.
            self.begun += usize::from(begin.send(()).is_ok());
        }
        self.is_counted
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_request_of_another_organization_is_in_the_next_round_however_many_wait() {
        let [busy, other] = [1, 2].map(|number| OrganizationId::new(Uuid::from_u128(number)));
        let (entry, begun) = (Entry::default(), Arc::new(Mutex::new(Vec::new())));
        let mut requests = JoinSet::new();
        for organization in std::iter::repeat_n(busy, 600).chain([other]) {
            let (entry, begun) = (entry.clone(), Arc::clone(&begun));
            requests.spawn(async move {
                entry.wait(organization).await;
                begun.lock().unwrap().push(organization);
            });
        }
        requests.join_all().await;
        let begun = begun.lock().unwrap();
        assert_eq!(begun.len(), 601);
        let position = begun.iter().position(|organization| *organization == other).unwrap();
        assert!((ROUND_MAX..2 * ROUND_MAX).contains(&position), "{position}");
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobodys_turn_and_rest_returns() {
        let (entry, organization) = (Entry::default(), OrganizationId::new(Uuid::from_u128(1)));
        let mut requests = JoinSet::new();
        for _ in 0..100 {
            let entry = entry.clone();
            requests.spawn(async move { entry.wait(organization).await });
        }
        while entry.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        requests.abort_all();
        while entry.lock().is_counted {
            tokio::task::yield_now().await;
        }
        assert!(entry.lock().waiting.is_empty());
        entry.wait(organization).await;
        assert!(entry.lock().is_counted);
    }
}
