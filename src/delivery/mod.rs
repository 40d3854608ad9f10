//! HTTP out: the delivery engine.
//!
//! ```text
//! dispatcher    claims due deliveries, starts an attempt for each, never more than the limits say
//!    │ lease
//! attempt       reads what the attempt needs as it stands now, signs, sends, decides, records
//!    │ request                                       ▲ outcome
//! sender        one HTTP request to a checked address, within the deadline, reading no more than the cap
//!    │ host
//! connector     resolves, checks every address, connects to the address that was checked
//! ```
//! Beside them beats the *heartbeat*: the node is alive, its long attempts keep their leases, dead nodes' work goes on.
//! No transaction is open while the network is used.

pub mod attempt;
pub mod connector;
pub mod dispatcher;
pub mod heartbeat;
pub mod sender;

pub use attempt::Engine;
