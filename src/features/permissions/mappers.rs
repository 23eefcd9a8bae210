//! Asks an organization's role mappers which roles somebody from outside has there.
//!
//! **Invariant.** No guest runs within a transaction. What the mappers answered counts only while the mappers in force, and
//! the table's answer that they were given, are the ones it rests on ([`MapperResult::holds`]); otherwise they are asked again.

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

/// How often the mappers are asked when what their answer rests on changes meanwhile.
pub const TRIES: usize = 4;

/// Claims that the host gives. A source that has one of these names does not get through with it.
const ROLES: &str = "roster.roles";
const ORG_CODE: &str = "org_code";
const NOW_MS: &str = "now_ms";

/// The external keys and claims of a member from one source.
#[derive(Debug, Clone, Copy)]
pub struct SourceClaims<'a> {
    pub source: Source,
    /// External keys: groups and roles over there.
    pub keys: &'a BTreeSet<String>,
    pub facts: &'a SourceFacts,
}

/// What it says beside the keys; only mappers see it.
#[derive(Debug, Clone, Default)]
pub struct SourceFacts {
    claims: Vec<Claim>,
    raw_json: Option<String>,
    /// Something could not be read, so that a claim that is not there may yet be one.
    has_gaps: bool,
}

impl SourceFacts {
    /// By names and values.
    pub fn of(claims: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let is_hosts = |name: &str| [ROLES, ORG_CODE, NOW_MS].contains(&name);
        let claims = claims.into_iter().filter(|(name, _)| !is_hosts(name));
        Self { claims: claims.map(|(name, values)| Claim { name, values }).collect(), ..Self::default() }
    }

    /// By a document, which goes along as it is.
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

/// A mapper in force, and what came of asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapperCall {
    pub name: Arc<str>,
    pub version: u32,
    pub sha256: Hash,
    pub fuel: u64,
    pub fault: Option<Fault>,
}

impl MapperCall {
    /// For the audit.
    pub fn record(&self) -> Value {
        let Self { name, version, sha256, fuel, fault: _ } = self;
        json!({"name": **name, "version": version, "sha256": hex::encode(sha256), "fuel": fuel})
    }
}

/// What the mappers in force answered, and what that rests on. Without a mapper in force the table's answer stands.
#[derive(Debug)]
pub struct MapperResult {
    pub organization: OrganizationId,
    pub source: Source,
    in_force: Vec<Binding>,
    table: Vec<String>,
    pub asked: Vec<MapperCall>,
    /// Keys as the last mapper named them; `None` when one failed, and nothing is known.
    pub named: Option<Vec<String>>,
}

impl MapperResult {
    pub fn is_by_plugin(&self) -> bool {
        !self.in_force.is_empty()
    }

    /// Are the plugins and mappings still the same? Checked in the transaction that applies the result.
    pub fn holds(&self, snapshot: &Snapshot, table: &[String]) -> bool {
        let tenant = snapshot.tenant(self.organization);
        let mut now = tenant.into_iter().flat_map(mappers).filter(|binding| binding.mode == Mode::Enforce);
        let are_same = self.in_force.iter().all(|then| now.next().is_some_and(|now| now.is_same_run(then)));
        are_same && now.next().is_none() && (self.in_force.is_empty() || self.table == table)
    }
}

/// Roles or plugins changed during every attempt.
pub fn never_still() -> Error {
    let message = "the organization's plugins or mappings changed while they were asked: try again";
    Error::new(ErrorCode::Busy).with_message(message).retry_after(1)
}

fn mappers(tenant: &Tenant) -> impl Iterator<Item = &Binding> {
    tenant.plugins().iter().filter(|binding| binding.exports.role_mapper)
}

/// The role of a key that a mapper may give: one of this organization, open, and not protected.
pub fn assignable<'t>(tenant: &'t Tenant, key: &str) -> Option<&'t Role> {
    tenant.roles().find(|role| &*role.key == key).filter(|role| role.is_open && !role.is_protected())
}

/// Asks the mappers of an organization, those that are only watched too. It costs nothing where there are none.
pub async fn ask(
    app: &Arc<App>,
    (organization, member): (OrganizationId, MemberId),
    word: SourceClaims<'_>,
) -> Result<MapperResult> {
    let snapshot = app.snapshot();
    let mut mapped = MapperResult {
        organization,
        source: word.source,
        in_force: Vec::new(),
        table: Vec::new(),
        asked: Vec::new(),
        named: None,
    };
    let Some(tenant) = snapshot.tenant(organization) else { return Ok(mapped) };
    let all: Vec<&Binding> = mappers(tenant).collect();
    if all.is_empty() {
        return Ok(mapped);
    }
    let (source, keys) = (word.source, word.keys.clone());
    let table = app.read(move |r| sync::table(r, organization, source, &keys)).await?;
    mapped.table = table.keys();
    mapped.in_force = all.iter().filter(|binding| binding.mode == Mode::Enforce).map(|b| (*b).clone()).collect();
    let mut input = input_of(tenant, member, word);
    if input.bytes() as u64 > app.config.plugin_input_bytes {
        // The claims contain the same data.
        input.raw_json = None;
    }
    let chain = Chain { app, tenant, all, input, block: block(tenant, word) };
    chain.walk(&mut mapped).await;
    Ok(mapped)
}

