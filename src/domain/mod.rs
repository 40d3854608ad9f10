//! Facts and pure decisions: no I/O, no clock, no database.
//!
//! | file | what it decides |
//! |---|---|
//! | [`timestamp`] | the one representation of time |
//! | [`event_id`] | what an event is called on the wire |
//! | [`event_filter`] | which event types a webhook wants |
//! | [`destination`], [`address`] | which URLs and which addresses deliveries may go to |
//! | [`secret`], [`signature`] | signing secrets, and the two signatures every delivery carries |
//! | [`keyring`] | how signing secrets are kept at rest |
//! | [`token`] | API tokens and their scopes |
//! | [`outcome`], [`retry`] | what an attempt came to, and what follows from it |
//! | [`delivery`] | the states of a delivery |

pub mod address;
pub mod delivery;
pub mod destination;
pub mod event_filter;
pub mod event_id;
pub mod keyring;
pub mod outcome;
pub mod retry;
pub mod secret;
pub mod signature;
pub mod timestamp;
pub mod token;
