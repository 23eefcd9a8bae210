//! Test vectors: inputs with the answers that the author of a plugin expects, in a file or in the component itself.
//!
//! A component contains them in a custom section, so that they are part of its digest and run wherever it is uploaded.
//! They are untrusted input like the rest of it: their number and size are limited.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::guest::plain;
use super::{
    AccessInput, Admitted, AuthorizeResult, CallContext, CallResult, Fault, FaultKind, Host, LogLine, RoleInput, Tier,
    UploadProgress, UploadStep,
};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::OrganizationId;

/// The name of the custom section with the vectors.
pub const SECTION: &str = "roster:vectors";
/// Most vectors of one component or file.
pub const VECTORS_MAX: usize = 100;
/// Most bytes of their text.
pub const VECTORS_BYTES_MAX: usize = 256 * 1_024;
const NAME_BYTES_MAX: usize = 200;
/// Most tries of a vector while the host is busy, which says nothing about the plugin.
const BUSY_TRIES_MAX: u32 = 20;

/// An input with the expected answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    pub name: String,
    pub ask: VectorInput,
    pub expect: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VectorInput {
    Authorize(AccessInput),
    MapRoles(RoleInput),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Allow,
    Abstain,
    /// With this reason, if one is given.
    Deny(Option<String>),
    /// In any order.
    Roles(Vec<String>),
    Fails(FaultKind),
}

impl Expected {
    /// Returns the form of `expect` in a vector.
    pub fn value(&self) -> Value {
        match self {
            Self::Allow => json!("allow"),
            Self::Abstain => json!("abstain"),
            Self::Deny(None) => json!("deny"),
            Self::Deny(Some(reason)) => json!({"deny": reason}),
            Self::Roles(roles) => json!({"roles": roles}),
            Self::Fails(kind) => json!({"fails": kind.as_str()}),
        }
    }

    fn of(value: &Value) -> Result<Self, String> {
        const FORMS: &str = "expect is allow, abstain, deny, {deny: text}, {roles: [..]} or {fails: kind}";
        let unknown = || FORMS.to_owned();
        if let Some(text) = value.as_str() {
            return match text {
                "allow" => Ok(Self::Allow),
                "abstain" => Ok(Self::Abstain),
                "deny" => Ok(Self::Deny(None)),
                _ => Err(unknown()),
            };
        }
        let mut entries = value.as_object().ok_or_else(unknown)?.iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else { return Err(unknown()) };
        match (key.as_str(), value) {
            ("deny", Value::String(reason)) => Ok(Self::Deny(Some(reason.clone()))),
            ("roles", Value::Array(roles)) => {
                let text = |role: &Value| role.as_str().map(str::to_owned);
                let roles = roles.iter().map(text).collect::<Option<Vec<_>>>();
                roles.map(Self::Roles).ok_or_else(|| "expect.roles must be a list of texts".to_owned())
            }
            ("fails", Value::String(name)) => {
                let of_guest = FaultKind::ALL.into_iter().filter(|kind| kind.is_guest_fault());
                of_guest.clone().find(|kind| kind.as_str() == name).map(Self::Fails).ok_or_else(|| {
                    let kinds: Vec<_> = of_guest.map(FaultKind::as_str).collect();
                    format!("expect.fails must be one of {}", kinds.join(", "))
                })
            }
            _ => Err(unknown()),
        }
    }

