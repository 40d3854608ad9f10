//! The operations, one module each, and what holds for all of them.

mod audit;
mod authentication;
mod bodies;
mod connections;
mod create_webhook;
mod delete_webhook;
mod event_types;
mod events;
mod fairness;
mod hardening;
mod idempotency;
mod if_match;
mod limits;
mod list_deliveries;
mod list_webhooks;
mod problems;
mod replay_webhook;
mod retry_delivery;
mod test_webhook;
mod update_webhook;
