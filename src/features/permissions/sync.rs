//! Syncs a member's roles with an external source: external keys → mappings → the organization's role mappers → roles →
//! the assignments of that source.
//!
//! **Invariant.** A sync changes only assignments of its own source, and never makes a member an owner.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::mappers::{MapperCall, MapperResult, SourceClaims, assignable};
use super::{RoleRecord, Source, store};
use crate::kernel::app::Transaction;
use crate::kernel::authz::delegation;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

/// The result of a sync or of its dry run, as role keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncOutcome {
    pub source: Source,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub kept: Vec<String>,
    /// External keys without a mapping.
    pub unknown: Vec<String>,
    /// Role keys that a mapper returned but cannot assign: unknown in this organization, closed, or protected.
    pub ignored: Vec<String>,
    /// The calls of the enforced mappers, in order, up to the first failure.
    pub asked: Vec<MapperCall>,
}

impl SyncOutcome {
    pub fn is_change(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }

    /// Returns the result as a value for the audit log.
    pub fn record(&self) -> Value {
        let mut record = json!({"source": self.source.as_str(), "added": self.added, "removed": self.removed});
        if !self.asked.is_empty() {
            record["plugins"] = self.asked.iter().map(MapperCall::record).collect();
        }
        record
    }
}

/// The roles to which the mappings of a source map external keys.
#[derive(Debug)]
pub struct Table {
    /// Open and unprotected roles, without duplicates, sorted by key.
    roles: Vec<RoleRecord>,
    unknown: Vec<String>,
}

impl Table {
    pub fn keys(&self) -> Vec<String> {
        self.roles.iter().map(|role| role.key.clone()).collect()
    }
}

/// Maps external keys to roles with the mappings of a source.
pub fn table(
    r: &Reader<'_>,
    organization: OrganizationId,
    source: Source,
    external_keys: &BTreeSet<String>,
) -> Result<Table> {
    let (mut roles, mut unknown) = (Vec::new(), Vec::new());
    for key in external_keys {
        match store::find_mapping(r, organization, source, key)? {
            Some(mapping) => roles.push(store::get_role(r, organization, mapping.role)?),
            None => unknown.push(key.clone()),
        }
    }
    roles.retain(|role| role.is_open && !role.is_protected());
    roles.sort_by(|a, b| a.key.cmp(&b.key));
    roles.dedup_by(|a, b| a.id == b.id);
    Ok(Table { roles, unknown })
}

/// The roles that a member gets from a source.
#[derive(Debug)]
pub struct Plan {
    source: Source,
    /// `None` if a mapper failed: the existing assignments stay.
    wanted: Option<Vec<(RoleId, String)>>,
    unknown: Vec<String>,
    ignored: Vec<String>,
    asked: Vec<MapperCall>,
}

impl Plan {
    /// A plan that removes all roles of this source.
    pub fn none(source: Source) -> Self {
        Self { source, wanted: Some(Vec::new()), unknown: Vec::new(), ignored: Vec::new(), asked: Vec::new() }
    }
}

/// Computes the plan in the transaction that applies it; `None` if plugins or mappings changed since the mappers were
/// called. Writes nothing.
pub fn plan(t: &Transaction<'_>, claims: SourceClaims<'_>, mapped: &MapperResult) -> Result<Option<Plan>> {
    let (source, organization) = (claims.source, mapped.organization);
    let table = table(t, organization, source, claims.keys)?;
    if !mapped.holds(t.snapshot(), &table.keys()) {
        return Ok(None);
    }
    let mut plan =
        Plan { source, wanted: None, unknown: table.unknown, ignored: Vec::new(), asked: mapped.asked.clone() };
    if !mapped.is_by_plugin() {
        plan.wanted = Some(table.roles.into_iter().map(|role| (role.id, role.key)).collect());
    } else if let Some(named) = &mapped.role_keys {
        let mut wanted = Vec::new();
        for key in named {
            match t.snapshot().tenant(organization).and_then(|tenant| assignable(tenant, key)) {
                Some(role) => wanted.push((role.id, key.clone())),
                None => plan.ignored.push(key.clone()),
            }
        }
        wanted.sort_by(|(_, a), (_, b)| a.cmp(b));
        plan.ignored.sort();
        plan.wanted = Some(wanted);
    }
    Ok(Some(plan))
}

/// Applies a plan, or only computes its result if `dry_run` is set. The caller must hold the roles that it adds and
/// must be allowed to remove the others.
pub fn reconcile(
    t: &Transaction<'_>,
    caller: &Identity,
    (organization, member): (OrganizationId, MemberId),
    plan: Plan,
    dry_run: bool,
) -> Result<SyncOutcome> {
    let Plan { source, wanted, unknown, ignored, asked } = plan;
    let held: Vec<(RoleId, String)> = store::list_assignments(t, organization, member)?
        .into_iter()
        .filter(|assignment| assignment.source == source)
        .map(|assignment| (assignment.role, assignment.role_key))
        .collect();
    let wanted = wanted.unwrap_or_else(|| held.clone());
    let (added, removed, kept) = (Vec::new(), Vec::new(), Vec::new());
    let mut synced = SyncOutcome { source, added, removed, kept, unknown, ignored, asked };
    let role = |id: RoleId| super::get_role_in_snapshot(t.snapshot(), organization, id);
    for (id, key) in &wanted {
        if held.iter().any(|(held, _)| held == id) {
            synced.kept.push(key.clone());
            continue;
        }
        delegation::require_held(t.snapshot(), caller, organization, role(*id)?)?;
        synced.added.push(key.clone());
        if !dry_run {
            store::insert_assignment(t, organization, member, *id, source)?;
        }
    }
    for (id, key) in held.iter().filter(|(id, _)| !wanted.iter().any(|(wanted, _)| wanted == id)) {
        delegation::require_may_revoke(t.snapshot(), caller, organization, role(*id)?)?;
        synced.removed.push(key.clone());
        if !dry_run {
            store::delete_sourced_assignment(t, organization, member, *id, source)?;
        }
    }
    Ok(synced)
}
