//! The example data: what `openapi.yaml` shows is there, under the same ids, so that each operation has something to
//! show when it is tried as the document fills it in.
//!
//! The times are counted back from now, since retention would delete what is as old as the document. The ids are as old
//! as the document, so that every list shows the examples last.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    contract::Contract,
    domain::{
        audit::{AuditAction, AuditActor, AuditEntry, AuditEntryObject},
        delivery::{Attempt, AttemptTrigger, Delivery, DeliveryObject, DeliveryStatus},
        destination::Destination,
        event::{Envelope, Publication},
        event_filter::EventFilter,
        id::{AuditEntryId, DeliveryId, OrganizationId, TokenId, WebhookId},
        outcome::ErrorWord,
        retry::RetryPolicy,
        secret::Secret,
        timestamp::Timestamp,
        webhook::NewWebhook,
        webhook_settings::{FieldChanges, WebhookSettings},
    },
    store::examples::Examples,
};

/// The webhook that the document's examples are about.
pub const WEBHOOK: WebhookId = WebhookId::new(Uuid::from_u128(0xaaaa_0001_bbbb_0002_cccc_0003_0004_0005));

/// The organization of the document's examples.
pub const ORGANIZATION: OrganizationId =
    OrganizationId::new(Uuid::from_u128(0x019b_b16e_fe80_7153_89ae_df6f_2d1c_9af0));

/// The webhook of the example of a deletion.
pub const WEBHOOK_TO_DELETE: WebhookId = WebhookId::new(Uuid::from_u128(0x019d_be9c_2f40_72b0_877e_7f5e_9c65_3938));

/// The secret of [`WEBHOOK`], as the document shows it.
pub const SECRET: &str = "whsec_AbCdEfGhIjKlMnOpQrStUvWx1234567890ABCDEF";

const SECRET_TO_DELETE: &str = "whsec_Zy9XwVu8TsRq7PoNm6LkJi5HgFe4DcBa3zYxWv2U";

/// The delivery that failed.
const FAILED: DeliveryId = DeliveryId::new(Uuid::from_u128(0x019d_b9d1_60c0_78d1_83c8_776d_6cad_4a26));

/// The delivery of the test.
const TESTED: DeliveryId = DeliveryId::new(Uuid::from_u128(0x019d_b9c8_3900_7651_8317_1ff4_a6a3_a450));

const CREATED: AuditEntryId = AuditEntryId::new(Uuid::from_u128(0x019d_b9c8_2f40_7a12_9c4d_3e5f_6071_8293));
const UPDATED: AuditEntryId = AuditEntryId::new(Uuid::from_u128(0x019d_c40a_4ae0_7b11_8d52_6c7e_8f9a_0b1c));
const CREATED_TO_DELETE: AuditEntryId = AuditEntryId::new(Uuid::from_u128(0x019d_be9c_2f40_7c23_8d5e_4f60_7182_93a4));

/// An event type that nobody publishes: it needs no subscription, and a test is sent whatever the filter is.
const OF_TESTS: &str = "webhook.test";

const HOUR: Duration = Duration::from_hours(1);

/// How long ago the example began: it holds a whole retry schedule (75 hours and 35 minutes).
const BEGAN: Duration = Duration::from_hours(5 * 24);

/// Whose examples they are, and what they are made of.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The organization.
    pub organization_id: OrganizationId,
    /// The token that made the webhooks.
    pub token_id: TokenId,
    /// The id of the webhook that has deliveries, usually [`WEBHOOK`].
    pub webhook_id: WebhookId,
    /// Its secret; `None` for [`SECRET`].
    pub secret: Option<Secret>,
    /// Whether it receives what is published. Otherwise nothing but tests and retries reach it.
    pub is_subscribed: bool,
    /// Where it delivers to.
    pub inbox: Destination,
    /// The present.
    pub now: Timestamp,
}

