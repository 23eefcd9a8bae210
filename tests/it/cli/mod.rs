//! The command line, and the manual.

pub mod commands;
pub mod first_minutes;
pub mod manual;
