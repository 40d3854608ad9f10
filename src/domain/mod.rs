//! Facts and pure decisions: no I/O, no clock, no database.
//!
//! | file | what it decides |
//! |---|---|
//! | [`id`] | what organizations, webhooks and deliveries are called |
//! | [`timestamp`] | the one representation of time |
//! | [`event_id`] | what an event is called on the wire |
//! | [`event`] | what happened to an organization |
//! | [`webhook`], [`webhook_settings`] | a registered endpoint, and what its customer says of it |
//! | [`event_filter`] | which event types a webhook wants |
//! | [`destination`], [`address`] | which URLs and which addresses deliveries may go to |
//! | [`secret`], [`signature`] | signing secrets, and the two signatures every delivery carries |
//! | [`fairness`] | how organizations share what is scarce |
//! | [`limits`] | how much an organization may ask of the API |
//! | [`precondition`] | whether a change may be made to a thing as it is now |
//! | [`idempotency_key`] | what a client names a request by |
//! | [`keyring`] | how signing secrets are kept at rest |
//! | [`mod@pointer`] | how a problem names a place in a body |
//! | [`token`] | API tokens and their scopes |
//! | [`outcome`], [`retry`] | what an attempt came to, and what follows from it |
//! | [`delivery`] | the states of a delivery |
//! | [`framing`] | where one request on a connection ends and the next begins |
//! | [`audit`], [`client_address`] | what is remembered of a write to a webhook, and where a request came from |
//! | [`health`], [`rate`] | when a webhook is left alone, and when it is switched off |
//! | [`operational`] | the events that the service itself makes |

pub mod address;
pub mod audit;
pub mod client_address;
pub mod delivery;
pub mod destination;
pub mod event;
pub mod event_filter;
pub mod event_id;
pub mod fairness;
pub mod framing;
pub mod health;
pub mod id;
pub mod idempotency_key;
pub mod keyring;
pub mod limits;
pub mod operational;
pub mod outcome;
pub mod pointer;
pub mod precondition;
pub mod rate;
pub mod retry;
pub mod secret;
pub mod signature;
pub mod timestamp;
pub mod token;
pub mod trace;
pub mod webhook;
pub mod webhook_settings;
