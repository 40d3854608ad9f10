//! The engine's side of the simulation, and its comparison with the model.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use kallima_webhooks::{
    clock::Clock,
    config::{EngineOptions, TimeBounds},
    delivery::{
        Engine,
        attempt::Prepared,
        cap_share::CapShare,
        lanes::{LaneLimits, Lanes},
        resolver::Resolver,
        sender::Sender,
    },
    domain::{
        audit::Origin,
        delivery::{AttemptTrigger, DeliveryStatus, DisabledReason},
        destination::DestinationPolicy,
        id::{OrganizationId, TokenId, WebhookId},
        limits::Limits,
        outcome::Outcome,
        timestamp::Timestamp,
    },
    store::{
        Database,
        deliveries::{self, DeliveryQuery},
        events,
        organizations::{self},
        page::PageLimit,
        queue::lease::{Full, HandOver, Lease, Leased, Room, WebhookState},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::model::{CAP, Model, News, Owed, SCHEDULE_S};

/// More than any simulation makes.
const ALL: PageLimit = PageLimit {
    items: 100_000,
    bytes: u64::MAX,
};

/// An attempt in progress at a node.
pub(super) struct Flight {
    pub(super) node: usize,
    pub(super) lease: Lease,
    pub(super) trigger: AttemptTrigger,
    pub(super) is_probe: bool,
    pub(super) prepared: Prepared,
    pub(super) outcome: Outcome,
}

/// A node: what waits in its memory, and where its walk continues.
pub(super) struct Node {
    pub(super) lanes: Lanes,
    pub(super) cursor: Option<WebhookId>,
    /// Its own clock, whose wall clock is wrong; on an embedded database the only one there is.
    pub(super) clock: Clock,
    pub(super) engine: Engine,
}

/// What a publication hands over: leased deliveries, and their webhooks as they stood at a time.
pub(super) type Handed = (Vec<Leased>, Vec<(WebhookId, WebhookState)>, Duration);

/// Takes what is handed over, for the node that publishes.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// The full lanes of the node that publishes next; `None` if it takes nothing.
    pub(super) full: Mutex<Option<Full>>,
    pub(super) handed: Mutex<Vec<Handed>>,
}

impl HandOver for Collector {
    fn room(&self, _: &[OrganizationId]) -> Option<Room> {
        let full = self.full.lock().unwrap().clone()?;
        Some(Room {
            full,
            lease: options().lease(),
        })
    }

    fn not_made(&self, leases: Vec<Lease>) {
        assert!(leases.is_empty(), "the database of a simulation is there");
    }

    fn take(&self, leased: Vec<Leased>, states: Vec<(WebhookId, WebhookState)>, read_at: Duration) {
        self.handed.lock().unwrap().push((leased, states, read_at));
    }

    fn due(&self) {}

    fn load(&self) -> (usize, usize) {
        (0, 0)
    }

    fn changed(&self, _: WebhookId) {}

    fn disabled(&self, _: DisabledReason) {}

    fn emptied(&self) {}
}

fn options() -> EngineOptions {
    EngineOptions {
        attempt_timeout_ms: 10_000,
        attempts_max: 100,
        attempts_per_webhook_max: CAP as u64,
        poll_interval_ms: 1_000,
        retry_schedule_s: SCHEDULE_S.to_vec(),
        has_breaker: true,
    }
}

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) db: Database,
    pub(super) clock: Clock,
    pub(super) org: OrganizationId,
    sender: Sender,
    pub(super) lease: Duration,
    pub(super) bounds: TimeBounds,
    pub(super) nodes: Vec<Node>,
    pub(super) collector: Arc<Collector>,
    /// One process on an embedded database, which releases everything when it starts; or several nodes, which don't.
    pub(super) embedded: bool,
    pub(super) flights: Vec<Flight>,
    pub(super) model: Model,
    known_events: BTreeSet<String>,
    seed: u64,
    story: String,
}

