//! The threads of this process: that none of them ends unnoticed, and the log that they write.

pub mod health;
pub mod log;
