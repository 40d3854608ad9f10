//! Typed ids: UUIDs, each with a type of its own, so that two of them cannot be swapped.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::timestamp::Timestamp;

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID, such as 019dbe9c-2f40-72b0-877e-7f5e9c653938")]
pub struct NoId;

macro_rules! ids {
    ($($(#[$meaning:meta])* $id:ident;)*) => {$(
        $(#[$meaning])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $id(Uuid);

        impl $id {
            /// The smallest id, which nothing has.
            pub const NIL: Self = Self(Uuid::nil());

            /// Wraps a UUID.
            #[must_use]
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// When it was made: it is a UUID of version 7, which begins with the time.
            #[must_use]
            pub fn made_at(self) -> Timestamp {
                let millis = self.0.as_u128() >> 80;
                Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
            }
        }

        impl From<Uuid> for $id {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$id> for Uuid {
            fn from(id: $id) -> Self {
                id.0
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $id {
            type Err = NoId;

            fn from_str(text: &str) -> Result<Self, NoId> {
                text.parse().map(Self).map_err(|_| NoId)
            }
        }
    )*};
}

ids! {
    /// The id of an organization.
    OrganizationId;
    /// The id of a webhook.
    WebhookId;
    /// The id of a delivery.
    DeliveryId;
    /// The id of an API token, by which it is revoked; not the token itself.
    TokenId;
    /// The id of an entry of the audit log.
    AuditEntryId;
    /// The id of a process that shares the database, from its start to its end.
    NodeId;
    /// Fences what is done under a lease: only its holder knows it.
    LeaseToken;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_and_read_as_its_uuid() {
        const TEXT: &str = "019a2f3c-7b1e-7c4d-8e5f-0123456789ab";
        let id: WebhookId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(serde_json::to_value(id).unwrap(), TEXT);
        assert_eq!(serde_json::from_value::<WebhookId>(TEXT.into()).unwrap(), id);
        assert_eq!(WebhookId::new(id.as_uuid()), id);
        assert!(WebhookId::NIL < id);
    }
}
