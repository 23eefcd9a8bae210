//! The command line, and the manual.

pub mod commands;
mod first_minutes;
mod manual;
