//! Example events: what the document shows of each type, as an event of this moment.

use bytes::Bytes;
use serde_json::{Value, value::to_raw_value};

use crate::{
    clock::Clock,
    contract::Contract,
    delivery::{
        headers::{self, Signing},
        sender::DeliveryHeaders,
    },
    domain::{
        event::Envelope, event_filter::UnknownEventType, event_id::EventId, id::DeliveryId, secret::Secret,
        timestamp::Timestamp,
    },
};

/// An event that nobody has published.
#[derive(Clone, Debug)]
pub(super) struct Example {
    pub(super) id: EventId,
    pub(super) event_type: String,
    pub(super) body: Bytes,
    delivery_id: DeliveryId,
}

impl Example {
    /// An event of that type with this `data`.
    pub(super) fn new(
        event_type: &str,
        data: &Value,
        created_at: Timestamp,
        clock: &Clock,
    ) -> Result<Self, serde_json::Error> {
        let id = clock.new_event_id();
        let envelope = Envelope::new(id.clone(), event_type, created_at, &to_raw_value(data)?)?;
        Ok(Self {
            id,
            event_type: event_type.to_owned(),
            body: serde_json::to_vec(&envelope)?.into(),
            delivery_id: clock.new_id(),
        })
    }

    /// What a delivery of it carries, signed with `secret` over `body` at that time.
    pub(super) fn headers(&self, secret: &Secret, body: &[u8], attempt: u32, timestamp_s: i64) -> DeliveryHeaders {
        headers::signed(&Signing {
            secret,
            event_id: &self.id,
            event_type: &self.event_type,
            delivery_id: self.delivery_id,
            attempt,
            timestamp_s,
            body,
        })
    }
}

/// The `data` of the document's example of that type.
pub(super) fn data(contract: &Contract, event_type: &str) -> Result<Value, String> {
    UnknownEventType::check(event_type, contract.event_type_names())
        .map_err(|unknown| format!("`{event_type}` {unknown}"))?;
    let known = contract.event_type(event_type);
    Ok(known.map(|known| known.example["data"].clone()).unwrap_or_default())
}
