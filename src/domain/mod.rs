//! Facts and pure decisions: no I/O, no clock, no database.
//!
//! | file | what it decides |
//! |---|---|
//! | [`id`] | the ids of organizations, webhooks and deliveries |
//! | [`timestamp`] | the one representation of time |
//! | [`event_id`] | the ids of events on the wire |
//! | [`event`] | what happened to an organization |
//! | [`webhook`], [`webhook_settings`] | a registered endpoint, and what its customer can set |
//! | [`event_filter`] | which event types a webhook wants |
//! | [`destination`], [`address`] | which URLs and which addresses deliveries may go to |
//! | [`secret`], [`signature`] | signing secrets, and the two signatures of every delivery |
//! | [`verification`], [`signing_vectors`] | how a receiver checks a signature and why it refuses one; known answers |
//! | [`fairness`] | how organizations share what is scarce |
//! | [`limits`] | how much an organization may use the API |
//! | [`precondition`] | whether a client's change still applies to the current version |
//! | [`idempotency_key`] | a client's name for a request |
//! | [`keyring`] | how signing secrets are kept at rest |
//! | [`mod@pointer`], [`fault_code`], [`mod@nearest`] | where a fault of a request is, what kind it is, and what may have been meant |
//! | [`token`] | API tokens and their scopes |
//! | `credential` | what secrets and tokens have in common |
//! | [`pass`] | what opens the dashboard in place of a token |
//! | [`outcome`], [`retry`] | the result of an attempt, and what follows from it |
//! | [`delivery`] | the states of a delivery |
//! | [`word`] | what the words of closed lists have in common |
//! | [`framing`] | where one request on a connection ends and the next begins |
//! | [`frames`] | what an HTTP/2 client sends in addition to requests |
//! | [`trace`] | which trace a request belongs to |
//! | [`audit`], [`client_address`] | what is kept about a write to a webhook, and which address a request came from |
//! | [`health`], [`rate`] | when a webhook is given a pause, and when it is disabled |
//! | [`operational`] | the events that the service itself publishes |

pub mod address;
pub mod audit;
pub mod client_address;
mod credential;
pub mod delivery;
pub mod destination;
pub mod event;
pub mod event_filter;
pub mod event_id;
pub mod fairness;
pub mod fault_code;
pub mod frames;
pub mod framing;
pub mod health;
pub mod id;
pub mod idempotency_key;
pub mod keyring;
pub mod limits;
pub mod nearest;
pub mod operational;
pub mod outcome;
pub mod pass;
pub mod pointer;
pub mod precondition;
pub mod rate;
pub mod retry;
pub mod secret;
pub mod signature;
pub mod signing_vectors;
pub mod timestamp;
pub mod token;
pub mod trace;
pub mod verification;
pub mod webhook;
pub mod webhook_settings;
pub mod word;
