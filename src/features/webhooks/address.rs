//! Restricts webhooks to public addresses and to the hosts in `webhooks.private_hosts`.
//!
//! **Invariant.** The check runs at every delivery, on every address that the host name resolves to at that moment, and
//! the connection goes to these addresses. What the name resolved to when the webhook was created does not matter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Maximum length of a webhook's URL in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// Returns the faults of a webhook's URL. Does not check whether its host is private.
pub fn url_faults(text: &str) -> Vec<String> {
    let Ok(url) = Url::parse(text) else {
        return vec!["is not a URL such as https://n8n.example.org/webhook/1".into()];
    };
    let is_web = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    let has_user = !url.username().is_empty() || url.password().is_some();
    let faults = [
        (!is_web, "must start with https:// or http:// and name a host"),
        (has_user, "must not contain a user name or password"),
        (url.fragment().is_some(), "must not have a fragment (#)"),
        (url.port() == Some(0), "must not name port 0"),
        (text.len() > URL_BYTES_MAX, "is too long"),
        (text.chars().any(|c| c <= ' ' || c == '\u{7f}'), "must not contain spaces or control characters"),
    ];
    faults.into_iter().filter(|(is_faulty, _)| *is_faulty).map(|(_, message)| message.to_owned()).collect()
}

/// The hosts that may be private, in normalized form, each with the only allowed port, if there is one.
#[derive(Debug, Clone)]
pub struct AllowedHosts(Arc<[(String, Option<u16>)]>);

impl AllowedHosts {
    pub fn new(private: &[String]) -> Self {
        Self(private.iter().map(|entry| host_and_port(entry)).collect())
    }

    fn names(&self, host: &str) -> bool {
        let host = normalized(host);
        self.0.iter().any(|(named, _)| *named == host)
    }

    fn names_port(&self, host: &str, port: Option<u16>) -> bool {
        let host = normalized(host);
        self.0.iter().any(|(named, only)| *named == host && (only.is_none() || *only == port))
    }

    /// Whether the URL may be requested, as far as can be told without resolving its host name. (The URL parser has
    /// already normalized decimal, octal and hexadecimal spellings of IP addresses, as a browser does.)
    pub fn allow(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        if self.names(host) {
            return self.names_port(host, url.port_or_known_default());
        }
        let host = normalized(host);
        match host.parse::<IpAddr>() {
            Ok(address) => is_public(address),
            Err(_) => host != "localhost" && !host.ends_with(".localhost"),
        }
    }
}

/// Parses `host` or `host:port`; an IPv6 address with a port must be in brackets.
fn host_and_port(entry: &str) -> (String, Option<u16>) {
    let is_bare_v6 = entry.matches(':').count() > 1 && !entry.starts_with('[');
    match entry.rsplit_once(':').filter(|_| !is_bare_v6) {
        Some((host, port)) if port.parse::<u16>().is_ok() => (normalized(host), port.parse().ok()),
        _ => (normalized(entry), None),
    }
}

/// Normalizes a host: removes brackets and a trailing dot, and converts to lower case.
fn normalized(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// The error for a host with a private address.
#[derive(Debug)]
pub struct PrivateAddress;

impl std::fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its host has an address that webhooks do not reach: see webhooks.private_hosts")
    }
}

impl std::error::Error for PrivateAddress {}

