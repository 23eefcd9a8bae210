//! The server: HTTP, limits, faults, and what it writes down.

pub mod audit;
pub mod bodies;
pub mod connections;
pub mod crash;
pub mod encryption;
pub mod faults;
pub mod http;
pub mod maintenance;
pub mod proxies;
pub mod site_only;
pub mod storm;
pub mod versions;
