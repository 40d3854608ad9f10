//! The settings of a webhook: what its customer can set. Each is declared here once; everything else is derived from
//! that.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    delivery::DisabledReason,
    destination::{self, Destination},
    event_filter::EventFilter,
    rate::RateLimit,
};

/// Declares a setting by name, type, the type in which the audit log keeps it, and its default on creation. The first
/// one is required.
macro_rules! settings {
    (
        $(#[$named_meta:meta])* $named:ident: $named_type:ty as $named_kept:ty;
        $($(#[$meta:meta])* $name:ident: $type:ty as $audited:ty = $unnamed:expr;)*
    ) => {
        /// The settings of a webhook, as they are stored and shown.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
        pub struct WebhookSettings {
            $(#[$named_meta])*
            pub $named: $named_type,
            $($(#[$meta])* pub $name: $type,)*
        }

        impl WebhookSettings {
            /// Their names, in bodies as in the database.
            pub const NAMES: &[&str] = &[stringify!($named), $(stringify!($name)),*];

            /// The settings of a webhook whose creation names only this one.
            #[must_use]
            pub fn new($named: $named_type) -> Self {
                Self { $named, $($name: $unnamed,)* }
            }
        }

        /// Changes to the settings; `None` leaves a setting as it is.
        #[derive(Clone, Debug, Default)]
        #[expect(missing_docs, reason = "each is the setting it is named after")]
        pub struct SettingChanges {
            pub $named: Option<$named_type>,
            $(pub $name: Option<$type>,)*
        }

        impl SettingChanges {
            /// Applies the changes.
            pub fn apply_to(&self, settings: &mut WebhookSettings) {
                if let Some($named) = &self.$named {
                    settings.$named.clone_from($named);
                }
                $(if let Some($name) = &self.$name {
                    settings.$name.clone_from($name);
                })*
            }
        }

        /// The fields that a write changed, each with its value before and after; unchanged fields are omitted.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[expect(missing_docs, reason = "each is the setting it is named after")]
        pub struct FieldChanges {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $named: Option<Change<Option<$named_kept>>>,
            $(#[serde(default, skip_serializing_if = "Option::is_none")]
            pub $name: Option<Change<Option<$audited>>>,)*
            /// Why the service disabled it.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub disabled_reason: Option<Change<Option<DisabledReason>>>,
        }

        impl FieldChanges {
            /// The settings that differ. `None` is a webhook that does not exist yet, or no longer does.
            #[must_use]
            pub fn between(before: Option<&WebhookSettings>, after: Option<&WebhookSettings>) -> Self {
                Self {
                    $named: Change::between(
                        before.and_then(|settings| settings.$named.audited()),
                        after.and_then(|settings| settings.$named.audited()),
                    ),
                    $($name: Change::between(
                        before.and_then(|settings| settings.$name.audited()),
                        after.and_then(|settings| settings.$name.audited()),
                    ),)*
                    disabled_reason: None,
                }
            }
        }
    };
}

settings! {
    /// Where deliveries go.
    #[schema(schema_with = destination::url_schema)]
    url: Destination as String;
    /// Whether deliveries are attempted.
    enabled: bool as bool = true;
    /// Which events are wanted; null means all of them.
    #[schema(value_type = Option<Vec<String>>, max_items = 50)]
    events: EventFilter as FilterEntries = EventFilter::All;
    /// The customer's description.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    description: Option<String> as String = None;
    /// How many deliveries may start per second, if limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    rate_limit: Option<RateLimit> as u32 = None;
}

/// Converts a setting to the form in which the audit log keeps it; `None` is null.
trait Audited<T> {
    fn audited(&self) -> Option<T>;
}

impl Audited<String> for Destination {
    fn audited(&self) -> Option<String> {
        Some(self.as_str().to_owned())
    }
}

impl Audited<Self> for bool {
    fn audited(&self) -> Option<Self> {
        Some(*self)
    }
}

impl Audited<FilterEntries> for EventFilter {
    fn audited(&self) -> Option<FilterEntries> {
        self.entries().map(FilterEntries)
    }
}

impl<T: Clone> Audited<T> for Option<T> {
    fn audited(&self) -> Option<T> {
        self.clone()
    }
}

impl Audited<u32> for Option<RateLimit> {
    fn audited(&self) -> Option<u32> {
        self.map(RateLimit::per_second)
    }
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
    /// The change from one to the other; `None` if they are equal.
    pub fn between(before: T, after: T) -> Option<Self> {
        (before != after).then_some(Self { before, after })
    }
}

/// The entries of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(max_items = 50)]
pub struct FilterEntries(Vec<String>);

impl FieldChanges {
    /// The changes when the service disables a webhook.
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

    fn settings() -> WebhookSettings {
        WebhookSettings::new(Destination::from_stored("https://example.com/").unwrap())
    }

    #[test]
    fn unchanged_settings_are_omitted() {
        let before = settings();
        let mut after = settings();
        let changes = SettingChanges {
            events: Some(EventFilter::from_stored(Some(vec!["job.*".to_owned()]))),
            ..SettingChanges::default()
        };
        changes.apply_to(&mut after);
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
        let created = FieldChanges::between(None, Some(&settings()));
        let deleted = FieldChanges::between(Some(&settings()), None);
        assert_eq!(created.enabled.unwrap().after, Some(true));
        assert_eq!(deleted.url.unwrap().before.as_deref(), Some("https://example.com/"));
        assert!(created.description.is_none() && deleted.events.is_none());
    }

    #[test]
    fn changes_are_parsed_back() {
        let changes = FieldChanges::between(None, Some(&settings()));
        let text = serde_json::to_string(&changes).unwrap();
        assert_eq!(serde_json::from_str::<FieldChanges>(&text).unwrap(), changes);
    }
}
