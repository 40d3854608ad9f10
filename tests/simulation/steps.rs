//! What can happen next.

use std::time::Duration;

use kallima_webhooks::{
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        destination::{Destination, DestinationPolicy},
        event_filter::EventFilter,
        health::Health,
        secret::Secret,
        signature,
    },
    store::{
        claim::{self, ClaimLimits},
        events::{self, Publication, Recorded},
        finish, queue,
        webhooks::{self, NewWebhook, WebhookChanges},
    },
};
use rand::RngExt as _;
use uuid::Uuid;

use super::{
    model::{CAP, Mode, Webhook},
    world::{Flight, World},
};

const TYPES: [&str; 3] = ["humanization.completed", "job.failed", "job.completed"];

impl World {
    /// Makes one random step.
    pub(super) async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..16 => self.publish().await,
            16..36 => self.claim().await,
            36..56 => self.start().await,
            56..74 => self.finish().await,
            74..82 => self.advance(),
            82..84 => self.crash().await,
            84..86 => self.rush().await,
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
        let (id, url, secret) = (self.clock.new_uuid(), self.url(), Secret::generate(&mut rand::rng()));
        let new = NewWebhook {
            id,
            url: url.clone(),
            enabled: true,
            events: EventFilter::from_stored(events),
            description: None,
            rate_limit: None,
            secret: secret.clone(),
        };
        webhooks::create(&self.db, self.org, new, self.origin(), self.now())
            .await
            .unwrap()
            .unwrap();
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

    pub(super) fn publication(&mut self) -> Publication {
        let event_type = TYPES[self.rng.random_range(0..TYPES.len())];
        let number: u64 = self.rng.random();
        Publication {
            organization_id: self.org,
            event_id: self.clock.new_event_id(),
            event_type: event_type.to_owned(),
            payload: format!("{{\"data\":{{\"number\":{number}}}}}").into_bytes(),
            created_at: self.now(),
            traceparent: None,
        }
    }

    async fn publish(&mut self) {
        let publication = self.publication();
        let (id, kind, payload) = (
            publication.event_id.clone(),
            publication.event_type.clone(),
            publication.payload.clone(),
        );
        let to = self.model.owed_to(&kind, None);
        let recorded = events::record(&self.db, publication).await.unwrap();
        self.must(matches!(recorded, Recorded::New), "a new event is new");
        self.tell(&format!("{kind} is published to {} webhook(s)", to.len()));
        self.expect_owed(id.as_str(), &kind, &payload, &to).await;
    }

    async fn claim(&mut self) {
        let node = self.rng.random_range(0..self.cursors.len());
        let batch_max = self.rng.random_range(1..=8);
        self.claim_at(node, batch_max).await;
    }

    pub(super) async fn claim_at(&mut self, node: usize, batch_max: u64) {
        let now = self.now();
        let limits = ClaimLimits {
            batch_max,
            per_webhook_max: CAP as u64,
            lease: self.lease,
        };
        let claimed = claim::claim(&self.db, self.cursors[node], limits, now).await.unwrap();
        self.cursors[node] = claimed.cursor;
        self.tell(&format!("node {node} claims {}", claimed.leases.len()));
        self.must(claimed.leases.len() as u64 <= batch_max, "no more than the batch");
        for lease in claimed.leases {
            let owed = &self.model.deliveries[&lease.delivery_id];
            let (webhook, due) = (&self.model.webhooks[owed.webhook], owed.is_due(now));
            let cap = if webhook.health.breaker_open() { 1 } else { CAP };
            let (is_probe, is_again) = (webhook.health.breaker_open(), owed.lease.is_some());
            let allowed = !webhook.deleted && webhook.health.enabled && webhook.health.resume_at <= now;
            let room = self.model.leased(owed.webhook, now) < cap;
            self.must(due, &format!("{} is claimed before it is due", lease.delivery_id));
            self.must(
                allowed,
                &format!(
                    "{} is claimed although its webhook is to be left alone",
                    lease.delivery_id
                ),
            );
            self.must(
                room,
                &format!("{} is claimed beyond the cap of {cap}", lease.delivery_id),
            );
            let until = now.plus(self.lease);
            self.model
                .deliveries
                .get_mut(&lease.delivery_id)
                .unwrap()
                .give(&lease, until);
            if is_probe {
                self.tell("a probe goes out");
            }
            if is_again {
                self.tell("a lease that ended is taken over");
            }
            self.fly(node, lease, AttemptTrigger::Automatic);
        }
    }

    pub(super) fn fly(&mut self, node: usize, lease: queue::Lease, trigger: AttemptTrigger) {
        self.flights.push(Flight {
            node,
            lease,
            trigger,
            sent: None,
        });
    }

    async fn start(&mut self) {
        let waiting: Vec<usize> = (0..self.flights.len())
            .filter(|index| self.flights[*index].sent.is_none())
            .collect();
        let Some(chosen) = self.pick(waiting.len()) else { return };
        self.start_flight(waiting[chosen]).await;
    }

