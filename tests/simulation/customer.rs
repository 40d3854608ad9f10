//! What a customer does meanwhile: webhooks are changed and deleted, deliveries retried, tested and replayed.

use std::time::Duration;

use kallima_webhooks::{
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        secret::Secret,
        timestamp::Timestamp,
    },
    store::{
        queue::{self, Taken},
        replay,
        webhooks::{self, Changed, WebhookChanges},
    },
};
use rand::RngExt as _;

use super::{model::Owed, world::World};

impl World {
    pub(super) async fn change_webhook(&mut self) {
        let index = self.rng.random_range(0..self.model.webhooks.len());
        let changes = match self.rng.random_range(0..8) {
            0 => return self.delete(index).await,
            1 => WebhookChanges {
                secret: Some(Secret::generate(&mut rand::rng())),
                ..WebhookChanges::default()
            },
            2 => WebhookChanges {
                url: Some(self.url()),
                ..WebhookChanges::default()
            },
            3 | 4 => WebhookChanges {
                enabled: Some(false),
                ..WebhookChanges::default()
            },
            _ => WebhookChanges {
                enabled: Some(true),
                ..WebhookChanges::default()
            },
        };
        self.update(index, changes).await;
    }

    pub(super) async fn update(&mut self, index: usize, changes: WebhookChanges) {
        let id = self.model.webhooks[index].id;
        let (secret, url, enabled) = (changes.secret.clone(), changes.url.clone(), changes.enabled);
        let outcome = webhooks::update(&self.db, self.org, id, changes, None, self.origin(), self.now())
            .await
            .unwrap();
        let webhook = &mut self.model.webhooks[index];
        let found = matches!(outcome, Changed::Done(_));
        let expected = !webhook.deleted;
        if found {
            webhook.secret = secret.unwrap_or_else(|| webhook.secret.clone());
            webhook.url = url.map_or_else(|| webhook.url.clone(), |url| url.url().to_string());
            match enabled {
                Some(true) if !webhook.health.enabled => webhook.health.enable(),
                Some(enabled) => webhook.health.enabled = enabled,
                None => {}
            }
        }
        self.tell(&format!("webhook {index} is changed; enabled: {enabled:?}"));
        self.must(found == expected, "a webhook can be changed until it is deleted");
    }

    async fn delete(&mut self, index: usize) {
        let id = self.model.webhooks[index].id;
        let deleted = webhooks::delete(&self.db, self.org, id, None, self.origin(), self.now())
            .await
            .unwrap();
        let expected = !self.model.webhooks[index].deleted;
        self.model.webhooks[index].deleted = true;
        let pending = self
            .model
            .deliveries
            .values_mut()
            .filter(|owed| owed.status == DeliveryStatus::Pending);
        for owed in pending.filter(|owed| owed.webhook == index) {
            (owed.status, owed.lease) = (DeliveryStatus::Canceled, None);
        }
        self.tell(&format!("webhook {index} is deleted"));
        self.must(
            matches!(deleted, Changed::Done(())) == expected,
            "a webhook is deleted once",
        );
    }

    pub(super) async fn retry(&mut self) {
        let Some(chosen) = self.pick(self.model.deliveries.len()) else {
            return;
        };
        let (now, lease) = (self.now(), self.lease);
        let id = *self.model.deliveries.keys().nth(chosen).unwrap();
        let taken = queue::take(&self.db, self.org, id, lease, now).await.unwrap();
        let owed = self.model.deliveries.get_mut(&id).unwrap();
        let (deleted, under_way) = (self.model.webhooks[owed.webhook].deleted, owed.is_leased(now));
        match taken {
            Taken::Leased(lease) => {
                owed.give(&lease, now.plus(self.lease));
                let node = self.rng.random_range(0..self.cursors.len());
                self.fly(node, lease, AttemptTrigger::Manual);
                self.must(!deleted && !under_way, "a retry is made where nothing is under way");
            }
            Taken::UnderWay => self.must(under_way, "a retry waits for nothing"),
            Taken::WebhookDeleted => self.must(deleted, "a retry finds its webhook"),
            Taken::NotFound => self.must(false, "a delivery is lost"),
        }
        self.tell(&format!("somebody retries {id}"));
    }

    pub(super) async fn test(&mut self) {
        let index = self.rng.random_range(0..self.model.webhooks.len());
        let (test, id, now) = (self.publication(), self.clock.new_uuid(), self.now());
        let webhook = &self.model.webhooks[index];
        let lease = queue::record_test(&self.db, webhook.id, &test, id, self.lease)
            .await
            .unwrap();
        self.must(
            lease.is_none() == webhook.deleted,
            "a webhook can be tested until it is deleted",
        );
        let Some(lease) = lease else { return };
        self.expect_owed(test.event_id.as_str(), &test.event_type, &test.payload, &[webhook.id])
            .await;
        let owed: &mut Owed = self.model.deliveries.get_mut(&id).unwrap();
        owed.give(&lease, now.plus(self.lease));
        let node = self.rng.random_range(0..self.cursors.len());
        self.fly(node, lease, AttemptTrigger::Test);
        self.tell(&format!("somebody tests webhook {index}"));
    }

    pub(super) async fn replay(&mut self) {
        let index = self.rng.random_range(0..self.model.webhooks.len());
        let status = if self.rng.random_bool(0.7) {
            DeliveryStatus::Failed
        } else {
            DeliveryStatus::Delivered
        };
        self.replay_of(index, status).await;
    }

    pub(super) async fn replay_of(&mut self, index: usize, status: DeliveryStatus) {
        let (now, webhook) = (self.now(), &self.model.webhooks[index]);
        let span = replay::Span {
            webhook_id: webhook.id,
            since: Timestamp::from_millis(0),
            until: now.plus(Duration::from_millis(1)),
            status,
        };
        let replayed = replay::replay(&self.db, self.org, &span, now).await.unwrap();
        let expected = (!webhook.deleted).then(|| {
            let again = self.model.deliveries.values_mut();
            let again = again.filter(|owed| owed.webhook == index && owed.status == status && !owed.is_leased(now));
            again
                .map(|owed| {
                    (owed.status, owed.lease, owed.due) = (DeliveryStatus::Pending, None, now);
                    owed.schedule_start = owed.attempts;
                })
                .count() as u64
        });
        self.tell(&format!(
            "somebody replays what webhook {index} has {status}: {replayed:?}"
        ));
        self.must(replayed == expected, &format!("{expected:?} are replayed"));
    }
}