impl Resolve for AllowedHosts {
    fn resolve(&self, name: Name) -> Resolving {
        let is_allowed = self.names(name.as_str());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private address is enough: a name with public and private addresses is suspicious.
            if !is_allowed && found.iter().any(|found| !is_public(found.ip())) {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an IP address is public: not of this machine, of a private network, or reserved.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
    )
}

/// Only global unicast addresses, and addresses that embed a public IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped, and NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and other protocols, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_machines_and_private_networks_are_not_public() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("1.1.1.1", true),
            ("9.255.255.255", true),
            ("10.0.0.0", false),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("128.0.0.1", true),
            ("100.63.255.255", true),
            ("100.64.0.0", false),
            ("100.127.255.255", false),
            ("100.128.0.0", true),
            ("169.253.255.255", true),
            ("169.254.0.0", false),
            ("169.254.169.254", false),
            ("169.255.0.0", true),
            ("172.15.255.255", true),
            ("172.16.0.0", false),
            ("172.31.255.255", false),
            ("172.32.0.0", true),
            ("192.167.255.255", true),
            ("192.168.0.0", false),
            ("192.168.255.255", false),
            ("192.169.0.0", true),
            ("192.0.0.1", false),
            ("192.0.2.1", false),
            ("198.18.0.1", false),
            ("198.20.0.1", true),
            ("198.51.100.7", false),
            ("203.0.113.7", false),
            ("223.255.255.255", true),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700:4700::1111", true),
            ("2001:4860:4860::8888", true),
            ("::", false),
            ("::1", false),
            ("::8.8.8.8", false),
            ("::ffff:8.8.8.8", true),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::8.8.8.8", true),
            ("64:ff9b::127.0.0.1", false),
            ("64:ff9b:1::1", false),
            ("2002:7f00:1::1", false),
            ("2002:808:808::1", true),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("fc00::1", false),
            ("fdff:ffff::1", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
            ("100::1", false),
            ("4000::1", false),
        ] {
            assert_eq!(is_public(address.parse().expect(address)), expected, "{address}");
        }
    }

    #[test]
    fn all_spellings_of_an_address_are_recognized() {
        let no_private_hosts = AllowedHosts::new(&[]);
        for (url, expected) in [
            ("https://example.org/a?b=c", true),
            ("http://93.184.215.14:8080/", true),
            ("http://2130706433/", false),
            ("http://0x7f000001/", false),
            ("http://0177.0.0.1/", false),
            ("http://127.1/", false),
            ("http://0x7f.1/", false),
            ("http://0/", false),
            ("http://127.0.0.1./", false),
            ("http://１２７.０.０.１/", false),
            ("http://[::1]/", false),
            ("http://[::ffff:7f00:1]/", false),
            ("http://[::ffff:127.0.0.1]:80/", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("http://2852039166/", false),
            ("http://localhost/", false),
            ("http://LOCALHOST./", false),
            ("http://a.localhost:5678/", false),
            ("http://localhost.example.org/", true),
        ] {
            assert_eq!(no_private_hosts.allow(&Url::parse(url).expect(url)), expected, "{url}");
        }
    }

    #[test]
    fn only_hosts_in_the_settings_may_be_private() {
        let hosts = AllowedHosts::new(&["N8N.lan".into(), "127.0.0.1".into(), "::1".into()]);
        for (url, expected) in [
            ("http://n8n.lan:5678/webhook/1", true),
            ("http://n8n.LAN./", true),
            ("http://127.0.0.1/", true),
            ("http://0x7f.1/", true),
            ("http://[::1]/", true),
            ("http://127.0.0.2/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("http://localhost/", false),
        ] {
            assert_eq!(hosts.allow(&Url::parse(url).expect(url)), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn names_with_private_addresses_resolve_only_if_the_settings_name_them() {
        let name = || "localhost".parse::<Name>().expect("a name");
        let refused = AllowedHosts::new(&[]).resolve(name()).await.err().expect("refused");
        assert!(refused.is::<PrivateAddress>());
        assert!(AllowedHosts::new(&["localhost".into()]).resolve(name()).await.is_ok());
    }

    #[test]
    fn a_url_must_be_http_without_credentials_or_fragment() {
        for (url, faults) in [
            ("https://example.org/x", 0),
            ("http://example.org:65535", 0),
            ("example.org", 1),
            ("/webhook", 1),
            ("https://", 1),
            ("ftp://example.org", 1),
            ("file:///etc/passwd", 1),
            ("gopher://127.0.0.1:70/x", 1),
            ("https://kim@example.org", 1),
            ("https://kim:secret@example.org", 1),
            ("https://example.org/#x", 1),
            ("https://example.org:0/", 1),
            ("https://example.org:65536/", 1),
            ("https://example.org/a b", 1),
            ("https://example.org/\r\nX: y", 1),
        ] {
            assert_eq!(url_faults(url).len(), faults, "{url}: {:?}", url_faults(url));
        }
        let long = |bytes: usize| format!("https://example.org/{}", "a".repeat(bytes - 20));
        assert!(url_faults(&long(URL_BYTES_MAX)).is_empty() && url_faults(&long(URL_BYTES_MAX + 1)).len() == 1);
    }

    #[test]
    fn a_private_host_is_allowed_on_all_ports_or_on_one() {
        let hosts =
            AllowedHosts::new(&["n8n.lan".into(), "127.0.0.1:5678".into(), "[::1]:80".into(), "fd00::1".into()]);
        let allow = |url: &str| hosts.allow(&Url::parse(url).expect("an address"));
        for url in
            ["http://n8n.lan/", "https://N8N.lan:9/", "http://127.0.0.1:5678/", "http://[::1]/", "http://[fd00::1]:7/"]
        {
            assert!(allow(url), "{url}");
        }
        for url in
            ["http://127.0.0.1/", "http://127.0.0.1:5679/", "https://[::1]/", "http://[::1]:81/", "http://[fd00::2]/"]
        {
            assert!(!allow(url), "{url}");
        }
    }
}
