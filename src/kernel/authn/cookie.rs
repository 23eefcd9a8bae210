//! Session cookies: what they are called, how they are read and written, and which requests they do not count in.
//!
//! **Invariant.** Browsers send cookies with requests that other sites make. A change by cookie is therefore taken only
//! from our own pages and from the origins that the settings name.

use std::net::IpAddr;

use crate::kernel::config::Config;
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::{Error, ErrorCode, Result};

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
    /// The public address, where one is set.
    public: Option<Public>,
    trusted_proxies: Vec<ipnet::IpNet>,
}

#[derive(Debug, Clone)]
struct Public {
    /// Such as `https://id.example.org`
    origin: String,
    /// Host, and port where it is not the scheme's own.
    authority: String,
}

impl Public {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = without_default_port(scheme, rest.split('/').next()?).to_ascii_lowercase();
        Some(Self { origin: format!("{scheme}://{authority}"), authority })
    }

    fn is_host(&self, host: &str) -> bool {
        let scheme = self.origin.split("://").next().unwrap_or_default();
        without_default_port(scheme, host).eq_ignore_ascii_case(&self.authority)
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// What a request says about where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    /// Who is at the other end of the connection; nobody on the local socket.
    pub peer: Option<IpAddr>,
    /// `Sec-Fetch-Site`
    pub fetch_site: Option<&'a str>,
}

impl Cookies {
    pub fn new(config: &Config) -> Self {
        let url = config.public_url();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
        let (authority, path) = (rest.split('/').next().unwrap_or_default(), config.public_path());
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let is_secure = scheme == "https" || !is_loopback(host);
        let prefix = match (is_secure, path) {
            (false, _) => "",
            (true, "") => "__Host-",
            // Other services live on the same host: the cookies are theirs neither.
            (true, _) => "__Secure-",
        };
        Self {
            prefix,
            path: if path.is_empty() { "/".into() } else { path.to_owned() },
            is_secure,
            cors_origins: config.cors_origins.clone(),
            public: Public::of(&config.public_url),
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }

    /// Fails where cookies came to another host than the public address has: a name that somebody else points here. A proxy
    /// may call us what it likes, and so may this machine. What a page of the public address sends is ours by whatever name
    /// it came: a browser lets no page choose its `Origin`.
    pub fn require_own_host(&self, from: Provenance<'_>) -> Result<()> {
        let Some(public) = &self.public else { return Ok(()) };
        let is_near =
            |peer: IpAddr| peer.is_loopback() || self.trusted_proxies.iter().any(|network| network.contains(&peer));
        let is_own_page = from.origin == Some(&public.origin);
        if is_own_page || from.peer.is_none_or(is_near) || from.host.is_some_and(|host| public.is_host(host)) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::WrongHost)
            .with_message(format!("cookies count only at {}: use that address", public.origin)))
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
            // A proxy may not pass on what the browser called us: the public address is ours in any case.
            (None, Some(origin)) if self.public.as_ref().is_some_and(|public| public.origin == origin) => false,
            // `null` names no host, and is not the same as none that a proxy passed on.
            (None, Some(origin)) => origin.split_once("://").is_none_or(|(_, host)| from.host != Some(host)),
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
        let from = |origin, fetch_site| Provenance { origin, host: Some("a.example.org"), peer: None, fetch_site };
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

    #[test]
    fn behind_a_proxy_that_names_no_host_the_public_address_decides() {
        let cookies = cookies("https://a.example.org:443/id");
        for host in [None, Some("127.0.0.1:8480"), Some("a.example.org")] {
            for (origin, is_cross_site) in [
                ("https://a.example.org", false),
                ("http://a.example.org", host != Some("a.example.org")),
                ("https://a.example.org:8443", true),
                ("null", true),
                ("https://evil.example", true),
            ] {
                let from = Provenance { origin: Some(origin), host, peer: None, fetch_site: None };
                assert_eq!(cookies.is_cross_site(from), is_cross_site, "{host:?} {origin}");
            }
        }
    }

    #[test]
    fn cookies_count_at_the_public_address_only() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let origin_of = |url: &'static str| url.strip_suffix("/id").unwrap_or(url);
        let mut config = Config::of(Path::new("data"));
        config.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
        for (public_url, right, wrong) in [
            ("https://a.example.org", "a.example.org", "a.example.org:8443"),
            ("https://a.example.org", "A.example.org:443", "a.example.org:80"),
            ("https://a.example.org:8443/id", "a.example.org:8443", "a.example.org"),
            ("http://nas.example.org", "nas.example.org:80", "nas.example.org:443"),
            ("http://[2001:db8::7]:8480", "[2001:db8::7]:8480", "[2001:db8::7]"),
        ] {
            config.public_url = public_url.into();
            let cookies = Cookies::new(&config);
            let is_taken = |host, peer| {
                let from = Provenance { origin: None, host, peer, fetch_site: Some("same-origin") };
                cookies.require_own_host(from).is_ok()
            };
            let far = Some(address("203.0.113.7"));
            assert!(is_taken(Some(right), far), "{public_url} {right}");
            for host in [Some(wrong), Some("evil.example"), Some(""), None] {
                assert!(!is_taken(host, far), "{public_url} {host:?}");
                for near in [None, Some(address("127.0.0.1")), Some(address("::1")), Some(address("10.1.2.3"))] {
                    assert!(is_taken(host, near), "{public_url} {host:?} {near:?}");
                }
                // A proxy that is not listed, and passes no host: the page that asks decides.
                for (origin, is_own) in [(origin_of(public_url), true), ("https://evil.example", false)] {
                    let from = Provenance { origin: Some(origin), host, peer: far, fetch_site: None };
                    let is_taken = cookies.require_own_host(from).is_ok() && !cookies.is_cross_site(from);
                    assert_eq!(is_taken, is_own, "{public_url} {host:?} {origin}");
                }
            }
        }
        config.public_url = String::new();
        let from = Provenance { origin: None, host: Some("any"), peer: Some(address("203.0.113.7")), fetch_site: None };
        assert!(Cookies::new(&config).require_own_host(from).is_ok());
    }
}
