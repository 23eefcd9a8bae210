//! External systems: WordPress, SFTPGo, Authentik, n8n.

pub mod authentik;
mod connections;
mod counterpart_checks;
mod n8n;
pub mod sftpgo;
pub mod wordpress;
