//! What customers do: change, delete and test webhooks, and retry and replay deliveries.

use std::time::Duration;

use kallima_webhooks::{
    delivery::lanes::{READING_AGE_MAX, Start},
    domain::{
        delivery::{AttemptTrigger, DeliveryStatus},
        secret::Secret,
        timestamp::Timestamp,
        webhook::{Changed, WebhookChange, WebhookChanges},
        webhook_settings::SettingChanges,
    },
    store::{
        queue::{
            lease::{Lease, WebhookState},
            manual::{self, ManualLease, Tested},
            replay, work,
        },
        upkeep::deletion,
        webhooks,
    },
};
use rand::RngExt as _;

use super::{model::Owed, steps::done, world::World};

fn changing(settings: SettingChanges) -> WebhookChanges {
    WebhookChanges { settings, secret: None }
}

/// A webhook is enabled or disabled.
pub(super) fn switching(is_on: bool) -> WebhookChanges {
    changing(SettingChanges {
        enabled: Some(is_on),
        ..SettingChanges::default()
    })
}

impl World {
    pub(super) async fn change_webhook(&mut self) {
        let index = self.rng.random_range(0..self.model.webhooks.len());
        let changes = match self.rng.random_range(0..8) {
            0 => return self.delete(index).await,
            1 => WebhookChanges {
                secret: Some(Secret::generate(&mut rand::rng())),
                ..WebhookChanges::default()
            },
            2 => changing(SettingChanges {
                url: Some(self.url()),
                ..SettingChanges::default()
            }),
            3 | 4 => switching(false),
            _ => switching(true),
        };
        self.update(index, changes).await;
    }

    pub(super) async fn update(&mut self, index: usize, changes: WebhookChanges) {
        let id = self.model.webhooks[index].id;
        let (secret, url, enabled) = (
            changes.secret.clone(),
            changes.settings.url.clone(),
            changes.settings.enabled,
        );
        let change = WebhookChange {
            organization_id: self.org,
            id,
            changes,
            if_match: None,
            origin: self.origin(),
            now: self.now(),
        };
        let outcome = done(webhooks::update(&self.db, change, None).await.unwrap());
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
        self.respond();
    }

    /// The response to a change takes a moment: what other nodes have read of the webhook before is too old by then.
    pub(super) fn respond(&self) {
        self.clock.advance(READING_AGE_MAX + Duration::from_millis(1));
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
            // An attempt in progress may still end, and is recorded.
            owed.status = DeliveryStatus::Canceled;
        }
        self.tell(&format!("webhook {index} is deleted"));
        self.must(
            matches!(deleted, Changed::Done(())) == expected,
            "a webhook is deleted once",
        );
        self.respond();
        if self.rng.random() {
            deletion::round(&self.db).await.unwrap();
        }
    }

    pub(super) async fn retry(&mut self) {
        let Some(chosen) = self.pick(self.model.deliveries.len()) else {
            return;
        };
        let node = self.rng.random_range(0..self.nodes.len());
        let (now, lease) = (self.now_at(node), self.lease);
        let id = *self.model.deliveries.keys().nth(chosen).unwrap();
        let taken = manual::take(&self.db, self.org, id, lease, now).await.unwrap();
        let owed = self.model.deliveries.get_mut(&id).unwrap();
        let (deleted, in_progress) = (self.model.webhooks[owed.webhook].deleted, owed.is_leased(now));
        match taken {
            ManualLease::Leased(lease) => {
                owed.give(&lease, now.plus(self.lease));
                self.fly(node, lease, AttemptTrigger::Manual).await;
                self.must(
                    !deleted && !in_progress,
                    "a retry is made only if no attempt is in progress",
                );
            }
            ManualLease::InProgress => self.must(in_progress, "a retry waits for nothing"),
            ManualLease::WebhookDeleted => self.must(deleted, "a retry finds its webhook"),
            ManualLease::NotFound => self.must(false, "a delivery is lost"),
        }
        self.tell(&format!("somebody retries {id}"));
    }

    pub(super) async fn test(&mut self) {
        let index = self.rng.random_range(0..self.model.webhooks.len());
        let node = self.rng.random_range(0..self.nodes.len());
        let (test, id, now) = (self.publication(node), self.clock.new_id(), self.now_at(node));
        let webhook = &self.model.webhooks[index];
        let tested = manual::record_test(&self.db, webhook.id, test.clone(), id, self.lease)
            .await
            .unwrap();
        let lease = match tested {
            Tested::Leased(lease) => Some(lease),
            Tested::NotFound => None,
            Tested::Before => panic!("a test is made once"),
        };
        self.must(
            lease.is_none() == webhook.deleted,
            "a webhook can be tested until it is deleted",
        );
        let Some(lease) = lease else { return };
        self.expect_owed(
            test.event_id.as_str(),
            &test.event_type,
            &test.payload,
            &[webhook.id],
            now,
        )
        .await;
        let owed: &mut Owed = self.model.deliveries.get_mut(&id).unwrap();
        owed.give(&lease, now.plus(self.lease));
        self.fly(node, lease, AttemptTrigger::Test).await;
        self.tell(&format!("somebody tests webhook {index}"));
    }

    /// A node makes an attempt that a customer has requested, in time or later.
    async fn fly(&mut self, node: usize, lease: Lease, trigger: AttemptTrigger) {
        let until = self.now_at(node).plus(self.lease);
        let leased = work::for_manual(&self.db, lease, until).await.unwrap().unwrap();
        let webhook = (leased.lease.organization_id, leased.lease.webhook_id);
        let read_at = self.clock.monotonic();
        let state = work::read_webhooks(&self.db, &[webhook]).await.unwrap().pop();
        let Some((_, WebhookState::Present(target))) = state else {
            self.must(false, "a webhook that was there a moment ago is gone");
            return;
        };
        let start = Start {
            leased,
            target,
            read_at,
        };
        self.send(node, &start, trigger);
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
        let span = replay::ReplayFilter {
            webhook_id: webhook.id,
            since: Timestamp::from_millis(0),
            // A machine's clock that was ahead has made ids of the future.
            until: Timestamp::from_millis(1 << 47),
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
