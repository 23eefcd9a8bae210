//! Videos, and the work on them.

pub mod api;
pub mod jobs;
mod jobs_store;
