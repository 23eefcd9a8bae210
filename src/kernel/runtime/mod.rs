//! Process runtime: health reports of background threads, and the log writer.

pub mod health;
pub mod log;
