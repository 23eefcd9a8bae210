//! The server: HTTP, limits, faults, and what it writes down.

mod audit;
mod bodies;
mod connections;
mod crash;
mod encryption;
mod faults;
mod http;
mod maintenance;
mod proxies;
mod site_only;
mod storm;
mod tls;
mod versions;
