//! Operations on videos and on the work on them.

pub mod jobs;
