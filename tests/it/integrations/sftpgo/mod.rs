//! SFTPGo.

pub mod accounts;
pub mod events;
pub mod hooks;