impl World {
    pub(super) async fn new(
        seed: u64,
        db: Database,
        clock: Clock,
        collector: Arc<Collector>,
        may_be_embedded: bool,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = options();
        let resolver = Resolver::from_fn(|_| async { Err(std::io::Error::other("nothing is sent in a simulation")) });
        let sender = Sender::new(
            resolver,
            DestinationPolicy::default(),
            options.attempt_timeout(),
            Vec::new(),
        )
        .unwrap();
        let (lease, bounds) = (options.lease(), options.bounds());
        let organization = organizations::Organization {
            id: clock.new_id(),
            name: format!("seed {seed}"),
            created_at: clock.now(),
            limits: Limits::default(),
        };
        organizations::create(&db, &organization).await.unwrap();
        let embedded = may_be_embedded && rng.random_bool(0.5);
        let nodes = if embedded { 1 } else { rng.random_range(1..=3) };
        let mut world = Self {
            rng,
            db,
            clock,
            org: organization.id,
            sender,
            lease,
            bounds,
            nodes: Vec::new(),
            collector,
            embedded,
            flights: Vec::new(),
            model: Model::default(),
            known_events: BTreeSet::new(),
            seed,
            story: String::new(),
        };
        for index in 0..nodes {
            let node = world.node(index, nodes);
            world.nodes.push(node);
            world.beat(index);
        }
        for _ in 0..world.rng.random_range(1..=4) {
            world.register().await;
        }
        world
    }

    /// A node that has just started.
    pub(super) fn node(&mut self, index: usize, nodes: usize) -> Node {
        let clock = if self.embedded {
            self.clock.clone()
        } else {
            self.clock.of_node(self.rng.random_range(-7_200_000..=7_200_000))
        };
        let mut lanes = Lanes::new(LaneLimits {
            attempts_max: 100,
            per_webhook_max: CAP,
            lease_needed: options().lease_needed(),
        });
        lanes.set_cap_share(CapShare { index, nodes });
        Node {
            lanes,
            cursor: None,
            engine: Engine::new(&self.db, clock.clone(), options(), self.sender.clone()),
            clock,
        }
    }

