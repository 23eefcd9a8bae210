//! Integrations with external systems, one module for each. Integrations use features; no feature uses an integration.

pub mod authentik;
pub mod mail;
pub mod sftpgo;
pub mod wordpress;