    fn matches(&self, got: &Self) -> bool {
        let sorted = |roles: &[String]| {
            let mut roles = roles.to_vec();
            roles.sort_unstable();
            roles
        };
        match (self, got) {
            (Self::Deny(None), Self::Deny(_)) => true,
            (Self::Roles(expected), Self::Roles(got)) => sorted(expected) == sorted(got),
            _ => self == got,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    authorize: Option<AccessInput>,
    map_roles: Option<RoleInput>,
    expect: Value,
}

fn refused(message: String) -> Error {
    Error::new(ErrorCode::PluginVectors).with_message(message)
}

/// Parses vectors from a local file of the author, a list in YAML or JSON. Must not be used for uploads, because a few
/// YAML aliases can expand to more than the memory.
pub fn parse(text: &[u8]) -> Result<Vec<Vector>> {
    read_all(listed(text)?)
}

fn listed(text: &[u8]) -> Result<Vec<Value>> {
    require_length(text)?;
    // JSON is valid YAML; a single parser gives one kind of position in error messages.
    serde_norway::from_slice(text).map_err(|e| refused(format!("the test vectors are not a list in YAML or JSON: {e}")))
}

fn require_length(text: &[u8]) -> Result<()> {
    if text.len() <= VECTORS_BYTES_MAX {
        return Ok(());
    }
    Err(refused(format!("the test vectors have {} bytes, and {VECTORS_BYTES_MAX} are allowed", text.len())))
}

fn read_all(written: Vec<Value>) -> Result<Vec<Vector>> {
    if written.len() > VECTORS_MAX {
        return Err(refused(format!("there are {} test vectors, and {VECTORS_MAX} are allowed", written.len())));
    }
    let one = |(n, value): (usize, Value)| {
        let label = match value["name"].as_str() {
            Some(name) => format!("test vector {} ({})", n + 1, plain(name, NAME_BYTES_MAX)),
            None => format!("test vector {}", n + 1),
        };
        read(value, n + 1).map_err(|reason| refused(format!("{label}: {reason}")))
    };
    written.into_iter().enumerate().map(one).collect()
}

fn read(value: Value, number: usize) -> Result<Vector, String> {
    let written: Written = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let expect = Expected::of(&written.expect)?;
    let ask = match (written.authorize, written.map_roles) {
        (Some(input), None) => VectorInput::Authorize(input),
        (None, Some(input)) => VectorInput::MapRoles(input),
        _ => return Err("it must have either `authorize` or `map_roles`".to_owned()),
    };
    match (&ask, &expect) {
        (VectorInput::Authorize(_), Expected::Roles(_)) => return Err("`authorize` does not return roles".to_owned()),
        (VectorInput::MapRoles(_), Expected::Allow | Expected::Abstain | Expected::Deny(_)) => {
            return Err("`map_roles` returns roles".to_owned());
        }
        _ => {}
    }
    let name = written.name.map_or_else(|| format!("#{number}"), |name| plain(&name, NAME_BYTES_MAX));
    Ok(Vector { name, ask, expect })
}

/// Parses the vectors in a component; empty if it has no such section.
pub fn of_component(component: &[u8]) -> Result<Vec<Vector>> {
    let mut found = sections(component).filter(|section| section.is_vectors(component));
    let (first, more) = (found.next(), found.next());
    if more.is_some() {
        return Err(refused(format!("the component has more than one section `{SECTION}`")));
    }
    let Some(section) = first else { return Ok(Vec::new()) };
    let text = &component[section.content];
    require_length(text)?;
    let written = serde_json::from_slice(text).map_err(|e| {
        refused(format!("the section `{SECTION}` is not a list in JSON: add it with `roster plugin pack`: {e}"))
    })?;
    read_all(written)
}

/// Returns the component with its vectors replaced by these.
pub fn replace_vectors(component: &[u8], text: &[u8]) -> Result<Vec<u8>> {
    let written = listed(text)?;
    let text = Value::from(written.clone()).to_string();
    require_length(text.as_bytes())?;
    read_all(written)?;
    let mut output = component.get(..HEADER_BYTES).ok_or(ErrorCode::NotAComponent)?.to_vec();
    let mut end = HEADER_BYTES;
    for section in sections(component) {
        end = section.whole.end;
        if !section.is_vectors(component) {
            output.extend_from_slice(&component[section.whole]);
        }
    }
    if end != component.len() {
        return Err(Error::new(ErrorCode::PluginMalformed).with_message("the component is truncated within a section"));
    }
    let mut content = leb(SECTION.len());
    content.extend_from_slice(SECTION.as_bytes());
    content.extend_from_slice(text.as_bytes());
    output.push(CUSTOM);
    output.extend(leb(content.len()));
    output.extend(content);
    Ok(output)
}

/// The length of the magic number and version.
const HEADER_BYTES: usize = 8;
/// The id of a custom section.
const CUSTOM: u8 = 0;

/// A top-level section of a component.
struct Section {
    whole: Range<usize>,
    /// The name of a custom section.
    name: Option<Range<usize>>,
    /// The bytes after its length, and after its name.
    content: Range<usize>,
}

impl Section {
    fn is_vectors(&self, component: &[u8]) -> bool {
        self.name.clone().is_some_and(|name| &component[name] == SECTION.as_bytes())
    }
}

/// The complete top-level sections.
fn sections(component: &[u8]) -> impl Iterator<Item = Section> {
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        let (id, begin) = (*component.get(at)?, at);
        let (bytes, content) = unleb(component, at + 1)?;
        let end = content.checked_add(bytes).filter(|end| *end <= component.len())?;
        at = end;
        let whole = begin..end;
        let named = || {
            let (bytes, name) = unleb(&component[..end], content)?;
            let name_end = name.checked_add(bytes).filter(|name_end| *name_end <= end)?;
            Some((name..name_end, name_end..end))
        };
        Some(match (id == CUSTOM).then(named).flatten() {
            Some((name, content)) => Section { whole, name: Some(name), content },
            None => Section { whole, name: None, content: content..end },
        })
    })
}

