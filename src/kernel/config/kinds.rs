//! Types of settings: how a value is parsed and displayed, and its bounds.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use toml::Value;

use super::{Language, LogFormat, MailSecurity, TlsMode};
use crate::kernel::nearest::did_you_mean;

/// The type of a value, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    Number,
    Boolean,
    Text,
    Path,
    /// An IP address and a port.
    Address,
    /// One of several words.
    Choice,
    TextList,
    /// A list of addresses and CIDR ranges.
    NetworkList,
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Its name for people.
    const KIND: &'static str;
    const TYPE: ValueType;
    /// The words of a choice.
    const CHOICES: &'static [&'static str] = &[];
    fn read(value: &Value) -> Result<Self, String>;
    fn show(&self) -> String;
    /// Converts the text of an environment variable to the TOML value that [`Setting::read`] takes.
    fn of_text(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl Setting for u64 {
    const KIND: &'static str = "number";
    const TYPE: ValueType = ValueType::Number;
    fn read(value: &Value) -> Result<Self, String> {
        value.as_integer().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| "must be a whole number, 0 or more".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn of_text(text: &str) -> Value {
        text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
    }
}

impl Setting for bool {
    const KIND: &'static str = "true or false";
    const TYPE: ValueType = ValueType::Boolean;
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "must be true or false".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn of_text(text: &str) -> Value {
        match text {
            "true" | "1" => Value::Boolean(true),
            "false" | "0" => Value::Boolean(false),
            other => Value::String(other.to_owned()),
        }
    }
}

impl Setting for String {
    const KIND: &'static str = "text";
    const TYPE: ValueType = ValueType::Text;
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| "must be text".into())
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";
    const TYPE: ValueType = ValueType::Path;
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(PathBuf::from).ok_or_else(|| "must be a path".into())
    }
    fn show(&self) -> String {
        format!("{:?}", self.display().to_string())
    }
}

impl Setting for SocketAddr {
    const KIND: &'static str = "address:port";
    const TYPE: ValueType = ValueType::Address;
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| "must be like 127.0.0.1:8480".into())
    }
    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

macro_rules! word_settings {
    ($($name:ident: $first:ident $first_word:literal
        $(, $middle:ident $middle_word:literal)*
        or $last:ident $last_word:literal;)*) => {$(
        impl $name {
            fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$middle => $middle_word,)*
                    Self::$last => $last_word,
                }
            }
        }

        impl Setting for $name {
            const KIND: &'static str = concat!($first_word, $(", ", $middle_word,)* " or ", $last_word);
            const TYPE: ValueType = ValueType::Choice;
            const CHOICES: &'static [&'static str] = &[$first_word, $($middle_word,)* $last_word];
            fn read(value: &Value) -> Result<Self, String> {
                let word = value.as_str();
                let mut all = [Self::$first, $(Self::$middle,)* Self::$last].into_iter();
                all.find(|one| word == Some(one.as_str())).ok_or_else(|| {
                    concat!("must be \"", $first_word, $("\", \"", $middle_word,)* "\" or \"", $last_word, "\"").into()
                })
            }
            fn show(&self) -> String {
                format!("\"{}\"", self.as_str())
            }
        }
    )*};
}

word_settings! {
    LogFormat: Text "text" or Json "json";
    MailSecurity: StartTls "starttls", Tls "tls" or None "none";
    TlsMode: Off "off", Files "files" or Local "local";
    Language: English "en" or Chinese "zh-TW";
}

impl Setting for Vec<String> {
    const KIND: &'static str = "list of text";
    const TYPE: ValueType = ValueType::TextList;
    fn read(value: &Value) -> Result<Self, String> {
        let wrong = || "must be a list of text".to_owned();
        value.as_array().ok_or_else(wrong)?.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
    fn of_text(text: &str) -> Value {
        Value::Array(
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| Value::String(s.into())).collect(),
        )
    }
}

impl Setting for Vec<IpNet> {
    const KIND: &'static str = "list of addresses or CIDR ranges";
    const TYPE: ValueType = ValueType::NetworkList;
    fn read(value: &Value) -> Result<Self, String> {
        Vec::<String>::read(value)?
            .iter()
            .map(|text| network(text).ok_or_else(|| format!("{text:?} is not an address or a CIDR range")))
            .collect()
    }
    fn show(&self) -> String {
        format!("{:?}", self.iter().map(ToString::to_string).collect::<Vec<_>>())
    }
    fn of_text(text: &str) -> Value {
        Vec::<String>::of_text(text)
    }
}

