//! What is remembered of a write to a webhook.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    id::{AuditEntryId, TokenId, WebhookId},
    timestamp::Timestamp,
    webhook_settings::FieldChanges,
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