    /// A random one of `count`, if there is one.
    pub(super) fn pick(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.rng.random_range(0..count))
    }

    /// The database's time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time as a node knows it.
    pub(super) fn now_at(&self, node: usize) -> Timestamp {
        self.nodes[node].clock.now()
    }

    /// The origin of a write; a simulation has no requests.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            entry_id: self.clock.new_id(),
            token_id: TokenId::NIL,
            address: None,
            request_id: None,
        }
    }

    /// Adds to the story of this seed, which is printed when something is wrong.
    pub(super) fn tell(&mut self, what: &str) {
        let now = self.now();
        writeln!(self.story, "{now}  {what}").unwrap();
    }

    pub(super) fn story(&self) -> String {
        format!(
            "seed {}, {} node(s), embedded: {}\n{}",
            self.seed,
            self.nodes.len(),
            self.embedded,
            self.story
        )
    }

    /// # Panics
    /// If `promise` does not hold, with the seed and its story.
    #[track_caller]
    pub(super) fn must(&self, promise: bool, what: &str) {
        assert!(
            promise,
            "{what}\n{}KALLIMA_SIMULATION_SEED={} runs this again",
            self.story(),
            self.seed
        );
    }

    /// Compares the database with the model: every delivery, no others, each as it must be.
    pub(super) async fn check(&self) {
        let all = deliveries::list_bare(&self.db, self.org, &DeliveryQuery::default(), ALL).await;
        let rows = all.unwrap().items;
        self.must(
            rows.len() == self.model.deliveries.len(),
            "a delivery is there that is owed to nobody, or is lost",
        );
        for row in rows {
            let Some(owed) = self.model.deliveries.get(&row.id) else {
                self.must(false, &format!("delivery {} is owed to nobody", row.id));
                return;
            };
            let planned = (owed.status == DeliveryStatus::Pending && owed.lease.is_none()).then_some(owed.due);
            let seen = (
                row.status,
                u32::try_from(row.attempt_count).unwrap(),
                row.next_attempt_at,
            );
            let expected = (owed.status, owed.attempts, planned);
            self.must(
                seen == expected,
                &format!(
                    "delivery {}: status, attempts, next: seen {seen:?}, expected {expected:?}",
                    row.id
                ),
            );
            self.must(
                owed.status != DeliveryStatus::Delivered || owed.accepted,
                &format!("delivery {} is delivered, and nobody took it", row.id),
            );
        }
    }

    /// Adds the deliveries of an event that was just recorded, which must be owed to these webhooks.
    pub(super) async fn expect_owed(
        &mut self,
        event_id: &str,
        event_type: &str,
        payload: &[u8],
        to: &[WebhookId],
        due: Timestamp,
    ) {
        self.known_events.insert(event_id.to_owned());
        let question = DeliveryQuery {
            event_id: kallima_webhooks::domain::event_id::EventId::parse(event_id),
            ..DeliveryQuery::default()
        };
        let all = deliveries::list_bare(&self.db, self.org, &question, ALL).await;
        let rows = all.unwrap().items;
        let mut owed: Vec<WebhookId> = rows.iter().map(|row| row.webhook_id).collect();
        owed.sort_unstable();
        self.must(
            owed == to,
            &format!("{event_type} is owed to {owed:?}, expected {to:?}"),
        );
        for row in rows {
            let webhook = self
                .model
                .webhooks
                .iter()
                .position(|webhook| webhook.id == row.webhook_id)
                .unwrap();
            self.model
                .deliveries
                .insert(row.id, Owed::new(webhook, event_type, payload.to_vec(), due));
        }
    }

    /// The service must have published exactly these operational events since the last look.
    pub(super) async fn expect_news(&mut self, expected: Vec<News>) {
        let events = events::list(&self.db, self.org, None, None, ALL).await.unwrap();
        let new: Vec<_> = events
            .items
            .into_iter()
            .filter(|event| !self.known_events.contains(event.id.as_str()))
            .collect();
        let mut left = expected;
        for event in new {
            let payload: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
            let about = payload["data"]["webhook_id"].as_str().unwrap().to_owned();
            let position = left
                .iter()
                .position(|(kind, id, _)| *kind == event.event_type && id.to_string() == about);
            self.must(
                position.is_some(),
                &format!("nobody expected {} about {about}", event.event_type),
            );
            let (kind, _, to) = left.swap_remove(position.unwrap());
            let due = self.now();
            self.expect_owed(event.id.as_str(), kind, &event.payload, &to, due)
                .await;
            self.tell(&format!("the organization is notified of {kind}"));
        }
        self.must(
            left.is_empty(),
            &format!("the organization was not notified of {left:?}"),
        );
    }

    /// The log of attempts: numbers rise, none is later than the count, and a success is behind what was delivered.
    pub(super) async fn check_history(&self) {
        for (id, owed) in &self.model.deliveries {
            let attempts = deliveries::attempts(&self.db, self.org, *id, 0, ALL).await;
            let attempts = attempts.unwrap().items;
            let numbers: Vec<u32> = attempts
                .iter()
                .map(|attempt| u32::try_from(attempt.number).unwrap())
                .collect();
            self.must(
                numbers.is_sorted_by(|a, b| a < b),
                &format!("attempts of {id}: {numbers:?}"),
            );
            self.must(
                numbers.last().is_none_or(|last| *last <= owed.attempts),
                "an attempt was never begun",
            );
            let done = match owed.status {
                DeliveryStatus::Pending | DeliveryStatus::Unknown => false,
                DeliveryStatus::Delivered => owed.accepted && attempts.iter().any(|attempt| attempt.error.is_none()),
                DeliveryStatus::Failed => owed.given_up,
                DeliveryStatus::Canceled => self.model.webhooks[owed.webhook].deleted,
            };
            self.must(
                done,
                &format!("delivery {id} ends as {:?} without a reason", owed.status),
            );
        }
    }
}