    pub(super) async fn start_flight(&mut self, index: usize) {
        let (lease, trigger, now) = (
            self.flights[index].lease.clone(),
            self.flights[index].trigger,
            self.now(),
        );
        let mut prepared = self.engine.prepare(vec![lease.clone()], trigger).await.unwrap();
        let prepared = prepared.pop().map(|(_, prepared)| prepared.unwrap());
        let owed = self.model.deliveries.get_mut(&lease.delivery_id).unwrap();
        let webhook = &self.model.webhooks[owed.webhook];
        let held = owed.is_held_by(&lease) && !webhook.deleted;
        let on_hold = !webhook.health.enabled && trigger == AttemptTrigger::Automatic;
        let Some(prepared) = prepared else {
            if held && on_hold {
                (owed.lease, owed.attempts, owed.due) = (None, owed.attempts - 1, now);
            }
            self.flights.swap_remove(index);
            self.tell(&format!(
                "attempt {} of {} is not made",
                lease.number, lease.delivery_id
            ));
            self.must(!held || on_hold, "an attempt that should be made is not");
            return;
        };
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
            (!on_hold, "a webhook that is switched off gets nothing by itself"),
            (is_signed, "the signature is of the secret that is current"),
            (
                prepared.payload == owed.payload,
                "the bytes are the same on every attempt",
            ),
            (prepared.url == webhook.url, "the address is the current one"),
            (lease.number > owed.arrived, "attempt numbers rise strictly"),
        ];
        let mode = webhook.mode;
        owed.arrived = lease.number;
        owed.accepted |= mode == Mode::Well;
        for (kept, promise) in promises {
            self.must(kept, promise);
        }
        self.tell(&format!(
            "attempt {} of {} is sent: {mode:?}",
            lease.number, lease.delivery_id
        ));
        self.flights[index].sent = Some((prepared, mode.outcome()));
    }

    async fn finish(&mut self) {
        let sent: Vec<usize> = (0..self.flights.len())
            .filter(|index| self.flights[*index].sent.is_some())
            .collect();
        let Some(chosen) = self.pick(sent.len()) else { return };
        self.finish_flight(sent[chosen]).await;
    }

    pub(super) async fn finish_flight(&mut self, index: usize) {
        let Flight {
            lease, trigger, sent, ..
        } = self.flights.swap_remove(index);
        let (prepared, outcome) = sent.unwrap();
        let (id, jitter) = (lease.delivery_id, self.rng.random());
        let held = self.model.deliveries[&id].is_held_by(&lease);
        let finished = self.engine.conclude(lease, trigger, prepared, outcome.clone(), jitter);
        let planned = finished.next_attempt_at;
        let recorded = finish::finish(&self.db, finished).await.unwrap();
        self.tell(&format!("the attempt of {id} ends, recorded: {recorded}"));
        self.must(
            recorded == held,
            "a record is made by the holder of the lease, and by nobody else",
        );
        let news = if held {
            let now = self.now();
            self.model
                .end(id, &outcome, trigger == AttemptTrigger::Test, planned, now)
        } else {
            Vec::new()
        };
        self.expect_news(news).await;
    }

    fn advance(&mut self) {
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

    async fn crash(&mut self) {
        let node = self.rng.random_range(0..self.cursors.len());
        self.crash_node(node).await;
    }

    pub(super) async fn crash_node(&mut self, node: usize) {
        self.flights.retain(|flight| flight.node != node);
        self.cursors[node] = None;
        self.tell(&format!("node {node} crashes"));
        if self.embedded {
            let now = self.now();
            queue::recover(&self.db, now).await.unwrap();
            for owed in self.model.deliveries.values_mut().filter(|owed| owed.lease.is_some()) {
                (owed.lease, owed.due) = (None, now);
            }
        }
    }

    /// Many events at once, and a node that attempts whatever it is given.
    async fn rush(&mut self) {
        for _ in 0..self.rng.random_range(4..12) {
            self.publish().await;
        }
        let node = self.rng.random_range(0..self.cursors.len());
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
        let node = self.rng.random_range(0..self.cursors.len());
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

    /// Starts and finishes every attempt under way.
    async fn land_all(&mut self) {
        while let Some(flight) = self.flights.first() {
            if flight.sent.is_some() {
                self.finish_flight(0).await;
            } else {
                self.start_flight(0).await;
            }
        }
    }

    fn change_mode(&mut self) {
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

    /// Everything is well again: whatever is owed to a webhook that is there must get there.
    pub(super) async fn heal(&mut self) {
        for node in 0..self.cursors.len() {
            self.crash_node(node).await;
        }
        for index in 0..self.model.webhooks.len() {
            self.model.webhooks[index].mode = Mode::Well;
            if !self.model.webhooks[index].deleted {
                let changes = WebhookChanges {
                    enabled: Some(true),
                    ..WebhookChanges::default()
                };
                self.update(index, changes).await;
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
            self.claim_at(0, 100).await;
            self.land_all().await;
        }
        let left: Vec<&Uuid> = self
            .model
            .deliveries
            .iter()
            .filter(|(_, owed)| owed.status == DeliveryStatus::Pending)
            .map(|(id, _)| id)
            .collect();
        self.must(
            false,
            &format!("these never arrive, although everything is well: {left:?}"),
        );
    }
}
