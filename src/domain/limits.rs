//! How much an organization may use the API.

use std::num::NonZeroU32;

/// The limits of an organization; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per minute, reads and writes together.
    pub requests_per_minute_max: Option<NonZeroU32>,
    /// Writes per calendar month (UTC).
    pub writes_per_month_max: Option<NonZeroU32>,
}

/// The highest limit that can be set: enough for anybody, and far below the range of 32 bits.
pub const LIMIT_MAX: u32 = 1_000_000_000;

impl Limits {
    /// The `team` plan.
    pub const TEAM: Self = Self {
        requests_per_minute_max: NonZeroU32::new(60),
        writes_per_month_max: NonZeroU32::new(25_000),
    };
}
