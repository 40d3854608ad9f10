//! Background work, and what operators query.

pub mod backlog;
pub mod backup;
pub mod checks;
pub mod clamp;
pub mod clock_jump;
pub mod copy;
pub mod deletion;
pub mod retention;
