//! What the delivery engine promises.

mod breaker;
mod changes;
mod clocks;
mod connections;
mod fairness;
mod guard;
mod hang_up;
mod hold;
mod lost_lease;
mod master_keys;
mod operational;
mod outage;
mod rate;
mod restart;
mod retry;
