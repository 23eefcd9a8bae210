//! The settings in force: what each is, what it may be, and where its value comes from. `roster config show`, the
//! operation `list_settings`, the template of `roster.toml` and the manual are made from it.

use std::path::Path;

use super::Config;
use super::kinds::ValueType;

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Default,
    /// `roster.toml`, or the file that the command line names.
    File,
    Environment,
    CommandLine,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Kibibytes,
    BytesPerSecond,
    Seconds,
    Milliseconds,
    Microseconds,
}

/// One row of the settings table, with its value.
#[derive(Debug, Clone)]
pub struct SettingInfo {
    pub name: &'static str,
    /// The type for people.
    pub kind: &'static str,
    pub value_type: ValueType,
    /// The words of a choice.
    pub choices: &'static [&'static str],
    /// As in `roster.toml`.
    pub value: String,
    /// As in `roster.toml`.
    pub default: String,
    pub source: Source,
    /// The least and the greatest number.
    pub range: Option<(u64, u64)>,
    pub about: &'static str,
}

/// The setting that SIGHUP changes without a restart.
pub const LOG_LEVEL: &str = "log.level";

impl SettingInfo {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// Whether a change needs a restart. The content of a certificate is read again without one.
    pub fn needs_restart(&self) -> bool {
        self.name != LOG_LEVEL
    }

    /// What the number counts, which the end of the name tells.
    pub fn unit(&self) -> Option<Unit> {
        /// Counts of bytes whose names end in something else.
        const OF_BYTES: [&str; 4] = [
            "limits.bytes_in_flight",
            "limits.answers_in_flight",
            "plugins.loaded_bytes_per_organization",
            "plugins.cache_bytes_per_organization",
        ];
        const ENDS: [(&str, Unit); 6] = [
            ("_bytes_s", Unit::BytesPerSecond),
            ("bytes", Unit::Bytes),
            ("_kib", Unit::Kibibytes),
            ("_s", Unit::Seconds),
            ("_ms", Unit::Milliseconds),
            ("_us", Unit::Microseconds),
        ];
        if self.value_type != ValueType::Number {
            return None;
        }
        if OF_BYTES.contains(&self.name) {
            return Some(Unit::Bytes);
        }
        ENDS.iter().find(|(end, _)| self.name.ends_with(end)).map(|(_, unit)| *unit)
    }
}

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("ROSTER_{}", name.replace('.', "_").to_uppercase())
}

impl Config {
    /// The settings table, as in the manual.
    pub fn described() -> Vec<SettingInfo> {
        Self::of(Path::new("")).in_force()
    }

    /// Every setting with its value as TOML.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        self.in_force().into_iter().map(|setting| (setting.name, setting.value)).collect()
    }

    /// Whether the secret is known whose file the setting names; `None` for a setting that names no such file.
    pub fn is_secret_set(&self, name: &str) -> Option<bool> {
        let secret = match name {
            "internal_secret_file" => return Some(!self.internal_secrets.is_empty()),
            // Created with the site.
            "encryption_key_file" => return Some(true),
            "tls.key_file" => return Some(!self.tls_key_file.as_os_str().is_empty()),
            "metrics_token_file" => &self.metrics_token,
            "wordpress.ticket_secret_file" => &self.wordpress_ticket_secret,
            "wordpress.password_file" => &self.wordpress_password,
            "authentik.token_file" => &self.authentik_token,
            "mail.password_file" => &self.mail_password,
            "hooks.sftpgo_key_file" => &self.hook_sftpgo_key,
            "hooks.wordpress_key_file" => &self.hook_wordpress_key,
            "sftpgo.secret_file" => &self.sftpgo_secret,
            _ => return None,
        };
        Some(secret.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn units_are_those_that_the_meanings_name() {
        for setting in Config::described() {
            let unit = setting.unit();
            for (words, meant) in [
                (" in seconds", Unit::Seconds),
                (" in milliseconds", Unit::Milliseconds),
                (" in microseconds", Unit::Microseconds),
                (" in bytes per second", Unit::BytesPerSecond),
                (" in KiB", Unit::Kibibytes),
            ] {
                assert!(!setting.about.contains(words) || unit == Some(meant), "{}: {unit:?}", setting.name);
            }
            let counts_bytes = setting.about.starts_with("Most bytes") || setting.about.ends_with(" in bytes");
            assert!(!counts_bytes || unit == Some(Unit::Bytes), "{}: {unit:?}", setting.name);
            assert_eq!(setting.value_type == ValueType::Number, setting.range.is_some(), "{}", setting.name);
        }
    }

    #[test]
    fn every_file_is_known_as_secret_or_public() {
        const PUBLIC: [&str; 4] = ["tls.cert_file", "signin.logo_file", "mail.ca_file", "media_root"];
        let config = Config::of(Path::new("data"));
        let names: HashSet<&str> = Config::described()
            .iter()
            .filter(|setting| setting.value_type == ValueType::Path && config.is_secret_set(setting.name).is_none())
            .map(|setting| setting.name)
            .collect();
        assert_eq!(names, HashSet::from(PUBLIC));
    }

    #[test]
    fn a_setting_tells_where_it_comes_from() {
        let mut config = Config::of(Path::new("data"));
        let mut faults = Vec::new();
        let table = "mail.port = 587\nlog.level = \"warn\"".parse::<toml::Table>().expect("the test's own TOML");
        config.set_all(&table, &mut faults);
        let environment = [("ROSTER_LOG_LEVEL".to_owned(), "debug".to_owned())].into();
        config.set_from_environment(&environment, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let of = |name: &str| {
            let all = config.in_force();
            let setting = all.into_iter().find(|setting| setting.name == name).expect("the setting");
            (setting.value, setting.source)
        };
        assert_eq!(of("mail.port"), ("587".into(), Source::File));
        assert_eq!(of("log.level"), ("\"debug\"".into(), Source::Environment));
        assert_eq!(of("debug"), ("false".into(), Source::Default));
    }
}
