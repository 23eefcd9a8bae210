//! Calls an organization's role mapper plugins to find the roles of a member that signs in or is synced from outside.
//!
//! **Invariant.** No plugin runs inside a transaction. The result is applied only if the enforced mappers and the roles
//! from the mapping table are still those it was computed from ([`MapperResult::holds`]); otherwise the mappers are
//! called again.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Source, sync};
use crate::kernel::app::App;
use crate::kernel::authz::plugin::{Binding, Mode};
use crate::kernel::authz::snapshot::{Role, Snapshot, Tenant};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::sandbox::input::{Claim, RoleInput, values_of};
use crate::kernel::sandbox::{Fault, FaultKind};
use crate::kernel::secret::Hash;

/// The most attempts when plugins or mappings change while the mappers run.
pub const TRIES: usize = 4;

/// Claims that the host sets. Claims of a source with these names are dropped.
const ROLES: &str = "roster.roles";
const ORG_CODE: &str = "org_code";
const NOW_MS: &str = "now_ms";

/// The external keys and claims of a member from one source.
#[derive(Debug, Clone, Copy)]
pub struct SourceClaims<'a> {
    pub source: Source,
    /// External keys: the groups and roles at the source.
    pub keys: &'a BTreeSet<String>,
    pub facts: &'a SourceFacts,
}

/// What a source says besides the external keys. Only mappers see it.
#[derive(Debug, Clone, Default)]
pub struct SourceFacts {
    claims: Vec<Claim>,
    raw_json: Option<String>,
    /// A document of the source could not be read, so a missing claim may exist.
    has_gaps: bool,
}

impl SourceFacts {
    /// Creates facts from claim names and values.
    pub fn of(claims: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let is_hosts = |name: &str| [ROLES, ORG_CODE, NOW_MS].contains(&name);
        let claims = claims.into_iter().filter(|(name, _)| !is_hosts(name));
        Self { claims: claims.map(|(name, values)| Claim { name, values }).collect(), ..Self::default() }
    }

    /// Creates facts from a JSON document, which is passed to the mappers unchanged as well.
    pub fn of_json(document: &serde_json::Map<String, Value>) -> Self {
        let claims = document.iter().map(|(name, value)| (name.clone(), values_of(value)));
        Self { raw_json: serde_json::to_string(document).ok(), ..Self::of(claims) }
    }

    #[must_use]
    pub fn with_gaps(mut self, has_gaps: bool) -> Self {
        self.has_gaps = has_gaps;
        self
    }
}

/// The call of an enforced mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapperCall {
    pub name: Arc<str>,
    pub version: u32,
    pub sha256: Hash,
    pub fuel: u64,
    pub fault: Option<Fault>,
}

impl MapperCall {
    /// Returns the call as a value for the audit log.
    pub fn record(&self) -> Value {
        let Self { name, version, sha256, fuel, fault: _ } = self;
        json!({"name": **name, "version": version, "sha256": hex::encode(sha256), "fuel": fuel})
    }
}

/// The result of the enforced mappers, and what it was computed from. Without enforced mappers the roles of the mapping
/// table apply.
#[derive(Debug)]
pub struct MapperResult {
    pub organization: OrganizationId,
    pub source: Source,
    enforced: Vec<Binding>,
    table: Vec<String>,
    pub asked: Vec<MapperCall>,
    /// Role keys that the last mapper returned; `None` if a mapper failed.
    pub role_keys: Option<Vec<String>>,
}

impl MapperResult {
    pub fn is_by_plugin(&self) -> bool {
        !self.enforced.is_empty()
    }

    /// Whether the enforced mappers and the mapped roles are still the same. Checked in the transaction that applies
    /// the result.
    pub fn holds(&self, snapshot: &Snapshot, table: &[String]) -> bool {
        let tenant = snapshot.tenant(self.organization);
        let mut now = tenant.into_iter().flat_map(mappers).filter(|binding| binding.mode == Mode::Enforce);
        let are_same = self.enforced.iter().all(|then| now.next().is_some_and(|now| now.is_same_run(then)));
        are_same && now.next().is_none() && (self.enforced.is_empty() || self.table == table)
    }
}

