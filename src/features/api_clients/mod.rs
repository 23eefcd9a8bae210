//! API clients: back-office programs with a key, a secret, scopes, and limits on origins, addresses and paths.

pub mod api;
pub mod store;

use std::sync::atomic::Ordering;

use crate::kernel::app::App;
use crate::kernel::config;
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;
pub use store::list_clients;

/// A client as stored, without its hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiClient {
    pub client_key: String,
    pub name: String,
    pub is_active: bool,
    pub scopes: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub allowed_ips: Vec<String>,
    pub allowed_paths: Vec<String>,
    pub rate_limit_per_min: Option<u32>,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Returns the faults of an entry of `allowed_origins`.
pub fn origin_faults(text: &str) -> Vec<String> {
    fault(is_origin(text), "is not an exact origin such as https://office.example.org")
}

/// Returns the faults of an entry of `allowed_ips`.
pub fn network_faults(text: &str) -> Vec<String> {
    fault(config::network(text).is_some(), "is not an IP address or a CIDR range")
}

/// Returns the faults of an entry of `allowed_paths`.
pub fn path_faults(text: &str) -> Vec<String> {
    fault(is_path(text), "is not a path such as /admin/members, or /admin/* for all paths below")
}

fn fault(is_valid: bool, message: &str) -> Vec<String> {
    if is_valid { Vec::new() } else { vec![message.to_owned()] }
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', '@', ' ', '?', '#']))
}

fn is_path(text: &str) -> bool {
    let fixed = text.strip_suffix("/*").unwrap_or(text);
    text.starts_with('/') && !fixed.contains('*') && !text.contains("//") && !text.contains(['?', '#', ' '])
}

/// Writes the time of each client's last use, which is kept in memory until then.
pub async fn flush_last_used(app: &App) -> Result<()> {
    let snapshot = app.snapshot();
    let used: Vec<(String, Timestamp)> = snapshot
        .clients()
        .filter_map(|client| match client.counters.last_used.load(Ordering::Relaxed) {
            0 => None,
            at => Some((client.client_key.to_string(), Timestamp(at))),
        })
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    app.write_each_unaudited(used, |w, (client_key, at)| store::touch(w, client_key, *at)).await
}

#[cfg(test)]
mod tests {
    use super::{is_origin, is_path};

    #[test]
    fn origins_and_paths_are_exact() {
        assert!(is_origin("https://office.example.org") && is_origin("http://localhost:8080"));
        assert!(
            !is_origin("*")
                && !is_origin("https://*.example.org")
                && !is_origin("https://a/")
                && !is_origin("https://a@b")
        );
        assert!(is_path("/admin/members") && is_path("/admin/*"));
        assert!(!is_path("admin") && !is_path("/a*") && !is_path("/*/a") && !is_path("/a//b") && !is_path("/a?b"));
    }
}
