//! What the delivery engine promises.

mod fairness;
mod guard;
mod hold;
mod restart;
mod retry;
