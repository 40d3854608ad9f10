//! The one representation of time: milliseconds since the Unix epoch, UTC.

use std::{fmt, time::Duration};

use chrono::{DateTime, Datelike as _, Months, NaiveTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;
use uuid::Uuid;

/// An instant, in milliseconds since the Unix epoch.
///
/// On the wire it is ISO-8601 in UTC, written with the offset `+00:00` (never `Z`), and with
/// three decimals only where the milliseconds are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch, as stored in the database.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down: the `t` of a signature.
    #[must_use]
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant, later by `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This instant, earlier by `duration`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The start of this instant's calendar month (UTC).
    #[must_use]
    pub fn month_start(self) -> Self {
        let day = self.to_utc().date_naive();
        let first = day.with_day(1).unwrap_or(day).and_time(NaiveTime::MIN);
        Self(first.and_utc().timestamp_millis())
    }

    /// The start of the calendar month (UTC) after this instant's.
    #[must_use]
    pub fn next_month_start(self) -> Self {
        let next = self.month_start().to_utc().checked_add_months(Months::new(1));
        Self(next.unwrap_or(DateTime::<Utc>::MAX_UTC).timestamp_millis())
    }

    fn to_utc(self) -> DateTime<Utc> {
        DateTime::<Utc>::from_timestamp_millis(self.0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The smallest version 7 UUID generated at this instant or later (RFC 9562, section 5.7): its first 48 bits are
    /// the milliseconds.
    #[must_use]
    pub const fn least_uuid(self) -> Uuid {
        let millis = if self.0 < 0 { 0 } else { self.0.cast_unsigned() };
        Uuid::from_u128((millis as u128) << 80)
    }

    /// Parses an ISO-8601 (RFC 3339) instant with any offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instant = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(instant.timestamp_millis()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, false))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("must be an RFC 3339 date and time, such as 2026-04-23T10:00:00+00:00"))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_in_utc_with_a_numeric_offset() {
        assert_eq!(
            Timestamp::from_millis(1_776_938_400_000).to_string(),
            "2026-04-23T10:00:00+00:00"
        );
        assert_eq!(
            Timestamp::from_millis(1_776_938_400_007).to_string(),
            "2026-04-23T10:00:00.007+00:00"
        );
    }

    #[test]
    fn is_read_with_any_offset() {
        let expected = Some(Timestamp::from_millis(1_776_938_400_000));
        for text in [
            "2026-04-23T10:00:00+00:00",
            "2026-04-23T10:00:00Z",
            "2026-04-23T12:00:00.000+02:00",
        ] {
            assert_eq!(Timestamp::parse(text), expected, "{text}");
        }
        assert_eq!(Timestamp::parse("2026-04-23"), None);
    }

    #[test]
    fn months_begin_at_midnight_of_their_first_day() {
        for (instant, start, next) in [
            ("2026-11-23T18:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            (
                "2026-12-31T23:59:59.999Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
            ("2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (
                "2026-12-01T00:30:00+02:00",
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
        ] {
            let at = |text| Timestamp::parse(text).unwrap();
            assert_eq!(at(instant).month_start(), at(start), "{instant}");
            assert_eq!(at(instant).next_month_start(), at(next), "{instant}");
        }
    }

    #[test]
    fn time_between_is_never_negative() {
        let (early, late) = (Timestamp::from_millis(1000), Timestamp::from_millis(3500));
        assert_eq!(late.since(early), Duration::from_millis(2500));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
