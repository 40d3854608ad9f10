//! The operations, one module each, and what holds for all of them.

mod authentication;
mod create_webhook;
mod delete_webhook;
mod event_types;
mod events;
mod list_deliveries;
mod list_webhooks;
mod problems;
mod retry_delivery;
mod test_webhook;
mod update_webhook;