/// Encodes a length as unsigned LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Decodes a length in unsigned LEB128 at `at`. Returns it with the position after it.
fn unleb(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut number = 0u64;
    for (n, byte) in bytes.get(at..)?.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(number).ok()?, at + n + 1));
        }
    }
    None
}

/// The result of one vector.
#[derive(Debug, Clone)]
pub struct Report {
    pub name: String,
    pub passed: bool,
    pub expected: Expected,
    pub got: Expected,
    /// The fault, if the plugin returned no answer.
    pub fault: Option<Fault>,
    pub fuel: u64,
    pub duration: Duration,
    pub memory_bytes: u64,
    pub log: Vec<LogLine>,
    pub log_dropped: u32,
}

impl Report {
    fn of<T>(vector: &Vector, called: CallResult<T>, answered: impl FnOnce(T) -> Expected) -> Self {
        let (got, fault) = match called.outcome {
            Ok(answer) => (answered(answer), None),
            Err(fault) => (Expected::Fails(fault.kind), Some(fault)),
        };
        Self {
            name: vector.name.clone(),
            passed: vector.expect.matches(&got),
            expected: vector.expect.clone(),
            got,
            fault,
            fuel: called.fuel,
            duration: called.duration,
            memory_bytes: called.memory_bytes,
            log: called.log,
            log_dropped: called.log_dropped,
        }
    }

    /// Returns the report as JSON, for responses and for the command line.
    pub fn value(&self) -> Value {
        let log = self.log.iter().map(|line| json!({"level": line.level.as_str(), "message": line.message}));
        json!({
            "name": self.name,
            "passed": self.passed,
            "expected": self.expected.value(),
            "got": self.got.value(),
            "fault": self.fault.as_ref().map(|fault| json!({"kind": fault.kind.as_str(), "message": fault.message})),
            "fuel": self.fuel,
            "duration_us": u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            "memory_bytes": self.memory_bytes,
            "log": log.collect::<Vec<_>>(),
            "log_dropped": self.log_dropped,
        })
    }
}

impl Host {
    /// Validates an upload: does all checks of [`Host::admit`], and runs the vectors in the component. A vector that
    /// does not pass is not an error; the reports show it. Reports its steps.
    pub async fn admit_and_test(
        &self,
        organization: OrganizationId,
        component: &[u8],
        tier: Tier,
        progress: &Arc<dyn UploadProgress>,
    ) -> Result<(Admitted, Vec<Report>)> {
        let vectors = of_component(component).inspect_err(|_| progress.step(UploadStep::Vectors))?;
        let admitted = self.admit_watched(organization, component, tier, progress).await?;
        progress.step(UploadStep::Vectors);
        progress.of(vectors.len() as u64);
        let context =
            CallContext { organization, loaded: admitted.loaded.clone(), tier, deadline_ms: None, is_trial: true };
        let reports = self.test_watched(&context, &vectors, &**progress).await;
        Ok((admitted, reports))
    }

    /// Runs all vectors.
    pub async fn test(&self, context: &CallContext, vectors: &[Vector]) -> Vec<Report> {
        self.test_watched(context, vectors, &()).await
    }

    async fn test_watched(
        &self,
        context: &CallContext,
        vectors: &[Vector],
        progress: &dyn UploadProgress,
    ) -> Vec<Report> {
        let mut reports = Vec::with_capacity(vectors.len());
        for vector in vectors {
            let mut tries = 0;
            let report = loop {
                let report = self.test_one(context, vector).await;
                tries += 1;
                if report.got != Expected::Fails(FaultKind::Busy) || tries >= BUSY_TRIES_MAX {
                    break report;
                }
            };
            reports.push(report);
            progress.advance(1);
        }
        reports
    }

