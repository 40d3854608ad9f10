//! The health of a webhook as stored in its row.

use sea_orm::{DbErr, IntoActiveModel as _, Set, TryIntoModel as _};

use super::entity::webhook;
use crate::domain::{
    delivery::DisabledReason,
    health::{BREAKER_FAILURES, Health},
};

/// The health stored in a row.
pub(super) fn read(row: &webhook::Model) -> Health {
    Health {
        enabled: row.enabled,
        disabled_reason: row.disabled_reason,
        failing_since: row.failing_since,
        consecutive_failures: u32::try_from(row.consecutive_failures).unwrap_or_default(),
        resume_at: row.resume_at,
        failing_notices: u32::try_from(row.failing_notices).unwrap_or_default(),
        recovery_owed: row.recovery_owed,
        exhausted_count: u32::try_from(row.exhausted_count).unwrap_or_default(),
        exhausted_notice_at: row.exhausted_notice_at,
    }
}

/// The row with another health, not written yet.
pub(super) fn with(row: webhook::Model, health: Health) -> Result<webhook::Model, DbErr> {
    let mut changed = row.into_active_model();
    set(&mut changed, health);
    changed.try_into_model()
}

/// Sets a row's health.
pub(super) fn set(row: &mut webhook::ActiveModel, health: Health) {
    let Health {
        enabled,
        disabled_reason,
        failing_since,
        consecutive_failures,
        resume_at,
        failing_notices,
        recovery_owed,
        exhausted_count,
        exhausted_notice_at,
    } = health;
    row.enabled = Set(enabled);
    // A reason that a newer version wrote stays as it is.
    if disabled_reason != Some(DisabledReason::Unknown) {
        row.disabled_reason = Set(disabled_reason);
    }
    row.failing_since = Set(failing_since);
    row.consecutive_failures = Set(i32::try_from(consecutive_failures).unwrap_or(i32::MAX));
    row.resume_at = Set(resume_at);
    row.failing_notices = Set(i32::try_from(failing_notices).unwrap_or(i32::MAX));
    row.recovery_owed = Set(recovery_owed);
    row.exhausted_count = Set(i32::try_from(exhausted_count).unwrap_or(i32::MAX));
    row.exhausted_notice_at = Set(exhausted_notice_at);
}

/// [`BREAKER_FAILURES`] in the column's type.
pub(super) fn breaker_failures_column() -> i32 {
    i32::try_from(BREAKER_FAILURES).unwrap_or(i32::MAX)
}
