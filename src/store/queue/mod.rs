//! The queue: unfinished work. A delivery has an entry from when its event is published until it has ended, and again
//! while a manual retry is made.
//!
//! | file | what it holds |
//! |---|---|
//! | [`lease`] | the types: leases, what they send, where it goes, the results |
//! | [`publish`], `publish_rows`, `publish_batch` | recording an event with its deliveries, leased to this node at once if possible |
//! | `owed` | which deliveries those are: the webhooks that may want an event, and which are leased at once |
//! | [`claim`] | leasing what is due, fairly |
//! | [`manual`] | leasing what was requested |
//! | [`work`] | what attempts need to know |
//! | [`finish`], `finish_rows`, `finish_batch` | recording finished attempts |
//! | `health`, `operational` | how they change the webhooks' health, and the notices to the organization |
//! | [`leases`] | releasing and renewing leases |
//! | [`nodes`] | which nodes are alive, and what happens to the leases of a dead one |
//! | [`replay`] | many deliveries again |

pub mod claim;
pub mod finish;
pub(super) mod finish_batch;
pub(super) mod finish_rows;
mod health;
pub mod lease;
pub mod leases;
pub mod manual;
pub mod nodes;
mod operational;
mod owed;
pub mod publish;
pub(super) mod publish_batch;
mod publish_rows;
pub mod replay;
pub mod work;