    async fn test_one(&self, context: &CallContext, vector: &Vector) -> Report {
        match &vector.ask {
            VectorInput::Authorize(input) => {
                let called = self.authorize(context.clone(), input.clone()).await;
                Report::of(vector, called, |ruling| match ruling {
                    AuthorizeResult::Allow => Expected::Allow,
                    AuthorizeResult::Abstain => Expected::Abstain,
                    AuthorizeResult::Deny(reason) => Expected::Deny(Some(reason)),
                })
            }
            VectorInput::MapRoles(input) => {
                let called = self.map_roles(context.clone(), input.clone()).await;
                Report::of(vector, called, Expected::Roles)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of(text: &str) -> String {
        parse(text.as_bytes()).expect_err("refused").message().to_owned()
    }

    #[test]
    fn vectors_are_a_list_in_yaml_or_json() {
        let yaml = "
- name: owner may edit
  authorize:
    action: PUT
    path: /videos/7
    context: {owner: kim, groups: [a, b], hour: 9}
  expect: allow
- authorize: {action: GET}
  expect: {deny: closed}
- map_roles: {source: ldap, groups: [g]}
  expect: {roles: [editor]}
- map_roles: {source: ldap}
  expect: {fails: fuel}
";
        let vectors = parse(yaml.as_bytes()).expect("yaml");
        assert_eq!(vectors[0].name, "owner may edit");
        assert_eq!(vectors[1].name, "#2");
        let VectorInput::Authorize(input) = &vectors[0].ask else { panic!("not for an authorizer") };
        assert!(input.context.iter().any(|claim| claim.name == "hour" && claim.values == ["9"]));
        assert_eq!(vectors[1].expect, Expected::Deny(Some("closed".into())));
        assert_eq!(vectors[2].expect, Expected::Roles(vec!["editor".into()]));
        assert_eq!(vectors[3].expect, Expected::Fails(FaultKind::Fuel));
        let json = r#"[{"name": "x", "authorize": {"action": "GET"}, "expect": "deny"}]"#;
        assert_eq!(parse(json.as_bytes()).expect("json")[0].expect, Expected::Deny(None));
    }

    #[test]
    fn errors_name_their_vector() {
        assert!(message_of("hello").starts_with("the test vectors are not a list in YAML or JSON"));
        let of = |vector: &str| message_of(&format!("[{{authorize: {{action: A}}, expect: allow}}, {vector}]"));
        assert!(
            of("{name: kim, authorize: {action: A, acton: B}, expect: allow}").starts_with("test vector 2 (kim): ")
        );
        assert!(of("{authorize: {action: A}}").contains("missing field `expect`"));
        assert_eq!(of("{expect: allow}"), "test vector 2: it must have either `authorize` or `map_roles`");
        assert!(of("{authorize: {action: A}, expect: perhaps}").starts_with("test vector 2: expect is allow, abstain"));
        assert!(
            of("{authorize: {action: A}, expect: {fails: busy}}").contains("expect.fails must be one of trap, fuel")
        );
        assert_eq!(
            of("{authorize: {action: A}, expect: {roles: [a]}}"),
            "test vector 2: `authorize` does not return roles"
        );
        assert_eq!(of("{map_roles: {source: a}, expect: allow}"), "test vector 2: `map_roles` returns roles");
        assert!(of("{authorize: {action: A, context: 7}, expect: allow}").contains("an object of claims"));
    }

    #[test]
    fn the_number_and_size_of_vectors_are_limited() {
        let one = "- {authorize: {action: A}, expect: allow}\n";
        assert_eq!(parse(one.repeat(VECTORS_MAX).as_bytes()).expect("at the limit").len(), VECTORS_MAX);
        assert_eq!(message_of(&one.repeat(VECTORS_MAX + 1)), "there are 101 test vectors, and 100 are allowed");
        let long = |bytes: usize| format!("{one}#{}", "x".repeat(bytes - one.len() - 1));
        assert_eq!(parse(long(VECTORS_BYTES_MAX).as_bytes()).expect("at the limit").len(), 1);
        assert_eq!(
            message_of(&long(VECTORS_BYTES_MAX + 1)),
            "the test vectors have 262145 bytes, and 262144 are allowed"
        );
    }

    #[test]
    fn a_component_has_one_section_of_vectors() {
        let bare = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
        assert_eq!(of_component(&bare).expect("none"), []);
        let text = |n: usize| "- {authorize: {action: A}, expect: allow}\n".repeat(n);
        let one = replace_vectors(&bare, text(1).as_bytes()).expect("put");
        assert_eq!(of_component(&one).expect("one").len(), 1);
        let three = replace_vectors(&one, text(3).as_bytes()).expect("put in place of the first");
        assert_eq!(of_component(&three).expect("three").len(), 3);
        // Uploads are never parsed as YAML, because a few aliases can expand to more than the memory.
        let written = json!([{"authorize": {"action": "A"}, "expect": "allow"}]).to_string();
        assert!(one.ends_with(written.as_bytes()));
        let bomb = [&[CUSTOM], &leb(15 + 12)[..], &leb(14), SECTION.as_bytes(), b"[&a [], *a] "].concat();
        let refused = of_component(&[&bare[..], &bomb].concat()).expect_err("YAML");
        assert!(refused.message().contains("not a list in JSON"), "{}", refused.message());
        let twice = [&one[..], &one[8..]].concat();
        assert!(of_component(&twice).expect_err("two sections").message().contains("more than one section"));
        assert!(replace_vectors(&one[..one.len() - 1], text(1).as_bytes()).is_err());
        assert!(replace_vectors(&bare, b"- nonsense").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = of_component(&bytes);
            let _ = replace_vectors(&bytes, b"[]");
            let _ = parse(&bytes);
        }
    }
}
