//! One organization in the snapshot: its roles, and the roles that each member holds.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kernel::authz::catalog::{Catalog, PermissionIndex, PermissionSet};
use crate::kernel::authz::cow_map::CowMap;
use crate::kernel::authz::plugin::Binding;
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

/// The permissions that a role holds in addition to its ticked ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleKind {
    /// None.
    Ticked,
    /// Every permission of the tenant's catalog.
    Tenant,
    /// Every permission.
    Everything,
}

impl RoleKind {
    const ALL: [Self; 3] = [Self::Ticked, Self::Tenant, Self::Everything];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticked => "ticked",
            Self::Tenant => "tenant",
            Self::Everything => "everything",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub id: RoleId,
    pub key: Arc<str>,
    pub is_open: bool,
    pub holds: RoleKind,
    pub ticked: Arc<PermissionSet>,
}

impl Role {
    /// Whether it is the role of an owner or a platform administrator, which no role source and no plugin can assign.
    pub fn is_protected(&self) -> bool {
        self.holds != RoleKind::Ticked
    }

    /// Whether the role holds the permission, ticked or by its kind.
    pub fn holds(&self, catalog: &Catalog, tenant: OrganizationId, slot: PermissionIndex) -> bool {
        match self.holds {
            RoleKind::Everything => true,
            RoleKind::Tenant => {
                (self.ticked.contains(slot) && catalog.is_for(slot, tenant)) || catalog.is_in_tenant(slot, tenant)
            }
            RoleKind::Ticked => self.ticked.contains(slot) && catalog.is_for(slot, tenant),
        }
    }
}

/// A combination of roles that at least one member holds, with the union of the permissions of the open ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleSet {
    /// Sorted indexes of roles, closed ones included.
    roles: Box<[u32]>,
    pub ticked: PermissionSet,
    pub holds_tenant: bool,
    pub holds_everything: bool,
}

impl RoleSet {
    /// Whether an open role of the set holds the permission. The caller checks whether the permission itself is open.
    pub fn holds(&self, catalog: &Catalog, tenant: OrganizationId, slot: PermissionIndex) -> bool {
        self.holds_everything
            || (self.ticked.contains(slot) && catalog.is_for(slot, tenant))
            || (self.holds_tenant && catalog.is_in_tenant(slot, tenant))
    }

    pub fn holds_everything(&self) -> bool {
        self.holds_everything
    }

    /// Whether its holder is an owner, who holds the whole catalog of the organization.
    pub fn is_of_owner(&self) -> bool {
        self.holds_tenant || self.holds_everything
    }
}

/// The interned role sets of an organization.
#[derive(Debug, Clone, Default)]
pub struct RoleSets {
    all: Vec<Arc<RoleSet>>,
    /// The number of members that hold each set.
    members: Vec<u32>,
    index: HashMap<Box<[u32]>, u32>,
    /// Unused indexes of `all`.
    free: Vec<u32>,
}

/// One organization with its roles, memberships and plugins.
#[derive(Clone)]
pub struct Tenant {
    pub id: OrganizationId,
    pub org_code: Arc<str>,
    pub is_active: bool,
    /// Whether its members must sign in with a second factor.
    pub requires_second_factor: bool,
    pub roles: Arc<Vec<Option<Role>>>,
    pub role_index: Arc<HashMap<RoleId, u32>>,
    pub sets: Arc<RoleSets>,
    pub memberships: CowMap<MemberId, u32>,
    pub plugins: Arc<Vec<Binding>>,
}

impl Tenant {
    /// The member's role set; `None` if it does not belong to the organization.
    pub fn set_of(&self, member: MemberId) -> Option<&RoleSet> {
        self.memberships.get(&member).map(|set| &*self.sets.all[*set as usize])
    }

