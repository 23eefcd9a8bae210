//! Operations on decisions.

pub mod check;
pub mod log;
