//! The server: HTTP, limits, faults, and what it writes down.

mod audit;
mod bodies;
mod connections;
mod crash;
mod encryption;
mod faults;
mod http;
mod lost_rights;
mod maintenance;
mod proxies;
mod settings;
mod site_only;
mod statistics;
mod storm;
pub mod tasks;
mod tls;
mod versions;
