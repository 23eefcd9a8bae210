//! Rules between settings.

use super::{Config, MailSecurity, providers};

/// The WordPress plugin enforces the same minimum, because the holder of a ticket can try secrets offline.
const TICKET_SECRET_BYTES_MIN: usize = 32;

impl Config {
    pub(super) fn check(&self, faults: &mut Vec<String>) {
        for origin in &self.cors_origins {
            let exact = origin.starts_with("http://") || origin.starts_with("https://");
            if !exact || origin.contains('*') || origin.matches('/').count() != 2 {
                faults.push(format!("cors.origins: {origin:?} is not an exact origin like https://portal.example.org"));
            }
        }
        for (name, url) in [
            ("wordpress.url", &self.wordpress_url),
            ("authentik.url", &self.authentik_url),
            ("sftpgo.url", &self.sftpgo_url),
        ] {
            if !url.is_empty() {
                providers::check_address(name, url, faults);
            }
            if url.ends_with('/') {
                faults.push(format!("{name} must not end with a slash"));
            }
        }
        for (name, secret) in [
            ("wordpress.ticket_secret_file", &self.wordpress_ticket_secret),
            ("hooks.wordpress_key_file", &self.hook_wordpress_key),
            ("hooks.sftpgo_key_file", &self.hook_sftpgo_key),
        ] {
            if secret.as_ref().is_some_and(|secret| secret.len() < TICKET_SECRET_BYTES_MIN) {
                faults.push(format!("{name}: the secret must have at least {TICKET_SECRET_BYTES_MIN} characters: try `openssl rand -hex 32`"));
            }
        }
        self.check_files(faults);
        self.check_tls(faults);
        self.check_bodies(faults);
        for [one, other] in [
            [
                ("wordpress.username", !self.wordpress_username.is_empty()),
                ("wordpress.password_file", self.wordpress_password.is_some()),
            ],
            [("mail.host", !self.mail_host.is_empty()), ("mail.from", !self.mail_from.is_empty())],
        ] {
            if one.1 != other.1 {
                let (set, missing) = if one.1 { (one.0, other.0) } else { (other.0, one.0) };
                faults.push(format!("{missing} is missing: it goes together with {set}"));
            }
        }
        if self.mail_security == MailSecurity::None && !providers::is_loopback(&self.mail_host) {
            faults.push("mail.security can be none only for a server on this machine".into());
        }
        if self.registration && self.mail_host.is_empty() {
            faults.push("auth.registration needs mail.host: e-mail addresses are verified by a code".into());
        }
        if self.signing_key_overlap_s < self.access_token_ttl_s {
            faults.push("auth.signing_key_overlap_s must not be less than auth.access_token_ttl_s".into());
        }
        for (n, way) in self.signin_order.iter().enumerate() {
            if !["password", "oidc", "wordpress"].contains(&way.as_str()) {
                faults.push(format!("signin.order: there is no way {way:?}: use password, oidc and wordpress"));
            } else if self.signin_order[..n].contains(way) {
                faults.push(format!("signin.order names {way} twice"));
            }
        }
        if self.audience.is_empty() {
            faults.push("auth.audience must not be empty: every access token needs an audience".into());
        }
    }

    /// Checks the settings of SFTPGo and of the media root.
    fn check_files(&self, faults: &mut Vec<String>) {
        if self.has_sftpgo() && self.sftpgo_secret.is_none() {
            faults.push("sftpgo.url needs a secret in sftpgo.secret_file".into());
        }
        if !self.sftpgo_home.is_empty() && !self.sftpgo_home.contains("{username}") {
            faults.push("sftpgo.home must contain {username}: otherwise all members would have the same folder".into());
        }
        if !self.media_root.as_os_str().is_empty() && !self.media_root.is_absolute() {
            faults.push("media_root must begin with a slash".into());
        }
    }

    /// The body limits, in bytes, of authenticated callers.
    fn bodies(&self) -> [(&'static str, u64); 5] {
        let large = if self.plugins_large.is_empty() { 0 } else { self.plugin_large_file_bytes };
        [
            ("limits.body_bytes", self.body_bytes_max),
            ("limits.catalog_bytes", self.catalog_bytes_max),
            ("limits.import_bytes", self.import_bytes_max),
            ("plugins.file_bytes", self.plugin_file_bytes),
            ("plugins.large.file_bytes", large),
        ]
    }

    /// The largest body, in bytes, that an authenticated caller can send.
    pub fn longest_body(&self) -> u64 {
        self.bodies().into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0)
    }

    /// Checks that each allowed body fits into the bytes in flight.
    fn check_bodies(&self, faults: &mut Vec<String>) {
        let public = ("four times limits.public_body_bytes", self.public_body_bytes_max.saturating_mul(4));
        for (name, bytes) in self.bodies().into_iter().chain([public]) {
            if bytes > self.bytes_in_flight_max {
                faults.push(format!("limits.bytes_in_flight must not be less than {name}, which is {bytes}"));
            }
        }
    }
}