/// The error when plugins or mappings changed during every attempt.
pub fn mappers_changed() -> Error {
    let message = "the organization's plugins or mappings changed during the request: try again";
    Error::new(ErrorCode::Busy).with_message(message).retry_after(1)
}

fn mappers(tenant: &Tenant) -> impl Iterator<Item = &Binding> {
    tenant.plugins().iter().filter(|binding| binding.exports.role_mapper)
}

/// Returns the role with this key if a mapper may assign it: a role of this organization that is open and not
/// protected.
pub fn assignable<'t>(tenant: &'t Tenant, key: &str) -> Option<&'t Role> {
    tenant.roles().find(|role| &*role.key == key).filter(|role| role.is_open && !role.is_protected())
}

/// Calls the mappers of an organization, including shadow versions. Returns at once if it has none.
pub async fn call_mappers(
    app: &Arc<App>,
    (organization, member): (OrganizationId, MemberId),
    source_claims: SourceClaims<'_>,
) -> Result<MapperResult> {
    let snapshot = app.snapshot();
    let mut mapped = MapperResult {
        organization,
        source: source_claims.source,
        enforced: Vec::new(),
        table: Vec::new(),
        asked: Vec::new(),
        role_keys: None,
    };
    let Some(tenant) = snapshot.tenant(organization) else { return Ok(mapped) };
    let all: Vec<&Binding> = mappers(tenant).collect();
    if all.is_empty() {
        return Ok(mapped);
    }
    let (source, keys) = (source_claims.source, source_claims.keys.clone());
    let table = app.read(move |r| sync::table(r, organization, source, &keys)).await?;
    mapped.table = table.keys();
    mapped.enforced = all.iter().filter(|binding| binding.mode == Mode::Enforce).map(|b| (*b).clone()).collect();
    let mut input = input_of(tenant, member, source_claims);
    if input.bytes() as u64 > app.config.plugin_input_bytes {
        // The claims contain the same data.
        input.raw_json = None;
    }
    let chain = Chain { app, tenant, all, input, block: block(tenant, source_claims) };
    chain.walk(&mut mapped).await;
    Ok(mapped)
}

fn input_of(tenant: &Tenant, member: MemberId, source_claims: SourceClaims<'_>) -> RoleInput {
    let own = |name: &str, value: String| Claim { name: name.into(), values: vec![value] };
    let mut claims = vec![
        Claim { name: ROLES.into(), values: Vec::new() },
        own(ORG_CODE, tenant.org_code.to_string()),
        own(NOW_MS, Timestamp::now().0.to_string()),
    ];
    claims.extend(source_claims.facts.claims.iter().cloned());
    RoleInput {
        tenant: tenant.id.to_string(),
        source: source_claims.source.as_str().into(),
        subject: member.to_string(),
        groups: source_claims.keys.iter().cloned().collect(),
        claims,
        raw_json: source_claims.facts.raw_json.clone(),
    }
}

/// Returns why no mapper is called, which counts as a failure: the organization is not active, or the claims are
/// incomplete.
fn block(tenant: &Tenant, source_claims: SourceClaims<'_>) -> Option<Fault> {
    if !tenant.is_active {
        return Some(Fault { kind: FaultKind::Unavailable, message: "the organization is not active".into() });
    }
    let message = "a document of the source could not be read, so its claims are incomplete";
    source_claims.facts.has_gaps.then(|| Fault { kind: FaultKind::Input, message: message.into() })
}

/// The mappers of an organization, in the order of their calls.
struct Chain<'a> {
    app: &'a Arc<App>,
    tenant: &'a Tenant,
    all: Vec<&'a Binding>,
    input: RoleInput,
    block: Option<Fault>,
}

