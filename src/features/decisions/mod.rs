//! Operations on decisions: the permission check, and the decision log.

pub mod api;
