//! What a new set of permissions of a role, or an import of a catalog, would change; computed without changing anything.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::get_role_in_snapshot;
use super::import::{Entry, Import};
use super::publish::Imported;
use crate::kernel::authz::catalog::{Catalog, PermissionIndex};
use crate::kernel::authz::snapshot::{Role, RoleSet, Snapshot, Tenant};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

/// The most members or permissions that a preview names of each kind.
const NAMED_MAX: usize = 20;

/// The effect of a new set of permissions of a role.
#[derive(Debug)]
pub struct Preview {
    pub added: Vec<PermissionIndex>,
    /// Ancestors that are implied, for menus only, and were not before.
    pub implied: Vec<PermissionIndex>,
    pub removed: Vec<PermissionIndex>,
    pub gain: Affected,
    pub lose: Affected,
}

/// The members of whom something changes.
#[derive(Debug, Default)]
pub struct Affected {
    pub count: u64,
    /// The first of them by id, up to `NAMED_MAX`.
    pub first: Vec<MemberId>,
}

impl Affected {
    fn of(mut members: Vec<MemberId>) -> Self {
        let count = members.len() as u64;
        members.sort_unstable();
        members.truncate(NAMED_MAX);
        Self { count, first: members }
    }
}

/// Computes the effect of replacing the ticked permissions of a role. A member gains or loses a permission only if no
/// other role of the member has it, and if it is in effect in the organization.
pub fn preview(
    snapshot: &Snapshot,
    organization: OrganizationId,
    role: RoleId,
    ticked: &[PermissionIndex],
) -> Result<Preview> {
    let catalog = &snapshot.catalog;
    let tenant = snapshot.tenant(organization).ok_or(ErrorCode::OrganizationNotFound)?;
    let role = get_role_in_snapshot(snapshot, organization, role)?;
    let (former, new): (BTreeSet<_>, BTreeSet<_>) = (role.ticked.iter().collect(), ticked.iter().copied().collect());
    let implied = |held: &BTreeSet<PermissionIndex>| -> BTreeSet<PermissionIndex> {
        let ancestors = held.iter().flat_map(|slot| catalog.ancestors(*slot));
        ancestors.filter(|slot| !held.contains(slot)).collect()
    };
    let (was_implied, is_implied) = (implied(&former), implied(&new));
    let added: Vec<_> = new.difference(&former).copied().collect();
    let removed: Vec<_> = former.difference(&new).copied().collect();

    let mut changed = tenant.clone();
    changed.put_role(Role { ticked: Arc::new(new.into_iter().collect()), ..role.clone() });
    let is_in_effect = |slot: &PermissionIndex| {
        catalog.is_open(*slot) && (catalog.is_in_tenant(*slot, organization) || snapshot.is_platform(organization))
    };
    let holds = |set: Option<&RoleSet>, slot| set.is_some_and(|set| set.holds(catalog, organization, slot));
    let differs = |of: &[PermissionIndex], without: &Tenant, with: &Tenant, member: MemberId| {
        let (without, with) = (without.set_of(member), with.set_of(member));
        of.iter().filter(|slot| is_in_effect(slot)).any(|slot| !holds(without, *slot) && holds(with, *slot))
    };
    // Members with the same roles are affected in the same way.
    let mut effects: HashMap<u32, (bool, bool)> = HashMap::new();
    let (mut gain, mut lose) = (Vec::new(), Vec::new());
    for (member, set) in tenant.memberships.iter() {
        let (gains, loses) = *effects.entry(*set).or_insert_with(|| {
            (differs(&added, tenant, &changed, *member), differs(&removed, &changed, tenant, *member))
        });
        gain.extend(gains.then_some(*member));
        lose.extend(loses.then_some(*member));
    }
    // An ancestor that the role had itself is not new.
    let implied = is_implied.difference(&was_implied).copied().filter(|slot| !role.ticked.contains(*slot)).collect();
    Ok(Preview { added, implied, removed, gain: Affected::of(gain), lose: Affected::of(lose) })
}

// ── imports ──

/// The most roles that a dry import names.
const ROLES_MAX: usize = 100;

/// The most entries of each kind of change whose requests a dry import names.
const REQUESTS_MAX: usize = 100;

/// The requests that an entry opens before and after an import.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    pub name: String,
    /// Methods and path; `None` if it opens nothing before.
    pub former: Option<(String, String)>,
    /// The same after the import.
    pub new: Option<(String, String)>,
}

