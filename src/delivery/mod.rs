//! HTTP out: the delivery engine.
//!
//! ```text
//! publication ──leased at once──┐
//! dispatcher    claims the rest ─┤      retries, backlog, dead nodes, rate limits and breakers
//!                                ▼
//! lanes         what waits in memory, a lane per webhook; whose turn it is
//!    │ start                     ▲ the webhook is read again, if that was too long ago
//! attempt       signs (headers), sends, decides, records     │ the permit is free when the request has ended
//!    │ request                                     ▲ outcome
//! sender        one HTTP request to a checked address, within the deadline, reading no more than the cap
//!    │ host
//! pool          connections that wait for the next request │ connection   one that is in use
//!    │ host
//! connector     checks scheme, port and every address, connects to an address that was checked
//!    │ name      resolver   finds the addresses of a name
//!    │ addresses
//! dial          the first of several addresses that responds
//! ```
//! `engine` holds what they share; `cap_share` is how nodes divide the caps; `records` keeps the leases of attempts
//! that wait for the database. Alongside them runs the *heartbeat*: the node stays alive, waiting deliveries keep their
//! leases, dead nodes' work is taken over; `liveness` is what the node knows about that. No transaction is open while
//! the network is used.

pub mod attempt;
pub mod cap_share;
mod connection;
pub mod connector;
pub mod dial;
pub mod dispatcher;
pub mod engine;
pub mod headers;
pub mod heartbeat;
mod lane;
pub mod lanes;
mod liveness;
mod pool;
mod records;
pub mod resolver;
pub mod sender;
pub mod step;

pub use connection::HeaderSpelling;
pub use engine::Engine;
