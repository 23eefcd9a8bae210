//! Operations on webhooks and on the deliveries of events.

pub mod deliveries;
pub mod webhooks;
