//! Settings of TLS on the server itself: the rules between them, and what follows from them.

use super::Config;

/// Where the certificate of the server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Off,
    /// Files that another program renews.
    Files,
    /// An authority of its own, made by `roster tls local`.
    Local,
}

impl Config {
    /// Whether the server itself speaks https.
    pub fn is_https(&self) -> bool {
        self.tls_mode != TlsMode::Off
    }

    /// The scheme of the listening address.
    pub fn scheme(&self) -> &'static str {
        if self.is_https() { "https" } else { "http" }
    }

    /// Whether other computers may reach the server without TLS, as far as the settings tell.
    pub fn is_open_without_tls(&self) -> bool {
        let has_proxy = !self.trusted_proxies.is_empty() || self.public_url.starts_with("https://");
        !self.is_https() && !has_proxy && !self.listen.ip().is_loopback()
    }

    pub(super) fn check_tls(&self, faults: &mut Vec<String>) {
        for (name, file) in [("tls.cert_file", &self.tls_cert_file), ("tls.key_file", &self.tls_key_file)] {
            match (self.tls_mode == TlsMode::Files, file.as_os_str().is_empty()) {
                (true, true) => faults.push(format!("{name} is missing: tls.mode = \"files\" needs it")),
                (false, false) => faults.push(format!("{name} is used only with tls.mode = \"files\"")),
                _ => {}
            }
        }
        if self.is_https() && self.public_url.starts_with("http://") {
            faults.push("public_url must begin with https://, because tls.mode is not \"off\"".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn faults_of(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::of(Path::new("data"));
        change(&mut config);
        let mut faults = Vec::new();
        config.check_tls(&mut faults);
        faults
    }

    #[test]
    fn files_need_both_files_and_other_modes_need_none() {
        assert_eq!(faults_of(|_| {}), [""; 0]);
        assert_eq!(faults_of(|config| config.tls_mode = TlsMode::Local), [""; 0]);
        assert_eq!(
            faults_of(|config| config.tls_mode = TlsMode::Files),
            [
                "tls.cert_file is missing: tls.mode = \"files\" needs it",
                "tls.key_file is missing: tls.mode = \"files\" needs it"
            ]
        );
        let both = |config: &mut Config| {
            config.tls_cert_file = "cert.pem".into();
            config.tls_key_file = "key.pem".into();
        };
        assert_eq!(faults_of(both).len(), 2);
        assert_eq!(
            faults_of(|config| {
                both(config);
                config.tls_mode = TlsMode::Files;
            }),
            [""; 0]
        );
    }

    #[test]
    fn with_tls_the_public_address_is_https() {
        let mut config = Config::of(Path::new("data"));
        assert_eq!(config.public_url(), "http://127.0.0.1:8480");
        for mode in [TlsMode::Files, TlsMode::Local] {
            config.tls_mode = mode;
            assert_eq!(config.public_url(), "https://127.0.0.1:8480");
        }
        let at = |public_url: &str| {
            faults_of(|config| {
                config.tls_mode = TlsMode::Local;
                config.public_url = public_url.into();
            })
        };
        assert_eq!(at("https://nas.local"), [""; 0]);
        assert_eq!(at("http://nas.local"), ["public_url must begin with https://, because tls.mode is not \"off\""]);
    }

    #[test]
    fn a_server_in_the_network_is_open_without_tls_or_a_proxy() {
        let is_open = |listen: &str, change: fn(&mut Config)| {
            let mut config = Config::of(Path::new("data"));
            config.listen = listen.parse().expect("an address");
            change(&mut config);
            config.is_open_without_tls()
        };
        assert!(is_open("0.0.0.0:8480", |_| {}) && is_open("[::]:8480", |_| {}) && is_open("192.0.2.1:80", |_| {}));
        assert!(is_open("0.0.0.0:8480", |config| config.public_url = "http://nas.local".into()));
        assert!(!is_open("127.0.0.1:8480", |_| {}) && !is_open("[::1]:8480", |_| {}));
        for change in [
            (|config| config.tls_mode = TlsMode::Local) as fn(&mut Config),
            |config| config.public_url = "https://a.example.org".into(),
            |config| config.trusted_proxies = vec!["192.0.2.7/32".parse().expect("a network")],
        ] {
            assert!(!is_open("0.0.0.0:8480", change));
        }
    }
}
