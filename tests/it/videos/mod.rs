//! Videos, their storage and their jobs.

mod folders;
mod job_queue;
pub mod jobs;
mod own_videos;
mod quotas;
pub mod registration;
mod replaced_files;
mod reservations;
mod video_rules;
