//! What the tests share: a running site, its callers, and the programs at its other ends.

pub mod browser;
pub mod callers;
pub mod console;
pub mod counterparts;
pub mod gated_sftpgo;
pub mod gated_wordpress;
pub mod nginx;
pub mod organizations;
pub mod receiver;
pub mod rows;
pub mod site;
pub mod storm_clients;
pub mod stub_server;
pub mod tls;
pub mod waiting;
pub mod wasm_fixtures;
