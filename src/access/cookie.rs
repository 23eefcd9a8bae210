//! Session cookies: what they are called, how they are read and written, and which requests they do not count in.
//!
//! **Invariant.** Browsers send cookies with requests that other sites make. A change by cookie is therefore taken only
//! from our own pages and from the origins that the settings name.

use crate::config::Config;
use crate::config::providers::is_loopback;

pub const ACCESS: &str = "access_token";
pub const REFRESH: &str = "refresh_token";
pub const SESSION: &str = "session_id";
/// Binds a sign-in at a provider to the browser that began it.
pub const OIDC: &str = "oidc_state";

/// What all our cookies have in common, fixed by the public address.
#[derive(Debug, Clone)]
pub struct Cookies {
    prefix: &'static str,
    path: String,
    is_secure: bool,
    cors_origins: Vec<String>,
}

/// What a request says about where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    /// `Sec-Fetch-Site`
    pub fetch_site: Option<&'a str>,
}

impl Cookies {
    pub fn new(config: &Config) -> Self {
        let url = config.public_url();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let is_secure = scheme == "https" || !is_loopback(host);
        let prefix = match (is_secure, path) {
            (false, _) => "",
            (true, "") => "__Host-",
            // Other services live on the same host: the cookies are theirs neither.
            (true, _) => "__Secure-",
        };
        Self { prefix, path: format!("/{path}"), is_secure, cors_origins: config.cors_origins.clone() }
    }

    /// The value of one of our cookies.
    pub fn find<'r>(&self, mut headers: impl Iterator<Item = &'r str>, name: &str) -> Option<&'r str> {
        headers.find_map(|line| {
            line.split(';').filter_map(|pair| pair.trim().split_once('=')).find_map(|(known, value)| {
                (known.strip_prefix(self.prefix) == Some(name)).then_some(value).filter(|value| !value.is_empty())
            })
        })
    }

    /// A `Set-Cookie` value; a life of 0 takes the cookie away.
    pub fn set(&self, name: &str, value: &str, life_s: i64) -> String {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let Self { prefix, path, .. } = self;
        format!("{prefix}{name}={value}; Path={path}; Max-Age={life_s}; HttpOnly; SameSite=Lax{secure}")
    }

    /// Did another site's page make this request?
    pub fn is_cross_site(&self, from: Provenance<'_>) -> bool {
        if from.origin.is_some_and(|origin| self.cors_origins.iter().any(|allowed| allowed == origin)) {
            return false;
        }
        match (from.fetch_site, from.origin) {
            (Some(site), _) => site != "same-origin" && site != "none",
            // No browser of today leaves both out of a change.
            (None, None) => false,
            (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != from.host,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn cookies(public_url: &str) -> Cookies {
        let mut config = Config::of(Path::new("data"));
        config.public_url = public_url.into();
        config.cors_origins = vec!["https://portal.example.org".into()];
        Cookies::new(&config)
    }

    #[test]
    fn the_public_address_fixes_name_path_and_protection() {
        let shown = |url: &str| cookies(url).set(SESSION, "x", 60);
        let rest = "Max-Age=60; HttpOnly; SameSite=Lax";
        assert_eq!(shown("https://a.example.org"), format!("__Host-session_id=x; Path=/; {rest}; Secure"));
        assert_eq!(shown("https://a.example.org/id"), format!("__Secure-session_id=x; Path=/id; {rest}; Secure"));
        assert_eq!(shown("http://nas.example.org"), format!("__Host-session_id=x; Path=/; {rest}; Secure"));
        assert_eq!(shown("http://127.0.0.1:8480"), format!("session_id=x; Path=/; {rest}"));
        assert_eq!(shown("http://[::1]:8480"), format!("session_id=x; Path=/; {rest}"));
    }

    #[test]
    fn only_the_right_name_is_read() {
        let cookies = cookies("https://a.example.org");
        let find = |line: &'static str| cookies.find([line].into_iter(), SESSION);
        assert_eq!(find("a=b; __Host-session_id=x; c"), Some("x"));
        for other in ["session_id=x", "__Host-session_id=", "__Host-session_id", "__Host-session_idx=y", ";=;"] {
            assert_eq!(find(other), None, "{other}");
        }
    }

    #[test]
    fn another_site_is_told_by_fetch_site_and_by_origin() {
        let cookies = cookies("https://a.example.org");
        let from = |origin, fetch_site| Provenance { origin, host: Some("a.example.org"), fetch_site };
        for (origin, fetch_site, is_cross_site) in [
            (None, None, false),
            (None, Some("same-origin"), false),
            (None, Some("none"), false),
            (None, Some("same-site"), true),
            (None, Some("cross-site"), true),
            (Some("https://a.example.org"), None, false),
            (Some("https://a.example.org.evil.example"), None, true),
            (Some("null"), None, true),
            (Some("https://evil.example"), Some("cross-site"), true),
            (Some("https://portal.example.org"), Some("cross-site"), false),
        ] {
            assert_eq!(cookies.is_cross_site(from(origin, fetch_site)), is_cross_site, "{origin:?} {fetch_site:?}");
        }
    }
}
