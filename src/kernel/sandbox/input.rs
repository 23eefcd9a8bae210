//! Inputs and results of guests, as in `plugins/wit`. Their JSON form is used in dry-run inputs, test vectors and rows
//! of the decision log.

use serde::{Deserialize, Serialize};
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::kernel::authz::plugin::{LogLevel, PluginOutcome};

/// A named claim with its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lower)]
#[component(record)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    pub name: String,
    pub values: Vec<String>,
}

/// The input of an authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lower)]
#[component(record)]
#[serde(deny_unknown_fields)]
pub struct AccessInput {
    #[serde(default)]
    pub tenant: String,
    #[serde(default)]
    pub subject: String,
    #[serde(default)]
    pub roles: Vec<String>,
    pub action: String,
    #[serde(default)]
    pub path: String,
    #[serde(default, with = "claims")]
    pub context: Vec<Claim>,
}

/// The input of a role mapper: a subject whose roles are mapped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lower)]
#[component(record)]
#[serde(deny_unknown_fields)]
pub struct RoleInput {
    #[serde(default)]
    pub tenant: String,
    pub source: String,
    #[serde(default)]
    pub subject: String,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default, with = "claims")]
    pub claims: Vec<Claim>,
    #[component(name = "raw-json")]
    #[serde(default)]
    pub raw_json: Option<String>,
}

/// A claim with one value.
fn claim(name: &str, value: &str) -> Claim {
    Claim { name: name.into(), values: vec![value.into()] }
}

impl AccessInput {
    /// A meaningless input of typical size, for measurements.
    pub fn typical() -> Self {
        Self {
            tenant: "00000000-0000-7000-8000-000000000001".into(),
            subject: "00000000-0000-7000-8000-000000000002".into(),
            roles: ["viewer", "editor"].map(str::to_owned).into(),
            action: "GET".into(),
            path: "/videos/00000000-0000-7000-8000-000000000003".into(),
            context: [
                ("question", "route"),
                ("base", "allow"),
                ("app", "gitea"),
                ("permission", "video.read"),
                ("org_code", "acme"),
                ("scope_type", "tenant"),
                ("now_ms", "1767225600000"),
            ]
            .map(|(name, value)| claim(name, value))
            .into(),
        }
    }
}

impl RoleInput {
    /// A meaningless input of typical size, as for a user of a directory, for measurements.
    pub fn typical() -> Self {
        Self {
            tenant: "00000000-0000-7000-8000-000000000001".into(),
            source: "oidc".into(),
            subject: "00000000-0000-7000-8000-000000000002".into(),
            groups: (1..=16).map(|n| format!("example:department-{n:02}:members")).collect(),
            claims: [
                ("department", "department-07"),
                ("email_verified", "true"),
                ("locale", "en"),
                ("org_code", "acme"),
                ("now_ms", "1767225600000"),
            ]
            .map(|(name, value)| claim(name, value))
            .into_iter()
            .chain([Claim { name: "roster.roles".into(), values: Vec::new() }])
            .collect(),
            raw_json: None,
        }
    }
}

/// The result of an authorizer.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub enum AuthorizeResult {
    #[component(name = "allow")]
    Allow,
    #[component(name = "deny")]
    Deny(String),
    #[component(name = "abstain")]
    Abstain,
}

impl AuthorizeResult {
    pub fn as_str(&self) -> &'static str {
        PluginOutcome::from(self).as_str()
    }
}

impl From<&AuthorizeResult> for PluginOutcome {
    fn from(result: &AuthorizeResult) -> Self {
        match result {
            AuthorizeResult::Allow => Self::Allow,
            AuthorizeResult::Deny(_) => Self::Deny,
            AuthorizeResult::Abstain => Self::Abstain,
        }
    }
}

/// An error that a guest returns.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub struct RuleError {
    pub code: String,
    pub message: String,
}

/// The level of a log line as guests send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

/// A line that a guest logged, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    pub level: LogLevel,
    pub message: String,
}

fn bytes_of<'t>(texts: impl IntoIterator<Item = &'t String>) -> usize {
    texts.into_iter().map(String::len).sum()
}

fn claim_bytes(claims: &[Claim]) -> usize {
    claims.iter().map(Claim::bytes).sum()
}

/// The bytes of a text in a guest's memory besides its content: pointer and length.
const TEXT_BYTES: usize = 8;

impl Claim {
    /// The size of its texts, or of their pointers and lengths if these take more.
    pub fn bytes(&self) -> usize {
        (self.name.len() + bytes_of(&self.values)).max(TEXT_BYTES * (1 + self.values.len()))
    }
}

impl AccessInput {
    pub fn bytes(&self) -> usize {
        bytes_of([&self.tenant, &self.subject, &self.action, &self.path])
            + bytes_of(&self.roles).max(TEXT_BYTES * self.roles.len())
            + claim_bytes(&self.context)
    }
}

impl RoleInput {
    pub fn bytes(&self) -> usize {
        bytes_of([&self.tenant, &self.source, &self.subject])
            + bytes_of(&self.groups).max(TEXT_BYTES * self.groups.len())
            + claim_bytes(&self.claims)
            + self.raw_json.as_ref().map_or(0, String::len)
    }
}

/// Converts JSON to the values of a claim: text unchanged, numbers and booleans as text, a list to several values, null
/// to none, and nested values to their JSON.
pub fn values_of(value: &serde_json::Value) -> Vec<String> {
    use serde_json::Value;
    let one = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().map(one).collect(),
        single => vec![one(single)],
    }
}

/// Claims in JSON: an object, `{"owner": "kim", "groups": ["a", "b"]}`, or a list of `{name, values}`.
mod claims {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use super::{Claim, values_of};

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "claims must be an object of claims, or a list of {name, values}")]
    enum Form {
        List(Vec<Claim>),
        Object(BTreeMap<String, Value>),
    }

    pub fn serialize<S: Serializer>(claims: &[Claim], serializer: S) -> Result<S::Ok, S::Error> {
        claims.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Claim>, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::List(claims) => claims,
            Form::Object(claims) => {
                claims.into_iter().map(|(name, value)| Claim { name, values: values_of(&value) }).collect()
            }
        })
    }
}
