//! Cookies of sign-ins and sessions: their names and attributes, how they are read and written, and which requests must not use them.
//!
//! **Invariant.** Browsers send cookies with requests that other sites make. A change that is authenticated by a cookie
//! is therefore accepted only from pages of this site and from the configured CORS origins.

use std::net::IpAddr;

use crate::kernel::config::Config;
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::{Error, ErrorCode, Result};

pub const ACCESS: &str = "access_token";
pub const REFRESH: &str = "refresh_token";
pub const SESSION: &str = "session_id";
/// Stands for the second factor on a device that the member asked to be remembered.
pub const TRUSTED: &str = "trusted";
/// Binds a sign-in at a provider to the browser that started it.
pub const OIDC: &str = "oidc_state";

/// The attributes of all cookies of this site. They follow from the public address.
#[derive(Debug, Clone)]
pub struct Cookies {
    prefix: &'static str,
    path: String,
    is_secure: bool,
    cors_origins: Vec<String>,
    /// The public address, if one is configured.
    public: Option<Public>,
    trusted_proxies: Vec<ipnet::IpNet>,
}

#[derive(Debug, Clone)]
struct Public {
    /// For example `https://id.example.org`.
    origin: String,
    /// The host, and the port if it is not the default port of the scheme.
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

/// The headers and the peer address that tell where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    /// The address of the peer of the connection; none on the local socket.
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
            // Other services share the host and must not get the cookies, so the path is not `/` and `__Host-` cannot
            // be used.
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

    /// Fails with `wrong_host` if a request with cookies names another host than the public address, for example a
    /// domain of somebody else that points to this server. A trusted proxy and this machine can use any host name. A
    /// request whose `Origin` is the public address is accepted with any host name, because a page cannot choose its
    /// `Origin`.
    pub fn require_own_host(&self, from: Provenance<'_>) -> Result<()> {
        let Some(public) = &self.public else { return Ok(()) };
        let is_trusted =
            |peer: IpAddr| peer.is_loopback() || self.trusted_proxies.iter().any(|network| network.contains(&peer));
        let is_own_page = from.origin == Some(&public.origin);
        if is_own_page || from.peer.is_none_or(is_trusted) || from.host.is_some_and(|host| public.is_host(host)) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::WrongHost)
            .with_message(format!("cookies are accepted only at {}: use that address", public.origin)))
    }

    /// Returns the value of a cookie of this site; `None` if it is missing or empty. `name` is without the prefix.
    pub fn find<'r>(&self, mut headers: impl Iterator<Item = &'r str>, name: &str) -> Option<&'r str> {
        headers.find_map(|line| {
            line.split(';').filter_map(|pair| pair.trim().split_once('=')).find_map(|(known, value)| {
                (known.strip_prefix(self.prefix) == Some(name)).then_some(value).filter(|value| !value.is_empty())
            })
        })
    }

    /// Returns a `Set-Cookie` value. A `life_s` of 0 removes the cookie.
    pub fn set(&self, name: &str, value: &str, life_s: i64) -> String {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let Self { prefix, path, .. } = self;
        format!("{prefix}{name}={value}; Path={path}; Max-Age={life_s}; HttpOnly; SameSite=Lax{secure}")
    }

    /// Whether a page of another site made this request.
    pub fn is_cross_site(&self, from: Provenance<'_>) -> bool {
        if from.origin.is_some_and(|origin| self.cors_origins.iter().any(|allowed| allowed == origin)) {
            return false;
        }
        match (from.fetch_site, from.origin) {
            (Some(site), _) => site != "same-origin" && site != "none",
            // Every current browser sends at least one of the two with a change.
            (None, None) => false,
            // A proxy can replace the host that the browser named: the public address is this site in any case.
            (None, Some(origin)) if self.public.as_ref().is_some_and(|public| public.origin == origin) => false,
            // The origin `null` names no host; it must not equal a missing `Host`.
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
    fn the_public_address_determines_prefix_path_and_secure() {
        let set_cookie = |url: &str| cookies(url).set(SESSION, "x", 60);
        let rest = "Max-Age=60; HttpOnly; SameSite=Lax";
        assert_eq!(set_cookie("https://a.example.org"), format!("__Host-session_id=x; Path=/; {rest}; Secure"));
        assert_eq!(set_cookie("https://a.example.org/id"), format!("__Secure-session_id=x; Path=/id; {rest}; Secure"));
        assert_eq!(set_cookie("http://nas.example.org"), format!("__Host-session_id=x; Path=/; {rest}; Secure"));
        assert_eq!(set_cookie("http://127.0.0.1:8480"), format!("session_id=x; Path=/; {rest}"));
        assert_eq!(set_cookie("http://[::1]:8480"), format!("session_id=x; Path=/; {rest}"));
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
    fn a_request_of_another_site_is_detected_by_fetch_site_and_by_origin() {
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
    fn an_origin_equal_to_the_public_address_is_own_with_any_host() {
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
    fn cookies_are_accepted_at_the_public_address_only() {
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
            let is_accepted = |host, peer| {
                let from = Provenance { origin: None, host, peer, fetch_site: Some("same-origin") };
                cookies.require_own_host(from).is_ok()
            };
            let far = Some(address("203.0.113.7"));
            assert!(is_accepted(Some(right), far), "{public_url} {right}");
            for host in [Some(wrong), Some("evil.example"), Some(""), None] {
                assert!(!is_accepted(host, far), "{public_url} {host:?}");
                for near in [None, Some(address("127.0.0.1")), Some(address("::1")), Some(address("10.1.2.3"))] {
                    assert!(is_accepted(host, near), "{public_url} {host:?} {near:?}");
                }
                // With a proxy that is not trusted and passes no host, the origin of the page decides.
                for (origin, is_own) in [(origin_of(public_url), true), ("https://evil.example", false)] {
                    let from = Provenance { origin: Some(origin), host, peer: far, fetch_site: None };
                    let is_accepted = cookies.require_own_host(from).is_ok() && !cookies.is_cross_site(from);
                    assert_eq!(is_accepted, is_own, "{public_url} {host:?} {origin}");
                }
            }
        }
        config.public_url = String::new();
        let from = Provenance { origin: None, host: Some("any"), peer: Some(address("203.0.113.7")), fetch_site: None };
        assert!(Cookies::new(&config).require_own_host(from).is_ok());
    }
}