    /// The roles that a member holds in the organization, closed ones included.
    pub fn roles_of(&self, member: MemberId) -> impl Iterator<Item = &Role> {
        let roles = self.set_of(member).map_or(&[][..], |set| &set.roles);
        roles.iter().filter_map(|index| self.roles[*index as usize].as_ref())
    }

    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.iter().flatten()
    }

    pub fn role(&self, id: RoleId) -> Option<&Role> {
        self.roles[*self.role_index.get(&id)? as usize].as_ref()
    }

    /// The number of members that hold the role.
    pub fn holder_count(&self, id: RoleId) -> u64 {
        let Some(index) = self.role_index.get(&id) else { return 0 };
        let sets = self.sets.all.iter().zip(&self.sets.members);
        sets.filter(|(set, _)| set.roles.contains(index)).map(|(_, members)| u64::from(*members)).sum()
    }

    /// The active plugins of the organization, in the order in which they are called, including those in shadow mode.
    pub fn plugins(&self) -> &Arc<Vec<Binding>> {
        &self.plugins
    }

    /// Replaces the plugins. A version that keeps running keeps its counters.
    pub fn replace_plugins(&mut self, mut bindings: Vec<Binding>) {
        for binding in &mut bindings {
            if let Some(former) = self.plugins.iter().find(|former| former.is_same_run(binding)) {
                let is_quarantined = binding.run_state.is_quarantined();
                binding.run_state = former.run_state.clone();
                if is_quarantined {
                    binding.run_state.quarantine();
                }
            }
        }
        self.plugins = Arc::new(bindings);
    }

    pub fn put_role(&mut self, role: Role) {
        let roles = Arc::make_mut(&mut self.roles);
        match self.role_index.get(&role.id).copied() {
            Some(index) => {
                roles[index as usize] = Some(role);
                self.refold(index);
            }
            None => {
                // The index of a deleted role can be reused: nobody held the role, so no set contains it.
                let free = roles.iter().position(Option::is_none).unwrap_or(roles.len());
                let index = u32::try_from(free).unwrap_or(u32::MAX);
                Arc::make_mut(&mut self.role_index).insert(role.id, index);
                if free == roles.len() {
                    roles.push(None);
                }
                roles[free] = Some(role);
            }
        }
    }

    pub fn drop_role(&mut self, id: RoleId) {
        if let Some(index) = Arc::make_mut(&mut self.role_index).remove(&id) {
            Arc::make_mut(&mut self.roles)[index as usize] = None;
            self.refold(index);
        }
    }

    /// Computes again every set that contains the role.
    fn refold(&mut self, index: u32) {
        let roles = self.roles.clone();
        for set in &mut Arc::make_mut(&mut self.sets).all {
            if set.roles.contains(&index) {
                *set = Arc::new(folded(&roles, set.roles.clone()));
            }
        }
    }

    /// Computes every set again.
    pub fn fold(&mut self) {
        let roles = self.roles.clone();
        for set in &mut Arc::make_mut(&mut self.sets).all {
            *set = Arc::new(folded(&roles, set.roles.clone()));
        }
    }

    /// Whether every set equals the union of its roles.
    pub fn is_folded(&self) -> bool {
        self.sets.all.iter().all(|set| **set == folded(&self.roles, set.roles.clone()))
    }

    /// Whether the membership of the member differs from this one. `None` means no membership.
    pub fn differs_membership(&self, member: MemberId, held: Option<&[RoleId]>) -> bool {
        match (self.set_of(member), held) {
            (None, None) => false,
            (Some(set), Some(held)) => set.roles != self.indexes(held),
            _ => true,
        }
    }

    /// The sorted indexes of the roles, as in a set.
    fn indexes(&self, held: &[RoleId]) -> Box<[u32]> {
        let mut indexes: Vec<u32> = held.iter().filter_map(|id| self.role_index.get(id).copied()).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.into()
    }

    /// Sets the roles of a member; `None` removes the membership.
    pub fn membership(&mut self, member: MemberId, held: Option<Vec<RoleId>>) {
        let new = held.map(|held| {
            let indexes = self.indexes(&held);
            self.count_holder(indexes)
        });
        let former = match new {
            Some(set) => self.memberships.insert(member, set),
            None => self.memberships.remove(&member),
        };
        if let Some(set) = former {
            self.uncount_holder(set);
        }
    }

    fn count_holder(&mut self, roles: Box<[u32]>) -> u32 {
        let sets = Arc::make_mut(&mut self.sets);
        let set = sets.index.get(&roles).copied().unwrap_or_else(|| {
            let folded = Arc::new(folded(&self.roles, roles.clone()));
            let set = sets.free.pop().unwrap_or_else(|| {
                sets.all.push(Arc::default());
                sets.members.push(0);
                u32::try_from(sets.all.len() - 1).unwrap_or(u32::MAX)
            });
            sets.all[set as usize] = folded;
            sets.index.insert(roles, set);
            set
        });
        sets.members[set as usize] += 1;
        set
    }

    fn uncount_holder(&mut self, set: u32) {
        let sets = Arc::make_mut(&mut self.sets);
        let members = &mut sets.members[set as usize];
        *members -= 1;
        if *members == 0 {
            let gone = std::mem::take(&mut sets.all[set as usize]);
            sets.index.remove(&gone.roles);
            sets.free.push(set);
        }
    }
}

fn folded(roles: &[Option<Role>], indexes: Box<[u32]>) -> RoleSet {
    let mut set = RoleSet { roles: indexes, ..RoleSet::default() };
    for role in set.roles.iter().filter_map(|index| roles[*index as usize].as_ref()).filter(|role| role.is_open) {
        set.ticked.union(&role.ticked);
        set.holds_tenant |= role.holds == RoleKind::Tenant;
        set.holds_everything |= role.holds == RoleKind::Everything;
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_set_that_differs_from_its_roles_is_detected_and_recomputed() {
        let (member, role) = (MemberId::new(), RoleId::new());
        let mut tenant = Tenant {
            id: OrganizationId::new(),
            org_code: "acme".into(),
            is_active: true,
            requires_second_factor: false,
            roles: Arc::default(),
            role_index: Arc::default(),
            sets: Arc::default(),
            memberships: CowMap::default(),
            plugins: Arc::default(),
        };
        let ticked = Arc::new([3].into_iter().collect());
        tenant.put_role(Role { id: role, key: "reader".into(), is_open: true, holds: RoleKind::Ticked, ticked });
        tenant.membership(member, Some(vec![role]));
        assert!(tenant.is_folded() && !tenant.differs_membership(member, Some(&[role])));
        for set in &mut Arc::make_mut(&mut tenant.sets).all {
            Arc::make_mut(set).ticked = PermissionSet::default();
        }
        assert!(!tenant.is_folded());
        tenant.fold();
        assert!(tenant.is_folded() && tenant.set_of(member).is_some_and(|set| set.ticked.contains(3)));
        for (held, differs) in [(Some(&[][..]), true), (None, true), (Some(&[role, role][..]), false)] {
            assert_eq!(tenant.differs_membership(member, held), differs, "{held:?}");
        }
        tenant.membership(member, None);
        assert!(tenant.is_folded() && !tenant.differs_membership(member, None));
    }
}
