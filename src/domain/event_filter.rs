//! Which event types a webhook wants.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{
    nearest::{did_you_mean, nearest_by},
    operational::is_operational,
};

/// One entry of a webhook's filter: an exact event type, or a prefix followed by `.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FilterEntry(String);

impl FilterEntry {
    /// Parses an entry that can match at least one type of `catalog`.
    ///
    /// # Errors
    /// An entry that can match nothing is refused: it would be silent forever. The error names the most similar type of
    /// the catalog, if one is similar enough.
    pub fn parse<'a>(text: &str, catalog: impl Iterator<Item = &'a str> + Clone) -> Result<Self, UnknownEventType> {
        let entry = Self(text.to_owned());
        if catalog.clone().any(|event_type| entry.matches(event_type)) {
            return Ok(entry);
        }
        Err(UnknownEventType {
            nearest: nearest(text, catalog),
        })
    }

    /// Whether the entry matches `event_type`.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        match self.0.strip_suffix(".*") {
            Some(prefix) => event_type
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('.')),
            None => self.0 == event_type,
        }
    }

    /// The entry as the customer wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a webhook wants: all events, or those that match at least one entry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum EventFilter {
    /// Every event of the organization (`null` on the wire), except those that the service itself publishes.
    #[default]
    All,
    /// Events that match at least one of these entries; never empty.
    Only(Vec<FilterEntry>),
}

impl EventFilter {
    /// A filter with these entries; without any it matches all events.
    #[must_use]
    pub fn from_entries(entries: Vec<FilterEntry>) -> Self {
        if entries.is_empty() {
            Self::All
        } else {
            Self::Only(entries)
        }
    }

    /// A filter as stored: its entries were validated when they were set, and remain in force even if a type has left
    /// the catalog since.
    #[must_use]
    pub fn from_stored(entries: Option<Vec<String>>) -> Self {
        Self::from_entries(entries.unwrap_or_default().into_iter().map(FilterEntry).collect())
    }

    /// The entries, or `None` for all events.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(entries) => Some(entries.iter().map(|entry| entry.0.clone()).collect()),
        }
    }

    /// Whether the webhook wants an event of `event_type`. Events that the service itself publishes go only to filters
    /// that name them.
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        match self {
            Self::All => !is_operational(event_type),
            Self::Only(entries) => entries.iter().any(|entry| entry.matches(event_type)),
        }
    }
}

impl Serialize for EventFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_none(),
            Self::Only(entries) => entries.serialize(serializer),
        }
    }
}

/// An event type or filter entry that matches nothing in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEventType {
    /// The most similar type of the catalog.
    pub nearest: Option<String>,
}

impl UnknownEventType {
    /// Checks that the catalog has exactly this event type.
    ///
    /// # Errors
    /// The type is not in the catalog; the error names the most similar one.
    pub fn check<'a>(event_type: &str, mut catalog: impl Iterator<Item = &'a str> + Clone) -> Result<(), Self> {
        let all = catalog.clone();
        if catalog.any(|known| known == event_type) {
            Ok(())
        } else {
            Err(Self {
                nearest: nearest(event_type, all),
            })
        }
    }
}

impl fmt::Display for UnknownEventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.nearest {
            Some(_) => write!(
                formatter,
                "matches no event type{}",
                did_you_mean(self.nearest.as_deref())
            ),
            None => formatter.write_str("matches no event type; GET /v1/event_types lists them all"),
        }
    }
}

/// How similar two event types must be (Jaro-Winkler, 0 to 1) for one to be suggested instead of the other: less than other
/// words, since they have much in common.
const LIKENESS_MIN: f64 = 0.7;

/// The event type, or the prefix of several, that looks most like `text`.
pub fn nearest<'a>(text: &str, catalog: impl Iterator<Item = &'a str>) -> Option<String> {
    let group = |event_type: &'a str| event_type.split('.').next().unwrap_or(event_type);
    match text.strip_suffix(".*") {
        Some(prefix) => {
            let found = nearest_by(prefix, catalog, group, LIKENESS_MIN)?;
            Some(format!("{}.*", group(found)))
        }
        None => nearest_by(text, catalog, |event_type| event_type, LIKENESS_MIN).map(ToOwned::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::operational::OPERATIONAL_TYPES;

    const CATALOG: [&str; 4] = [
        "humanization.completed",
        "humanization.failed",
        "codon_export.completed",
        "job.failed",
    ];

    fn parse(text: &str) -> Result<FilterEntry, UnknownEventType> {
        FilterEntry::parse(text, CATALOG.into_iter())
    }

    #[test]
    fn an_exact_entry_matches_its_type_only() {
        let entry = parse("humanization.completed").unwrap();
        assert!(entry.matches("humanization.completed"));
        assert!(!entry.matches("humanization.failed"));
    }

    #[test]
    fn a_prefix_matches_whole_words_only() {
        let entry = parse("humanization.*").unwrap();
        assert!(entry.matches("humanization.failed"));
        assert!(!entry.matches("humanizations.failed"));
        assert!(!entry.matches("humanization"));
    }

    #[test]
    fn an_entry_that_can_match_nothing_is_refused_with_the_nearest_type() {
        assert_eq!(
            parse("humanisation.completed").unwrap_err().nearest.as_deref(),
            Some("humanization.completed")
        );
        assert_eq!(parse("codon.*").unwrap_err().nearest.as_deref(), Some("codon_export.*"));
        for text in ["", "*", ".*", "zzz.qqq"] {
            assert_eq!(parse(text).unwrap_err().nearest, None, "{text}");
        }
    }

    #[test]
    fn no_entries_mean_all_events() {
        assert!(EventFilter::from_entries(vec![]).wants("anything.at_all"));
        assert_eq!(EventFilter::from_entries(vec![]).entries(), None);
    }

    #[test]
    fn operational_events_go_to_filters_that_name_them() {
        for event_type in OPERATIONAL_TYPES {
            assert!(!EventFilter::All.wants(event_type), "{event_type}");
            let group = event_type.split('.').next().unwrap();
            for entry in [event_type.to_owned(), format!("{group}.*")] {
                assert!(
                    EventFilter::from_stored(Some(vec![entry])).wants(event_type),
                    "{event_type}"
                );
            }
        }
    }
}
