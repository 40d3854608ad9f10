//! The queue: what is still to do. A delivery has an entry in it from the event that owes it until it has ended, and for as
//! long as somebody retries it after that.
//!
//! | file | what it holds |
//! |---|---|
//! | [`lease`] | the words: leases, what they send, where it goes, what came of it |
//! | [`publish`], `publish_rows`, `publish_batch` | an event with what it owes, leased to this node at once where it can be |
//! | `owed` | what that is: what is leased at once, and the webhooks that may want an event |
//! | [`claim`] | leasing what is due, fairly |
//! | [`manual`] | leasing what somebody asks for |
//! | [`work`] | what attempts need to know |
//! | [`finish`], `finish_rows`, `finish_batch` | recording what came of them |
//! | `health`, `operational` | what that does to the webhooks, and what the organization is told |
//! | [`leases`] | giving back, renewing and releasing leases |
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
