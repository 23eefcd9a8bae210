//! Decisions as operations: the check, and the log of what was decided.

pub mod api;