/// Parses a CIDR range; a single address becomes a range that holds only itself.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

/// The bounds of a setting; `()` for one that has none.
pub trait Bounds<T> {
    /// Returns the value in the form that is stored, or why it is refused.
    fn check(&self, value: T) -> Result<T, String>;
    /// The least and the greatest number.
    fn range(&self) -> Option<(u64, u64)> {
        None
    }
}
impl<T> Bounds<T> for () {
    fn check(&self, value: T) -> Result<T, String> {
        Ok(value)
    }
}
impl Bounds<u64> for std::ops::RangeInclusive<u64> {
    fn check(&self, value: u64) -> Result<u64, String> {
        if self.contains(&value) {
            return Ok(value);
        }
        Err(format!("must be from {} to {}", self.start(), self.end()))
    }

    fn range(&self) -> Option<(u64, u64)> {
        Some((*self.start(), *self.end()))
    }
}
pub fn within<T>(value: T, bounds: impl Bounds<T>) -> Result<T, String> {
    bounds.check(value)
}

/// Bounds of the log filter: levels for everything or (`roster=debug`) for one target. They are checked here because
/// `EnvFilter` takes an unknown level for the name of a target, and then logs nothing else.
pub(super) struct Levels;

impl Bounds<String> for Levels {
    fn check(&self, value: String) -> Result<String, String> {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let parts: Vec<&str> = value.split(',').map(str::trim).collect();
        for part in &parts {
            let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
            if !LEVELS.contains(&level.to_lowercase().as_str()) {
                let meant = did_you_mean(level, LEVELS);
                return Err(format!(
                    "has {level:?}, which is not a level{meant}: use one of {}, or name a target as in `info,roster=debug`",
                    LEVELS.join(", ")
                ));
            }
        }
        let value = parts.join(",");
        match tracing_subscriber::EnvFilter::try_new(&value) {
            Ok(_) => Ok(value),
            Err(e) => Err(format!("cannot be parsed: {e}")),
        }
    }
}

/// Bounds of the site's URL: http or https, a host, and an optional path that other paths are appended to. Empty if
/// there is none.
pub(super) struct PublicUrl;

impl Bounds<String> for PublicUrl {
    fn check(&self, value: String) -> Result<String, String> {
        if value.is_empty() {
            return Ok(value);
        }
        let below = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
        let Some(below) = below else {
            return Err(format!("must begin with https:// or http://, as in https://{}", value.trim_matches('/')));
        };
        if value.ends_with('/') {
            return Err("must not end with a slash".into());
        }
        let is_address = reqwest::Url::parse(&value).is_ok_and(|url| url.query().is_none() && url.fragment().is_none());
        if below.contains(char::is_whitespace) || !is_address {
            return Err("must be an address such as https://roster.example.org".into());
        }
        Ok(value)
    }
}

/// Bounds of a path that other paths are appended to: empty or `/` for none, otherwise segments that the router takes
/// literally.
pub struct Prefix;

impl Bounds<String> for Prefix {
    fn check(&self, path: String) -> Result<String, String> {
        let Some(below) = path.strip_prefix('/') else {
            return if path.is_empty() { Ok(path) } else { Err("must begin with a slash, as in /api/v1".into()) };
        };
        if below.is_empty() {
            return Ok(String::new());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if let Some(odd) = below.chars().find(|c| *c != '/' && !is_plain(*c)) {
            return Err(format!("contains {odd:?}: its segments can contain only letters, digits, - . _ and ~"));
        }
        if below.ends_with('/') {
            return Err("must not end with a slash".into());
        }
        if below.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err("must not contain an empty segment, . or ..".into());
        }
        match below.split('/').next().filter(|top| RESERVED.contains(top)) {
            Some(top) => Err(format!("must not begin with /{top}: this path is reserved")),
            None => Ok(path),
        }
    }
}

/// First segments of the paths outside the base path: operations that are also served at the root, pages, and
/// well-known paths of standards.
const RESERVED: [&str; 20] = [
    "auth",
    "me",
    "admin",
    "internal",
    "setup",
    "reset",
    "invitation",
    "healthz",
    "readyz",
    "metrics",
    ".well-known",
    "console",
    "manual",
    "status",
    "authz",
    "access",
    "t",
    "scim",
    "oauth",
    "mcp",
];