/// Lists what the entries that an import touches open, the first `REQUESTS_MAX` of each kind of change. Categories are
/// left out.
pub fn list_opened(catalog: &Catalog, import: &Import, imported: &Imported) -> Vec<Opened> {
    let entries: HashMap<&str, &Entry> = import.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let former = |name: &str| {
        let node = catalog.find(name).filter(|node| !node.orphaned)?;
        Some((node.http_methods.as_deref()?.to_owned(), node.http_path.as_deref()?.to_owned()))
    };
    let new = |name: &str| {
        let entry = entries.get(name)?;
        Some((entry.http_methods.clone()?, entry.http_path.clone()?))
    };
    let added = imported.added.iter().take(REQUESTS_MAX).map(|name| (name, None, new(name)));
    let changed = imported.changed.iter().take(REQUESTS_MAX).map(|name| (name, former(name), new(name)));
    let renamed = imported.renamed.iter().take(REQUESTS_MAX).map(|(from, to)| (to, former(from), new(to)));
    let orphaned = imported.orphaned.iter().take(REQUESTS_MAX).map(|name| (name, former(name), None));
    let all = added.chain(changed).chain(renamed).chain(orphaned);
    all.filter(|(_, former, new)| former.is_some() || new.is_some())
        .map(|(name, former, new)| Opened { name: name.clone(), former, new })
        .collect()
}

/// The permissions of an application that an import leaves without effect.
#[derive(Debug, Default)]
pub struct Lost {
    /// Everywhere: orphaned, or closed.
    permissions: Vec<PermissionIndex>,
    /// All permissions of the application, for the organizations that no longer have it.
    of_app: Vec<PermissionIndex>,
    /// The organizations that will have the application; `None` for all.
    organizations: Option<Vec<OrganizationId>>,
}

impl Lost {
    /// Finds what the import leaves without effect, among the permissions that have effect now.
    pub fn of(catalog: &Catalog, import: &Import, imported: &Imported) -> Self {
        let orphaned: HashSet<&str> = imported.orphaned.iter().map(String::as_str).collect();
        let former: HashMap<&str, &str> =
            imported.renamed.iter().map(|(from, to)| (to.as_str(), from.as_str())).collect();
        let closed: HashSet<&str> = import
            .entries
            .iter()
            .filter(|entry| entry.is_open == Some(false))
            .map(|entry| former.get(entry.name.as_str()).copied().unwrap_or(&entry.name))
            .collect();
        let is_lost = |slot: PermissionIndex| {
            catalog.get(slot).is_some_and(|node| orphaned.contains(&*node.name) || closed.contains(&*node.name))
        };
        let open = catalog.iter().filter(|node| *node.app == *import.app && catalog.is_open(node.slot));
        let of_app: Vec<PermissionIndex> = open.map(|node| node.slot).collect();
        let is_below = |slot: PermissionIndex| {
            is_lost(slot)
                || catalog
                    .ancestors(slot)
                    .any(|above| catalog.get(above).is_some_and(|node| closed.contains(&*node.name)))
        };
        let permissions = of_app.iter().copied().filter(|slot| is_below(*slot)).collect();
        Self { permissions, of_app, organizations: imported.organizations.clone() }
    }

    fn in_organization(&self, organization: OrganizationId) -> &[PermissionIndex] {
        let keeps_app = self.organizations.as_ref().is_none_or(|all| all.contains(&organization));
        if keeps_app { &self.permissions } else { &self.of_app }
    }
}

/// A role that loses permissions.
#[derive(Debug)]
pub struct LosingRole {
    pub organization: OrganizationId,
    pub org_code: Arc<str>,
    pub id: RoleId,
    pub key: Arc<str>,
    pub members: u64,
    pub count: u64,
    /// The first of them, up to `NAMED_MAX`.
    pub first: Vec<PermissionIndex>,
}

/// Returns the roles with permissions that lose their effect, up to `ROLES_MAX`, and the number of all such roles.
/// Owners, who hold every permission, are left out.
pub fn list_losing_roles(snapshot: &Snapshot, lost: &Lost) -> (Vec<LosingRole>, u64) {
    let catalog = &snapshot.catalog;
    let (mut losing, mut total) = (Vec::new(), 0);
    for tenant in snapshot.tenants() {
        let lost = lost.in_organization(tenant.id);
        for role in tenant.roles().filter(|role| role.is_open && !role.is_protected() && !lost.is_empty()) {
            let of_role = lost.iter().copied().filter(|slot| role.holds(catalog, tenant.id, *slot));
            let mut of_role: Vec<PermissionIndex> = of_role.collect();
            if of_role.is_empty() {
                continue;
            }
            total += 1;
            if losing.len() < ROLES_MAX {
                let count = of_role.len() as u64;
                of_role.truncate(NAMED_MAX);
                losing.push(LosingRole {
                    organization: tenant.id,
                    org_code: tenant.org_code.clone(),
                    id: role.id,
                    key: role.key.clone(),
                    members: tenant.holder_count(role.id),
                    count,
                    first: of_role,
                });
            }
        }
    }
    (losing, total)
}
