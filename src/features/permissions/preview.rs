//! What a new set of permissions of a role would change, computed without changing anything.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::get_role_in_snapshot;
use crate::kernel::authz::catalog::PermissionIndex;
use crate::kernel::authz::snapshot::{Role, RoleSet, Snapshot, Tenant};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

/// The most members that a preview names, of those who gain and of those who lose.
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
