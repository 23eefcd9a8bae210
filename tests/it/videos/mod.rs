//! Videos, their storage and their jobs.

pub mod folders;
pub mod job_queue;
pub mod jobs;
pub mod own_videos;
pub mod quotas;
pub mod registration;
pub mod reservations;
pub mod video_rules;
