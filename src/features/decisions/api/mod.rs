//! The permission check and the decision log.

pub mod check;
pub mod log;
