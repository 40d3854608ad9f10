//! A registered endpoint.

use std::{str::FromStr as _, sync::LazyLock};

use sea_orm::{Set, entity::prelude::*};

use crate::{
    domain::{
        delivery::DisabledReason,
        destination::{Destination, URL_LENGTH_MAX},
        event_filter::EventFilter,
        id::{OrganizationId, WebhookId},
        rate::RateLimit,
        timestamp::Timestamp,
        webhook_settings::WebhookSettings,
    },
    store::{StoreError, error::readable},
};

/// One row of `webhooks`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhooks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: OrganizationId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WebhookId,
    #[sea_orm(column_type = "String(StringLen::N(URL_LENGTH_MAX as u32))")]
    pub url: String,
    pub enabled: bool,
    /// Filter entries as a JSON array; NULL means all events.
    pub events: Option<String>,
    #[sea_orm(column_type = "String(StringLen::N(256))", nullable)]
    pub description: Option<String>,
    /// The signing secret, sealed (see `domain::keyring`).
    pub secret: Vec<u8>,
    pub disabled_reason: Option<DisabledReason>,
    /// When the first failure since the last success happened.
    pub failing_since: Option<Timestamp>,
    /// Failures since the last success.
    pub consecutive_failures: i32,
    /// How many failing notices the organization got since then.
    pub failing_notices: i32,
    /// Whether it was notified of trouble, so that it must be notified of the recovery.
    pub recovery_owed: bool,
    /// Deliveries that have been exhausted since the last notice about one.
    pub exhausted_count: i32,
    /// When the last notice about an exhausted delivery was sent.
    pub exhausted_notice_at: Option<Timestamp>,
    /// No automatic attempt starts before this time.
    pub resume_at: Timestamp,
    /// Deliveries that may start per second; NULL means no limit.
    pub rate_limit: Option<RateLimit>,
    /// The rate limiter's state, in nanoseconds since the Unix epoch.
    pub rate_state: Option<i64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Set when the webhook is deleted: only its pending deliveries remain to be canceled.
    pub deleted_at: Option<Timestamp>,
}

/// No relations are declared: queries that join say how.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// The columns of the settings, named like them.
pub static SETTINGS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let column = |name: &&str| Column::from_str(name).ok();
    WebhookSettings::NAMES.iter().filter_map(column).collect()
});

impl Model {
    /// Its settings.
    pub fn settings(&self) -> Result<WebhookSettings, StoreError> {
        Ok(WebhookSettings {
            url: readable(Destination::from_stored(&self.url).ok(), "webhooks.url", &self.url)?,
            enabled: self.enabled,
            events: read_filter(self.events.as_deref())?,
            description: self.description.clone(),
            rate_limit: self.rate_limit,
        })
    }
}

impl ActiveModel {
    /// Sets its settings.
    pub fn set_settings(&mut self, settings: &WebhookSettings) {
        let events = settings.events.entries();
        self.url = Set(settings.url.as_str().to_owned());
        self.enabled = Set(settings.enabled);
        self.events = Set(events.map(|entries| serde_json::Value::from(entries).to_string()));
        self.description = Set(settings.description.clone());
        self.rate_limit = Set(settings.rate_limit);
    }
}

/// Reads a filter from the column `events`.
pub fn read_filter(column: Option<&str>) -> Result<EventFilter, StoreError> {
    let Some(text) = column else {
        return Ok(EventFilter::All);
    };
    let entries = readable(serde_json::from_str(text).ok(), "webhooks.events", text)?;
    Ok(EventFilter::from_stored(Some(entries)))
}