fn input_of(tenant: &Tenant, member: MemberId, word: SourceClaims<'_>) -> RoleInput {
    let own = |name: &str, value: String| Claim { name: name.into(), values: vec![value] };
    let mut claims = vec![
        Claim { name: ROLES.into(), values: Vec::new() },
        own(ORG_CODE, tenant.org_code.to_string()),
        own(NOW_MS, Timestamp::now().0.to_string()),
    ];
    claims.extend(word.facts.claims.iter().cloned());
    RoleInput {
        tenant: tenant.id.to_string(),
        source: word.source.as_str().into(),
        subject: member.to_string(),
        groups: word.keys.iter().cloned().collect(),
        claims,
        raw_json: word.facts.raw_json.clone(),
    }
}

/// Why no mapper should be asked now, which counts as a failure: what it would be told is not the whole of it, or what it
/// says is nobody's business.
fn block(tenant: &Tenant, word: SourceClaims<'_>) -> Option<Fault> {
    if !tenant.is_active {
        return Some(Fault { kind: FaultKind::Unavailable, message: "the organization is not active".into() });
    }
    let message = "a document of the source could not be read, so that its claims are not known in full";
    word.facts.has_gaps.then(|| Fault { kind: FaultKind::Input, message: message.into() })
}

/// The mappers of an organization, in their order.
struct Chain<'a> {
    app: &'a Arc<App>,
    tenant: &'a Tenant,
    all: Vec<&'a Binding>,
    input: RoleInput,
    block: Option<Fault>,
}

impl Chain<'_> {
    /// The first sees the table's answer, each later one the answer before it. One that is only watched sees what it would
    /// see in force, and its answer goes nowhere.
    async fn walk(&self, mapped: &mut MapperResult) {
        let mut roles = mapped.table.clone();
        for binding in &self.all {
            if binding.mode == Mode::Shadow {
                if !mapped.in_force.iter().any(|other| other.plugin == binding.plugin) {
                    self.watch(binding, &roles, Some(&roles)).await;
                }
                continue;
            }
            let (asked, answer) = self.ask(binding, &roles).await;
            mapped.asked.push(asked);
            // The next version of the same plugin is watched in its place.
            for next in self.all.iter().filter(|other| other.mode == Mode::Shadow && other.plugin == binding.plugin) {
                self.watch(next, &roles, answer.as_deref()).await;
            }
            match answer {
                Some(answer) => roles = answer,
                None => return,
            }
        }
        mapped.named = Some(roles);
    }

    async fn ask(&self, binding: &Binding, roles: &[String]) -> (MapperCall, Option<Vec<String>>) {
        let (outcome, fuel) = match &self.block {
            Some(fault) => (Err(fault.clone()), 0),
            None => {
                let mut input = self.input.clone();
                // The first claim, by construction.
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
            tracing::warn!(organization = %self.tenant.id, %plugin, version, mode = binding.mode.as_str(), source, fault = fault.kind.as_str(), "a role mapper failed: where it is in force, roles of this source stay as they are");
        }
        let asked =
            MapperCall { name: binding.name.clone(), version: binding.version, sha256: binding.sha256, fuel, fault };
        (asked, answer)
    }

    /// Would it change anything? `answer` is what goes on without it, unless nothing does.
    async fn watch(&self, binding: &Binding, roles: &[String], answer: Option<&[String]>) {
        let (_, Some(own)) = self.ask(binding, roles).await else { return };
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
        self.app.note_difference(self.tenant.id, binding, message);
    }

    fn effective<'k>(&self, keys: &'k [String]) -> BTreeSet<&'k str> {
        keys.iter().map(String::as_str).filter(|key| assignable(self.tenant, key).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_cannot_speak_for_the_host() {
        let document =
            json!({"roster.roles": ["editor"], "org_code": "x", "now_ms": 1, "groups": ["a", 2], "sub": "s"});
        let facts = SourceFacts::of_json(document.as_object().expect("an object"));
        let names: Vec<&str> = facts.claims.iter().map(|claim| claim.name.as_str()).collect();
        assert_eq!(names, ["groups", "sub"]);
        assert_eq!(facts.claims[0].values, ["a", "2"]);
        assert_eq!(facts.raw_json.expect("JSON"), document.to_string());
    }
}