impl Chain<'_> {
    /// Calls the mappers in order. The first gets the roles of the mapping table, each later one the result of the one
    /// before it. A shadow mapper gets the input that it would get if enforced, and its result is not used.
    async fn walk(&self, mapped: &mut MapperResult) {
        let mut roles = mapped.table.clone();
        for binding in &self.all {
            if binding.mode == Mode::Shadow {
                if !mapped.enforced.iter().any(|other| other.plugin == binding.plugin) {
                    self.call_shadow(binding, &roles, Some(&roles)).await;
                }
                continue;
            }
            let (call, answer) = self.call(binding, &roles).await;
            mapped.asked.push(call);
            // A shadow version of the same plugin gets the same input.
            for next in self.all.iter().filter(|other| other.mode == Mode::Shadow && other.plugin == binding.plugin) {
                self.call_shadow(next, &roles, answer.as_deref()).await;
            }
            match answer {
                Some(answer) => roles = answer,
                None => return,
            }
        }
        mapped.role_keys = Some(roles);
    }

    async fn call(&self, binding: &Binding, roles: &[String]) -> (MapperCall, Option<Vec<String>>) {
        let (outcome, fuel) = match &self.block {
            Some(fault) => (Err(fault.clone()), 0),
            None => {
                let mut input = self.input.clone();
                // The first claim is `roster.roles`, see `input_of`.
                if let Some(claim) = input.claims.first_mut() {
                    claim.values = roles.to_vec();
                }
                let called = self.app.ask_mapper(self.tenant.id, binding, input).await;
                (called.outcome, called.fuel)
            }
        };
        let (answer, fault) = match outcome {
            Ok(answer) => (Some(answer), None),
            Err(fault) => (None, Some(fault)),
        };
        if let Some(fault) = &fault {
            let (plugin, version, source) = (&binding.name, binding.version, &self.input.source);
            tracing::warn!(organization = %self.tenant.id, %plugin, version, mode = binding.mode.as_str(), source, fault = fault.kind.as_str(), "a role mapper failed: if it is enforced, the roles of this source stay unchanged");
        }
        let call =
            MapperCall { name: binding.name.clone(), version: binding.version, sha256: binding.sha256, fuel, fault };
        (call, answer)
    }

    /// Calls a shadow mapper and records whether it would change the result. `answer` is the result without it; `None`
    /// if the enforced version failed.
    async fn call_shadow(&self, binding: &Binding, roles: &[String], answer: Option<&[String]>) {
        let (_, Some(own)) = self.call(binding, roles).await else { return };
        let (with, without) = (self.effective(&own), self.effective(answer.unwrap_or_default()));
        if answer.is_some() && with == without {
            return;
        }
        let list = |keys: Vec<&&str>| keys.into_iter().copied().collect::<Vec<_>>().join(" ");
        let (more, fewer) = (list(with.difference(&without).collect()), list(without.difference(&with).collect()));
        let source = &self.input.source;
        let message = match answer {
            Some(_) => format!("{source}: in force it would add [{more}] and drop [{fewer}]"),
            None => format!("{source}: in force it would have answered [{more}], where the version in force failed"),
        };
        self.app.record_shadow_difference(self.tenant.id, binding, message);
    }

    fn effective<'k>(&self, keys: &'k [String]) -> BTreeSet<&'k str> {
        keys.iter().map(String::as_str).filter(|key| assignable(self.tenant, key).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_with_names_of_the_host_are_dropped() {
        let document =
            json!({"roster.roles": ["editor"], "org_code": "x", "now_ms": 1, "groups": ["a", 2], "sub": "s"});
        let facts = SourceFacts::of_json(document.as_object().expect("an object"));
        let names: Vec<&str> = facts.claims.iter().map(|claim| claim.name.as_str()).collect();
        assert_eq!(names, ["groups", "sub"]);
        assert_eq!(facts.claims[0].values, ["a", "2"]);
        assert_eq!(facts.raw_json.expect("JSON"), document.to_string());
    }
}
