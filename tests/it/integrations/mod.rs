//! External systems: WordPress, SFTPGo, Authentik, n8n.

pub mod authentik;
pub mod counterpart_checks;
pub mod n8n;
pub mod sftpgo;
pub mod wordpress;
