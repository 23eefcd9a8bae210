//! Roster: the member centre of a small site.

#![doc = include_str!("ARCHITECTURE.md")]

pub mod cli;
pub mod console;
pub mod server;

pub mod integrations;

pub mod features;

pub mod kernel;
