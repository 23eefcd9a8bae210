//! Shared parts of pages and documents: HTML escaping, and the addresses that browsers see.

use crate::kernel::config::Config;

/// Escapes text for HTML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The path of a page as browsers see it: with the path of `public_url`, which a proxy can strip.
pub fn public_path(config: &Config, page: &str) -> String {
    format!("{}{page}", config.public_path())
}

/// The path of the API documentation as browsers see it.
pub fn docs(config: &Config) -> String {
    format!("{}/docs", config.api_path())
}
