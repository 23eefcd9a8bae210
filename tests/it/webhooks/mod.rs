//! Events for others: the outbox, webhooks and mail.

pub mod mail;
pub mod outbox;
mod subscriptions;
