//! An event on the wire.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{event_id::EventId, timestamp::Timestamp};

/// An event, exactly as it stands on the wire.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Event {
    #[schema(value_type = String, pattern = "^evt_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    pub(super) id: EventId,
    pub(super) object: EventObject,
    pub(super) r#type: String,
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: Timestamp,
    #[schema(value_type = Object)]
    pub(super) data: Box<RawValue>,
}

/// The discriminator of an event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum EventObject {
    Event,
}
