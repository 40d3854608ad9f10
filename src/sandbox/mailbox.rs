//! What arrived at the inbox of a sandbox, and what it answers next. Both are bounded: the oldest arrivals go first.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::domain::{id::WebhookId, timestamp::Timestamp};

/// Arrivals that are kept at most.
pub(super) const ARRIVALS_MAX: usize = 1000;

/// Bytes of the arrivals that are kept at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request that arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    /// Its number since the start or the last reset, from 1.
    pub number: u64,
    /// When it arrived, by the sandbox's clock.
    pub received_at: Timestamp,
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body as text.
    pub body: String,
    /// The same, where it is JSON.
    pub payload: Option<Box<RawValue>>,
    /// The webhook that the delivery was owed to.
    pub webhook_id: Option<WebhookId>,
    /// Whether both signatures are right.
    pub verified: bool,
    /// Why they are not.
    pub fault: Option<String>,
    /// What it is answered.
    pub answer: Answer,
}

impl Arrival {
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        2 * self.body.len() + self.path.len() + headers + 512
    }
}

/// What the inbox answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long the answer waits, in milliseconds.
    pub delay_ms: u64,
    /// The header `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// The body.
    pub body: String,
    /// Whether the connection is closed before the answer is whole.
    pub close: bool,
    /// How often it is given, before the next one is.
    pub times: u32,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            delay_ms: 0,
            retry_after_s: None,
            body: "ok".to_owned(),
            close: false,
            times: 1,
        }
    }
}

impl Answer {
    /// How long the answer waits.
    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

/// What arrived, and what is answered next.
#[derive(Debug)]
pub struct Mailbox {
    kept: Mutex<Kept>,
    /// How many have arrived: whoever waits for one is notified.
    arrived: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// How many have arrived.
    count: u64,
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    answers: VecDeque<Answer>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            arrived: watch::Sender::new(0),
        }
    }
}

impl Mailbox {
    /// Takes the next scripted answer, or the usual one.
    pub(super) fn next_answer(&self) -> Answer {
        let mut kept = self.lock();
        let Some(next) = kept.answers.front_mut() else {
            return Answer::default();
        };
        let answer = Answer {
            times: 1,
            ..next.clone()
        };
        next.times -= 1;
        if next.times == 0 {
            kept.answers.pop_front();
        }
        answer
    }

    /// Keeps an arrival, under the next number.
    pub(super) fn keep(&self, mut arrival: Arrival) {
        let mut kept = self.lock();
        kept.count += 1;
        arrival.number = kept.count;
        kept.bytes += arrival.bytes();
        kept.arrivals.push_back(arrival);
        while kept.arrivals.len() > ARRIVALS_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.arrivals.pop_front() else { break };
            kept.bytes -= oldest.bytes();
        }
        let count = kept.count;
        // Whoever waits looks at what is kept while the count is locked, so never both at once the other way round.
        drop(kept);
        self.arrived.send_replace(count);
    }

    /// Waits until there are so many that are wanted, for `wait` at most.
    pub(super) async fn wait_for(&self, count: usize, is_wanted: impl Fn(&Arrival) -> bool, wait: Duration) {
        let mut arrived = self.arrived.subscribe();
        let wanted = || self.lock().arrivals.iter().filter(|one| is_wanted(one)).count();
        let enough = arrived.wait_for(|_| wanted() >= count);
        // Whoever waited in vain sees what is there.
        drop(tokio::time::timeout(wait, enough).await);
    }

    /// The arrivals, oldest first.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.lock().arrivals.iter().cloned().collect()
    }

    /// Forgets the arrivals. Their numbers go on.
    pub(super) fn empty(&self) {
        let mut kept = self.lock();
        kept.arrivals.clear();
        kept.bytes = 0;
    }

    /// Forgets everything, and counts from 1 again.
    pub(super) fn reset(&self) {
        *self.lock() = Kept::default();
        self.arrived.send_replace(0);
    }

    /// Replaces what is answered next.
    pub(super) fn script(&self, answers: Vec<Answer>) {
        self.lock().answers = answers.into();
    }

    /// What is answered next.
    pub(super) fn scripted(&self) -> Vec<Answer> {
        self.lock().answers.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
