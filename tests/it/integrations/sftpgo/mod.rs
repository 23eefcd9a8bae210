//! SFTPGo.

pub mod accounts;
mod events;
mod hooks;
