//! The possible steps.

use std::{collections::HashSet, time::Duration};

use kallima_webhooks::{
    delivery::lanes::{Now, Start, Step},
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        destination::{Destination, DestinationPolicy},
        event::{Envelope, Publication, Recorded},
        event_filter::EventFilter,
        health::Health,
        id::DeliveryId,
        secret::Secret,
        signature,
        webhook::NewWebhook,
        webhook_settings::WebhookSettings,
    },
    store::{
        events,
        once::Once,
        queue::{
            claim::{self, Wanted},
            finish,
            lease::{Full, Grant, Leased},
            leases, work,
        },
        webhooks,
    },
};
use rand::RngExt as _;
use serde_json::json;

use super::{
    customer::switching,
    model::{CAP, Mode, Webhook},
    world::{Flight, Handed, World},
};

/// The result of a write without a key.
pub(super) fn done<T>(once: Once<T>) -> T {
    match once {
        Once::Now(done) => done,
        _ => panic!("a write without a key is done now"),
    }
}

const TYPES: [&str; 3] = ["humanization.completed", "job.failed", "job.completed"];

impl World {
    /// Makes one random step.
    pub(super) async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..16 => self.publish().await,
            16..36 => self.claim().await,
            36..56 => self.start().await,
            56..72 => self.finish().await,
            72 => self.renew().await,
            74..80 => self.advance(),
            80 => {
                let node = self.rng.random_range(0..self.nodes.len());
                self.beat(node);
            }
            81 => self.jump(),
            82..84 => self.crash().await,
            84 => self.rush().await,
            73 | 85 => self.sweep().await,
            86 => self.outage().await,
            87..89 => self.change_mode(),
            89..93 => self.change_webhook().await,
            93..96 => self.retry().await,
            96..98 => self.test().await,
            _ => self.replay().await,
        }
    }

    pub(super) fn url(&mut self) -> Destination {
        let number: u32 = self.rng.random();
        Destination::parse(
            &format!("https://receiver.example.com/{number}"),
            &DestinationPolicy::default(),
        )
        .unwrap()
    }

    pub(super) async fn register(&mut self) {
        let wants = [None, Some("job."), Some("webhook")][self.rng.random_range(0..3)];
        let events = wants.map(|prefix| match prefix {
            "job." => vec!["job.*".to_owned()],
            _ => vec!["webhook.*".to_owned(), "webhook_delivery.*".to_owned()],
        });
        let (id, url, secret) = (self.clock.new_id(), self.url(), Secret::generate(&mut rand::rng()));
        let new = NewWebhook {
            id,
            settings: WebhookSettings {
                events: EventFilter::from_stored(events),
                ..WebhookSettings::new(url.clone())
            },
            secret: secret.clone(),
        };
        let created = webhooks::create(&self.db, self.org, new, self.origin(), self.now(), None).await;
        done(created.unwrap()).unwrap();
        self.model.webhooks.push(Webhook {
            id,
            url: url.url().to_string(),
            secret,
            deleted: false,
            wants,
            health: Health::new(true),
            mode: Mode::Well,
        });
    }

    pub(super) fn publication(&mut self, node: usize) -> Publication {
        let event_type = TYPES[self.rng.random_range(0..TYPES.len())];
        let number: u64 = self.rng.random();
        let data = json!({ "number": number });
        let event = Envelope::new(self.clock.new_event_id(), event_type, self.now_at(node), &data);
        Publication::new(self.org, event.unwrap()).unwrap()
    }

    async fn publish(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        // A node that counts as dead, or is stopping, takes nothing; one with full lanes, not everything.
        let full = match self.rng.random_range(0..10) {
            0 => None,
            1 => Some(Full {
                webhooks: self.model.webhooks.iter().map(|webhook| webhook.id).collect(),
                ..Full::default()
            }),
            2 => Some(Full {
                organizations: HashSet::from([self.org]),
                ..Full::default()
            }),
            _ => self.nodes[node].lanes.full(&[self.org]),
        };
        self.tell(&format!("node {node} has no room for {full:?}"));
        *self.collector.full.lock().unwrap() = full;
        let publication = self.publication(node);
        let (id, kind, payload, due) = (
            publication.event_id.clone(),
            publication.event_type.clone(),
            publication.payload.to_vec(),
            publication.created_at,
        );
        let to = self.model.owed_to(&kind, None);
        let recorded = done(events::record(&self.db, publication, None).await.unwrap());
        self.must(matches!(recorded, Recorded::New), "a new event is new");
        self.tell(&format!("{kind} is published to {} webhook(s)", to.len()));
        self.expect_owed(id.as_str(), &kind, &payload, &to, due).await;
        self.take_over_handed(node);
    }

    /// What a publication has leased enters the lanes of its node, unless the node dies first.
    fn take_over_handed(&mut self, node: usize) {
        *self.collector.full.lock().unwrap() = None;
        let handed: Vec<Handed> = std::mem::take(&mut *self.collector.handed.lock().unwrap());
        for (leased, states, at) in handed {
            self.tell(&format!("{} are leased at once to node {node}", leased.len()));
            for leased in &leased {
                let id = leased.lease.delivery_id;
                let webhook = &self.model.webhooks[self.model.deliveries[&id].webhook];
                let is_plain = webhook.health.enabled && !webhook.health.breaker_open();
                self.must(is_plain, "only what is plain is leased at once");
                self.model
                    .deliveries
                    .get_mut(&id)
                    .unwrap()
                    .give(&leased.lease, leased.until);
            }
            if self.rng.random_range(0..20) == 0 {
                self.tell(&format!("node {node} dies before it hands them over"));
                self.crash_now(node);
            } else {
                self.nodes[node].lanes.offer(leased, states, at);
            }
        }
    }

    async fn claim(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        let room_max = self.rng.random_range(1..=8);
        self.claim_at(node, room_max).await;
    }

    pub(super) async fn claim_at(&mut self, node: usize, room_max: usize) {
        let now = self.now_at(node);
        let walk = claim::ready(&self.db, self.nodes[node].cursor, now).await.unwrap();
        let lanes = &self.nodes[node].lanes;
        let wanted = walk.ready.iter().map(|ready| {
            let room = match ready.grant {
                Grant::Probe => usize::from(lanes.may_probe(ready.webhook_id)),
                _ => lanes.room(ready.organization_id, ready.webhook_id),
            };
            Wanted {
                ready: *ready,
                room: room.min(room_max),
            }
        });
        let wanted: Vec<Wanted> = wanted.filter(|wanted| wanted.room > 0).collect();
        self.nodes[node].cursor = walk.cursor;
        let at = self.clock.monotonic();
        let claimed = claim::claim(&self.db, wanted, self.lease, now).await.unwrap();
        // Seeds share a database, and a walk sees all of it.
        let (claimed, strange): (Vec<Leased>, Vec<Leased>) = claimed
            .into_iter()
            .partition(|leased| leased.lease.organization_id == self.org);
        let strange = strange.into_iter().map(|leased| leased.lease).collect();
        leases::release(&self.db, strange, now).await.unwrap();
        self.tell(&format!("node {node} claims {}", claimed.len()));
        for Leased {
            lease, until, grant, ..
        } in &claimed
        {
            let owed = &self.model.deliveries[&lease.delivery_id];
            let webhook = &self.model.webhooks[owed.webhook];
            let is_open = webhook.health.breaker_open();
            let allowed = !webhook.deleted && webhook.health.enabled && webhook.health.resume_at <= now;
            self.must(
                owed.is_due(now),
                &format!("{} is claimed before it is due", lease.delivery_id),
            );
            self.must(
                allowed,
                &format!(
                    "{} is claimed although its webhook is to be left alone",
                    lease.delivery_id
                ),
            );
            self.must(
                is_open == (*grant == Grant::Probe),
                "an open breaker lets probes out, and nothing else",
            );
            self.model
                .deliveries
                .get_mut(&lease.delivery_id)
                .unwrap()
                .give(lease, *until);
        }
        self.nodes[node].lanes.offer(claimed, Vec::new(), at);
    }

    /// A node does what its lanes say comes next.
    async fn start(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        self.start_at(node).await;
    }

    /// True if there was something to do.
    async fn start_at(&mut self, node: usize) -> bool {
        let now = Now {
            monotonic: self.clock.monotonic(),
            time: self.now_at(node),
        };
        match self.nodes[node].lanes.next(now, true) {
            None => return false,
            Some(Step::Start(start)) => self.send(node, &start, AttemptTrigger::Automatic),
            Some(Step::ReadWebhooks(webhooks)) => {
                let states = work::read_webhooks(&self.db, &webhooks).await.unwrap();
                self.nodes[node].lanes.webhooks_read(states, now.monotonic);
            }
            Some(Step::Release(leases)) => {
                for lease in &leases {
                    let owed = self.model.deliveries.get_mut(&lease.delivery_id).unwrap();
                    if owed.is_held_by(lease) {
                        owed.release(false, now.time);
                    }
                    self.tell(&format!(
                        "node {node} gives a lease back: {} is not made",
                        lease.delivery_id
                    ));
                }
                leases::release(&self.db, leases, now.time).await.unwrap();
            }
            Some(Step::Postpone(_)) => self.must(false, "every secret can be opened"),
        }
        true
    }

    /// Sends an attempt, which must be what it should be.
    pub(super) fn send(&mut self, node: usize, start: &Start, trigger: AttemptTrigger) {
        let (lease, now) = (start.leased.lease.clone(), self.now_at(node));
        let is_probe = start.leased.grant == Grant::Probe;
        let prepared = self.nodes[node].engine.prepare(start, trigger);
        let index = self.model.deliveries[&lease.delivery_id].webhook;
        let automatic = |flight: &&Flight| flight.trigger == AttemptTrigger::Automatic;
        let to_it = |flight: &&Flight| flight.lease.webhook_id == lease.webhook_id;
        let in_progress = self.flights.iter().filter(automatic).filter(to_it).count();
        let probing = self.flights.iter().filter(to_it).any(|flight| flight.is_probe);
        let owed = self.model.deliveries.get_mut(&lease.delivery_id).unwrap();
        let webhook = &self.model.webhooks[index];
        let on_hold = !webhook.health.enabled && trigger == AttemptTrigger::Automatic;
        let held = owed.is_held_by(&lease) && !webhook.deleted;
        let header = |name: &str| {
            let found = prepared.headers.iter().find(|(header, _)| *header == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let signed = signature::sign(
            &webhook.secret,
            &header("webhook-id"),
            now.as_unix_seconds(),
            &prepared.payload,
        );
        let is_signed = header("kallima-signature") == signed.kallima_signature
            && header("webhook-signature") == signed.webhook_signature;
        let promises = [
            (held, "a lease that was lost sends nothing"),
            (!on_hold, "a disabled webhook gets no automatic attempt"),
            (is_signed, "the signature is of the secret that is current"),
            (
                prepared.payload == owed.payload,
                "the bytes are the same on every attempt",
            ),
            (prepared.url.as_str() == webhook.url, "the address is the current one"),
            (lease.number > owed.arrived, "attempt numbers rise strictly"),
            (
                trigger != AttemptTrigger::Automatic || in_progress < CAP,
                "the cap holds over all nodes",
            ),
            (!is_probe || !probing, "one probe at a time"),
        ];
        let mode = webhook.mode;
        owed.arrived = lease.number;
        owed.accepted |= mode == Mode::Well;
        for (kept, promise) in promises {
            self.must(kept, promise);
        }
        if is_probe {
            self.tell("a probe goes out");
        }
        self.tell(&format!(
            "attempt {} of {} is sent by node {node}: {mode:?}",
            lease.number, lease.delivery_id
        ));
        self.flights.push(Flight {
            node,
            lease,
            trigger,
            is_probe,
            prepared,
            outcome: mode.outcome(),
        });
    }

    async fn finish(&mut self) {
        let Some(chosen) = self.pick(self.flights.len()) else {
            return;
        };
        self.finish_flight(chosen).await;
    }

    pub(super) async fn finish_flight(&mut self, index: usize) {
        let Flight {
            node,
            lease,
            trigger,
            prepared,
            outcome,
            ..
        } = self.flights.swap_remove(index);
        let (id, jitter) = (lease.delivery_id, self.rng.random());
        if trigger == AttemptTrigger::Automatic {
            self.nodes[node].lanes.ended(&lease, Duration::from_millis(20));
        }
        let (held, own) = (self.model.deliveries[&id].is_held_by(&lease), lease.clone());
        let now = self.now_at(node);
        let finished = self.nodes[node]
            .engine
            .conclude(lease, trigger, prepared, outcome.clone(), jitter);
        let planned = finished.next_attempt_at;
        let recorded = finish::finish(&self.db, finished).await.unwrap();
        if trigger == AttemptTrigger::Automatic {
            self.nodes[node].lanes.recorded(&own);
        }
        self.tell(&format!("the attempt of {id} ends, recorded: {recorded}"));
        self.must(
            recorded == held,
            "a record is made by the holder of the lease, and by nobody else",
        );
        let webhook = self.model.deliveries[&id].webhook;
        let before = self.model.webhooks[webhook].health;
        if outcome.error.is_some() {
            self.nodes[node].lanes.forget(self.model.webhooks[webhook].id);
        }
        let news = if held {
            self.model
                .end(id, &outcome, trigger == AttemptTrigger::Test, planned, now)
        } else {
            Vec::new()
        };
        self.expect_news(news).await;
        let after = self.model.webhooks[webhook].health;
        if (before.enabled, before.breaker_open()) != (after.enabled, after.breaker_open()) {
            // What other nodes have read of the webhook before is soon too old.
            self.respond();
        }
    }

    /// Many events at once, and a node that attempts whatever it is given.
    async fn rush(&mut self) {
        for _ in 0..self.rng.random_range(4..12) {
            self.publish().await;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        for _ in 0..4 {
            self.claim_at(node, 8).await;
            self.land_all().await;
        }
    }

    /// A receiver that fails for hours or days, while a node goes on attempting what is due.
    async fn outage(&mut self) {
        let webhook = self.rng.random_range(0..self.model.webhooks.len());
        self.model.webhooks[webhook].mode = Mode::Unreachable;
        self.tell(&format!("an outage of webhook {webhook}"));
        self.publish().await;
        let node = self.rng.random_range(0..self.nodes.len());
        for _ in 0..self.rng.random_range(2..7) {
            self.claim_at(node, 8).await;
            self.land_all().await;
            let hours = self.rng.random_range(1..30);
            self.clock.advance(Duration::from_hours(hours));
            self.tell(&format!("{hours} hours later"));
        }
        // Too early: the receiver is not back yet, and the new schedule begins with a failure.
        if self.rng.random() {
            self.replay_of(webhook, DeliveryStatus::Failed).await;
            self.claim_at(node, 8).await;
            self.land_all().await;
        }
    }

    /// Starts and finishes every attempt that may be made now.
    async fn land_all(&mut self) {
        loop {
            let mut is_idle = true;
            for node in 0..self.nodes.len() {
                while self.start_at(node).await {
                    is_idle = false;
                }
            }
            while !self.flights.is_empty() {
                is_idle = false;
                self.finish_flight(0).await;
            }
            if is_idle {
                return;
            }
        }
    }

    /// Everything is healthy again: whatever is owed to an existing webhook must arrive.
    pub(super) async fn heal(&mut self) {
        for node in 0..self.nodes.len() {
            self.crash_node(node).await;
        }
        for index in 0..self.model.webhooks.len() {
            self.model.webhooks[index].mode = Mode::Well;
            if !self.model.webhooks[index].deleted {
                self.update(index, switching(true)).await;
            }
        }
        for _ in 0..200 {
            if self
                .model
                .deliveries
                .values()
                .all(|owed| owed.status != DeliveryStatus::Pending)
            {
                return;
            }
            // Longer than any lease, any pause of a breaker and any wait of the schedule.
            self.clock.advance(Duration::from_hours(27));
            self.sweep().await;
            for node in 0..self.nodes.len() {
                self.claim_at(node, 100).await;
                self.land_all().await;
            }
        }
        let left: Vec<&DeliveryId> = self
            .model
            .deliveries
            .iter()
            .filter(|(_, owed)| owed.status == DeliveryStatus::Pending)
            .map(|(id, _)| id)
            .collect();
        self.must(
            false,
            &format!("these never arrive, although everything is healthy: {left:?}"),
        );
    }
}
