//! What is remembered of a write to a webhook.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    delivery::DisabledReason,
    id::{AuditEntryId, TokenId, WebhookId},
    timestamp::Timestamp,
};

/// A write to a webhook, as it is remembered.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditEntryId,
    /// Says that it is an entry of the audit.
    pub object: AuditEntryObject,
    /// The webhook, which may be gone.
    pub webhook_id: WebhookId,
    /// What was done.
    pub action: AuditAction,
    /// Who did it.
    pub actor: AuditActor,
    /// With which token, where it was somebody with one.
    #[schema(required)]
    pub token_id: Option<TokenId>,
    /// From which IP address.
    #[schema(required)]
    pub address: Option<String>,
    /// In which request.
    #[schema(required, pattern = "^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    pub request_id: Option<String>,
    /// Whether the signing secret was replaced.
    pub secret_rotated: bool,
    /// Which fields changed, and how.
    pub changes: FieldChanges,
    /// When.
    pub created_at: Timestamp,
}

/// The discriminator of an audit entry.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditEntryObject {
    /// The only one.
    AuditEntry,
}

/// The request that a write comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The id of the entry to write: ids that are made one after the other sort so.
    pub entry_id: AuditEntryId,
    /// The token that the request was made with.
    pub token_id: TokenId,
    /// The IP address that it came from.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// What was done to the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditAction {
    /// It was registered.
    Created,
    /// Something about it was changed, its secret perhaps.
    Updated,
    /// It was deleted.
    Deleted,
    /// The service switched it off.
    Disabled,
    /// Something that a newer version does. Read alone, never written.
    Unknown,
}

impl AuditAction {
    const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Deleted, Self::Disabled];

    /// The word on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Disabled => "disabled",
            Self::Unknown => "unknown",
        }
    }

    /// The action of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditActor {
    /// Somebody with a token.
    Token,
    /// The service itself.
    Service,
    /// Somebody whom a newer version knows. Read alone, never written.
    Unknown,
}

impl AuditActor {
    const ALL: [Self; 2] = [Self::Token, Self::Service];

    /// The word on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Service => "service",
            Self::Unknown => "unknown",
        }
    }

    /// The actor of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|actor| actor.as_str() == word)
    }
}

/// A webhook's fields as an audit remembers them. The secret is not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookFields {
    /// Where deliveries go.
    pub url: String,
    /// Whether deliveries are attempted.
    pub enabled: bool,
    /// Filter entries; none means all events.
    pub events: Option<Vec<String>>,
    /// What the customer wrote about it.
    pub description: Option<String>,
    /// Deliveries a second at most, if there is a limit.
    pub rate_limit: Option<u32>,
    /// Why the service switched it off, if it did.
    pub disabled_reason: Option<DisabledReason>,
}

/// A value before and after a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change<T> {
    /// The value before.
    pub before: T,
    /// The value after.
    pub after: T,
}

impl<T: PartialEq> Change<T> {
    /// What changed from one to the other; `None` where they are the same.
    pub fn between(before: T, after: T) -> Option<Self> {
        (before != after).then_some(Self { before, after })
    }
}

/// The entries of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(max_items = 50)]
pub struct FilterEntries(Vec<String>);

/// The fields that a write changed, each with its value before and after; a field that stayed as it was is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChanges {
    /// Where deliveries go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Change<Option<String>>>,
    /// Whether deliveries are attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<Change<Option<bool>>>,
    /// Which events are wanted; null means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Change<Option<FilterEntries>>>,
    /// What the customer wrote about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Change<Option<String>>>,
    /// Deliveries a second at most; null means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Change<Option<u32>>>,
    /// Why the service switched it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<Change<Option<DisabledReason>>>,
}

impl FieldChanges {
    /// What changed from one to the other. `None` is a webhook that is not there yet, or no longer.
    #[must_use]
    pub fn between(before: Option<&WebhookFields>, after: Option<&WebhookFields>) -> Self {
        fn of<T: PartialEq>(
            before: Option<&WebhookFields>,
            after: Option<&WebhookFields>,
            field: impl Fn(&WebhookFields) -> Option<T>,
        ) -> Option<Change<Option<T>>> {
            Change::between(before.and_then(&field), after.and_then(&field))
        }
        Self {
            url: of(before, after, |fields| Some(fields.url.clone())),
            enabled: of(before, after, |fields| Some(fields.enabled)),
            events: of(before, after, |fields| fields.events.clone().map(FilterEntries)),
            description: of(before, after, |fields| fields.description.clone()),
            rate_limit: of(before, after, |fields| fields.rate_limit),
            disabled_reason: of(before, after, |fields| fields.disabled_reason),
        }
    }

    /// What changes when the service switches a webhook off.
    #[must_use]
    pub fn disabling(reason: DisabledReason) -> Self {
        Self {
            enabled: Change::between(Some(true), Some(false)),
            disabled_reason: Change::between(None, Some(reason)),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> WebhookFields {
        WebhookFields {
            url: "https://example.com/".to_owned(),
            enabled: true,
            events: None,
            description: None,
            rate_limit: None,
            disabled_reason: None,
        }
    }

    #[test]
    fn a_word_is_the_same_on_the_wire_and_in_the_database() {
        for action in AuditAction::ALL {
            assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
            assert_eq!(AuditAction::parse(action.as_str()), Some(action));
        }
        for actor in AuditActor::ALL {
            assert_eq!(serde_json::to_value(actor).unwrap(), actor.as_str());
            assert_eq!(AuditActor::parse(actor.as_str()), Some(actor));
        }
    }

    #[test]
    fn what_stayed_as_it_was_is_left_out() {
        let before = fields();
        let after = WebhookFields {
            events: Some(vec!["job.*".to_owned()]),
            ..fields()
        };
        let changes = serde_json::to_value(FieldChanges::between(Some(&before), Some(&after))).unwrap();
        assert_eq!(
            changes,
            serde_json::json!({ "events": { "before": null, "after": ["job.*"] } })
        );
        assert_eq!(
            FieldChanges::between(Some(&before), Some(&before)),
            FieldChanges::default()
        );
    }

    #[test]
    fn a_creation_and_a_deletion_are_changes_from_and_to_nothing() {
        let created = FieldChanges::between(None, Some(&fields()));
        let deleted = FieldChanges::between(Some(&fields()), None);
        assert_eq!(created.enabled.unwrap().after, Some(true));
        assert_eq!(deleted.url.unwrap().before.as_deref(), Some("https://example.com/"));
        assert!(created.description.is_none() && deleted.events.is_none());
    }
}