/// The examples; `None` if the catalog lacks an event type that they are made of.
#[must_use]
pub fn examples(contract: &Contract, setting: &Setting) -> Option<Examples> {
    let began = setting.now.minus(BEGAN);
    let (tested_at, published_at, updated_at) = (began.plus(HOUR), began.plus(2 * HOUR), began.plus(90 * HOUR));
    let tested = publication(contract, setting, OF_TESTS, tested_at)?;
    let failed = publication(contract, setting, "humanization.failed", published_at)?;
    let deliveries = vec![
        test_delivery(setting, &tested),
        failed_delivery(setting, &failed, &RetryPolicy::default()),
    ];
    let secret = setting.secret.clone().or_else(|| Secret::parse(SECRET))?;
    let main = NewWebhook {
        id: setting.webhook_id,
        settings: main_settings(setting),
        secret,
    };
    let to_delete = NewWebhook {
        id: WEBHOOK_TO_DELETE,
        settings: settings_to_delete(setting),
        secret: Secret::parse(SECRET_TO_DELETE)?,
    };
    let first_settings = WebhookSettings {
        events: filter(&["humanization.completed", "humanization.failed"]),
        ..main.settings.clone()
    };
    let entry = |id, webhook_id, action, changes, created_at| AuditEntry {
        id,
        object: AuditEntryObject::AuditEntry,
        webhook_id,
        action,
        actor: AuditActor::Token,
        token_id: Some(setting.token_id),
        address: Some("127.0.0.1".to_owned()),
        request_id: Some("req_01KQ20MJQ0V7D3M8K5YBN2C4EX".to_owned()),
        secret_rotated: false,
        changes,
        created_at,
    };
    let created = FieldChanges::between(None, Some(&first_settings));
    let updated = FieldChanges::between(Some(&first_settings), Some(&main.settings));
    let created_to_delete = FieldChanges::between(None, Some(&to_delete.settings));
    let audit = vec![
        entry(CREATED, main.id, AuditAction::Created, created, began),
        entry(UPDATED, main.id, AuditAction::Updated, updated, updated_at),
        entry(
            CREATED_TO_DELETE,
            to_delete.id,
            AuditAction::Created,
            created_to_delete,
            tested_at,
        ),
    ];
    Some(Examples {
        webhooks: vec![(main, began, updated_at), (to_delete, tested_at, tested_at)],
        events: vec![tested, failed],
        deliveries,
        audit,
    })
}

fn main_settings(setting: &Setting) -> WebhookSettings {
    let (events, description) = if setting.is_subscribed {
        (EventFilter::All, "Example: delivers every event to the built-in inbox.")
    } else {
        (
            filter(&[OF_TESTS]),
            "Example: delivers to this server's built-in inbox. Its filter leaves your events to your own webhooks.",
        )
    };
    WebhookSettings {
        events,
        description: Some(description.to_owned()),
        ..WebhookSettings::new(setting.inbox.clone())
    }
}

fn settings_to_delete(setting: &Setting) -> WebhookSettings {
    WebhookSettings {
        enabled: false,
        events: filter(&["structure_prediction.*"]),
        description: Some("Example: there to be deleted. It is disabled, so it receives nothing.".to_owned()),
        ..WebhookSettings::new(setting.inbox.clone())
    }
}

fn filter(entries: &[&str]) -> EventFilter {
    EventFilter::from_stored(Some(entries.iter().map(ToString::to_string).collect()))
}

/// The catalog's example of an event type, published at another time.
fn publication(contract: &Contract, setting: &Setting, event_type: &str, at: Timestamp) -> Option<Publication> {
    let example = contract.event_type(event_type)?.example.to_string();
    let envelope = Envelope {
        created_at: at,
        ..serde_json::from_str(&example).ok()?
    };
    Publication::new(setting.organization_id, envelope).ok()
}

/// A test that was accepted.
fn test_delivery(setting: &Setting, event: &Publication) -> (Delivery, Vec<Attempt>) {
    let attempt = Attempt {
        number: 1,
        trigger: AttemptTrigger::Test,
        started_at: event.created_at,
        duration_ms: 142,
        response_status: Some(200),
        response_body: Some("ok".to_owned()),
        error: None,
    };
    let delivered_at = event.created_at.plus(Duration::from_millis(142));
    ended(setting, TESTED, event, vec![attempt], Some(delivered_at))
}

/// A delivery that was given up after a whole schedule.
fn failed_delivery(setting: &Setting, event: &Publication, policy: &RetryPolicy) -> (Delivery, Vec<Attempt>) {
    let mut started_at = event.created_at;
    let delays = [Duration::ZERO].into_iter().chain(policy.schedule.iter().copied());
    let attempt = |(number, delay)| {
        started_at = started_at.plus(delay);
        Attempt {
            number,
            trigger: AttemptTrigger::Automatic,
            started_at,
            duration_ms: 208,
            response_status: Some(503),
            response_body: Some("upstream unavailable".to_owned()),
            error: Some(ErrorWord::ResponseStatus),
        }
    };
    let attempts = (1..).zip(delays).map(attempt).collect();
    ended(setting, FAILED, event, attempts, None)
}

/// A delivery that came to its end with the last of these attempts.
fn ended(
    setting: &Setting,
    id: DeliveryId,
    event: &Publication,
    attempts: Vec<Attempt>,
    delivered_at: Option<Timestamp>,
) -> (Delivery, Vec<Attempt>) {
    let last = attempts.last();
    let delivery = Delivery {
        id,
        object: DeliveryObject::WebhookDelivery,
        webhook_id: setting.webhook_id,
        event_id: event.event_id.clone(),
        event_type: event.event_type.clone(),
        status: if delivered_at.is_some() {
            DeliveryStatus::Delivered
        } else {
            DeliveryStatus::Failed
        },
        attempt_count: last.map_or(0, |last| last.number),
        response_status: last.and_then(|last| last.response_status),
        response_body: last.and_then(|last| last.response_body.clone()),
        error: last.and_then(|last| last.error),
        next_attempt_at: None,
        created_at: event.created_at,
        delivered_at,
    };
    (delivery, attempts)
}
