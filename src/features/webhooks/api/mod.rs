//! Operations on events' deliveries and on webhooks.

pub mod deliveries;
pub mod webhooks;
