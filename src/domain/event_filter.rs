//! Which event types a webhook wants.

use std::fmt;

use serde::{Serialize, Serializer};

use super::operational::is_operational;

/// One entry of a webhook's filter: an exact event type, or a prefix followed by `.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FilterEntry(String);

impl FilterEntry {
    /// Takes an entry that can match at least one type of `catalog`.
    ///
    /// # Errors
    /// An entry that can match nothing is refused: it would be silent for ever. The error names the
    /// nearest type of the catalog where there is one that looks alike.
    pub fn parse<'a>(text: &str, catalog: impl Iterator<Item = &'a str> + Clone) -> Result<Self, UnknownEventType> {
        let entry = Self(text.to_owned());
        if catalog.clone().any(|event_type| entry.matches(event_type)) {
            return Ok(entry);
        }
        Err(UnknownEventType {
            nearest: nearest(text, catalog),
        })
    }

    /// Whether an event of `event_type` is wanted.
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

/// What a webhook wants: all events, or those that at least one entry matches.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum EventFilter {
    /// Every event of the organization (`null` on the wire), but for those that the service itself makes.
    #[default]
    All,
    /// Events that at least one of these entries matches; never empty.
    Only(Vec<FilterEntry>),
}

impl EventFilter {
    /// A filter of these entries; none at all means all events.
    #[must_use]
    pub fn of(entries: Vec<FilterEntry>) -> Self {
        if entries.is_empty() {
            Self::All
        } else {
            Self::Only(entries)
        }
    }

    /// A filter as the database keeps it: its entries were judged when they came in, and stay the
    /// customer's even when a type has left the catalog since.
    #[must_use]
    pub fn from_stored(entries: Option<Vec<String>>) -> Self {
        Self::of(entries.unwrap_or_default().into_iter().map(FilterEntry).collect())
    }

    /// The entries, or `None` for all events.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(entries) => Some(entries.iter().map(|entry| entry.0.clone()).collect()),
        }
    }

    /// Whether an event of `event_type` is wanted. What the service itself makes is wanted by those alone who name it.
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

/// An event type, or a filter entry, that nothing in the catalog answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEventType {
    /// The type of the catalog that looks most like it.
    pub nearest: Option<String>,
}

impl UnknownEventType {
    /// Judges an exact event type against the catalog.
    ///
    /// # Errors
    /// A type that is not in the catalog, with the nearest one that is.
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
        formatter.write_str("matches no event type of the catalog (GET /v1/event_types)")?;
        match &self.nearest {
            Some(nearest) => write!(formatter, "; did you mean {nearest}?"),
            None => Ok(()),
        }
    }
}

/// How alike two words must be (Jaro-Winkler, 0 to 1) before one is suggested for the other.
const LIKENESS_MIN: f64 = 0.7;

fn nearest<'a>(text: &str, catalog: impl Iterator<Item = &'a str>) -> Option<String> {
    let words = text.strip_suffix(".*").unwrap_or(text);
    catalog
        .map(|event_type| {
            let compared = if text.ends_with(".*") {
                event_type.split('.').next().unwrap_or(event_type)
            } else {
                event_type
            };
            (strsim::jaro_winkler(words, compared), event_type)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, event_type)| {
            if text.ends_with(".*") {
                event_type
                    .split('.')
                    .next()
                    .map_or_else(String::new, |group| format!("{group}.*"))
            } else {
                event_type.to_owned()
            }
        })
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
        assert!(EventFilter::of(vec![]).wants("anything.at_all"));
        assert_eq!(EventFilter::of(vec![]).entries(), None);
    }

    #[test]
    fn what_the_service_makes_is_for_those_who_name_it() {
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
