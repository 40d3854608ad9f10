//! The domain's types as columns of the entities.
//!
//! Words are written strictly and read leniently: a row may hold a word of a newer version that runs alongside this
//! one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use sea_orm::{
    ActiveValue, ColIdx, DbErr, IntoActiveValue, QueryResult, TryFromU64, TryGetError, TryGetable, Value,
    sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr},
};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, AuditActor},
    delivery::{AttemptTrigger, DeliveryStatus, DisabledReason},
    event_id::EventId,
    id::{AuditEntryId, DeliveryId, LeaseToken, NodeId, OrganizationId, TokenId, WebhookId},
    outcome::ErrorWord,
    rate::RateLimit,
    timestamp::Timestamp,
    token::Scopes,
    word::Word,
};

/// Maps a type to `$stored` and back, by two functions.
macro_rules! column {
    ($type:ident as $stored:ty, $store:expr, $read:expr) => {
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                let store: fn($type) -> $stored = $store;
                store(value).into()
            }
        }

        impl TryGetable for $type {
            fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
                let read: fn($stored) -> Result<$type, TryGetError> = $read;
                read(<$stored>::try_get_by(row, index)?)
            }
        }

        impl ValueType for $type {
            fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
                let read: fn($stored) -> Result<$type, TryGetError> = $read;
                read(<$stored as ValueType>::try_from(value)?).map_err(|_| ValueTypeErr)
            }

            fn type_name() -> String {
                stringify!($type).to_owned()
            }

            fn array_type() -> ArrayType {
                <$stored>::array_type()
            }

            fn column_type() -> ColumnType {
                <$stored>::column_type()
            }
        }

        impl Nullable for $type {
            fn null() -> Value {
                <$stored>::null()
            }
        }

        impl IntoActiveValue<$type> for $type {
            fn into_active_value(self) -> ActiveValue<$type> {
                ActiveValue::Set(self)
            }
        }
    };
}

/// Required of anything that may be a primary key; none of ours is auto-incremented.
macro_rules! key {
    ($type:ident) => {
        impl TryFromU64 for $type {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($type)))
            }
        }
    };
}

macro_rules! id_columns {
    ($($id:ident)*) => {$(
        column!($id as Uuid, $id::as_uuid, |uuid| Ok($id::new(uuid)));
        key!($id);
    )*};
}

macro_rules! word_columns {
    ($($word:ident)*) => {$(
        column!($word as String, |word| word.as_str().to_owned(), |text| Ok(read_word(&text)));
    )*};
}

/// A word that a row holds; one that this version does not know is said once.
fn read_word<W: Word>(text: &str) -> W {
    W::parse(text).unwrap_or_else(|| {
        let kind = std::any::type_name::<W>();
        warn_unknown(kind.rsplit("::").next().unwrap_or(kind), text);
        W::UNKNOWN
    })
}

id_columns! { OrganizationId WebhookId DeliveryId TokenId AuditEntryId NodeId LeaseToken }

word_columns! { AttemptTrigger AuditAction AuditActor DeliveryStatus DisabledReason ErrorWord }

column!(Timestamp as i64, Timestamp::as_millis, |millis| Ok(
    Timestamp::from_millis(millis)
));

column!(EventId as String, String::from, |text| Ok(EventId::from_stored(text)));
key!(EventId);

column!(Scopes as String, |scopes| scopes.to_string(), |text| text
    .parse()
    .map_err(|cause| unreadable("tokens.scopes", cause)));

// A rate limit above this version's maximum is no limit: it is read as NULL.
column!(
    RateLimit as i32,
    |rate| <i32 as TryFrom<_>>::try_from(rate.per_second()).unwrap_or(i32::MAX),
    |per_second| {
        let rate = <u32 as TryFrom<_>>::try_from(per_second).ok().and_then(RateLimit::new);
        rate.ok_or_else(|| TryGetError::Null("rate_limit".to_owned()))
    }
);

fn unreadable(column: &'static str, cause: impl std::error::Error + Send + Sync + 'static) -> TryGetError {
    TryGetError::DbErr(DbErr::TryIntoErr {
        from: "text",
        into: column,
        source: Arc::new(cause),
    })
}

/// The most different words that are logged.
const WARNED_MAX: usize = 64;

/// Logs, once per word, that a row holds a word that this version does not know.
fn warn_unknown(kind: &'static str, word: &str) {
    static SAID: Mutex<BTreeSet<(&str, String)>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < WARNED_MAX && said.insert((kind, word.to_owned())) {
        tracing::warn!(
            kallima.column = kind,
            kallima.word = word,
            "a row holds a word that this version does not know"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: ValueType>(value: impl Into<Value>) -> Option<T> {
        <T as ValueType>::try_from(value.into()).ok()
    }

    #[test]
    fn a_word_is_read_back_and_one_of_a_newer_version_is_unknown() {
        for status in DeliveryStatus::written() {
            assert_eq!(read(status), Some(status));
        }
        for word in ErrorWord::written() {
            assert_eq!(read(word), Some(word));
        }
        assert_eq!(read("sunspots"), Some(ErrorWord::Unknown));
        assert_eq!(read("lost"), Some(DeliveryStatus::Unknown));
        assert_eq!(read("replayed"), Some(AttemptTrigger::Unknown));
        assert_eq!(read("moved"), Some(AuditAction::Unknown));
        assert_eq!(read("partner"), Some(AuditActor::Unknown));
        assert_eq!(read("unpaid"), Some(DisabledReason::Unknown));
    }

    #[test]
    fn other_values_are_read_back() {
        let id = WebhookId::new(Uuid::from_u128(7));
        assert_eq!(Value::from(id), Value::from(id.as_uuid()));
        assert_eq!(read(id), Some(id));
        assert_eq!(read(Timestamp::from_millis(-7)), Some(Timestamp::from_millis(-7)));
        assert_eq!(read(Scopes::all()), Some(Scopes::all()));
        assert_eq!(read::<Scopes>("webhooks:all"), None);
        let rate = RateLimit::new(RateLimit::PER_SECOND_MAX);
        assert_eq!(rate.and_then(read), rate);
        assert_eq!(read::<RateLimit>(0), None);
    }
}
