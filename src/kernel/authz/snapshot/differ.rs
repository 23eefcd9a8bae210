//! Compares a snapshot with the rows in the database: whether a change would alter the snapshot, and which entries it
//! has.
//!
//! **Invariant.** [`Snapshot::differs`] mirrors [`Snapshot::apply`]: after a change was applied, it does not differ.

use std::sync::Arc;

use super::{Change, OrganizationCount, Snapshot};
use crate::kernel::authz::permission::PLATFORM_ORG_CODE;
use crate::kernel::authz::plugin::Binding;
use crate::kernel::ids::OrganizationId;
use crate::kernel::secret::Hash;

/// A part of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Catalog,
    /// Organizations with their plugins.
    Tenants,
    Roles,
    Members,
    Memberships,
    /// The permissions that are computed for each combination of roles.
    RoleSets,
    Grants,
    Clients,
    Sessions,
    ApiKeys,
}

/// A position in the iteration over a part.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotCursor {
    tenant: usize,
    bucket: usize,
}

impl Snapshot {
    /// Whether applying the change would alter the snapshot.
    pub fn differs(&self, change: &Change) -> bool {
        match change {
            Change::Member(id, status) => self.people.get(id).is_none_or(|state| state.status != *status),
            Change::MemberDeleted(id) => self.people.get(id).is_some(),
            Change::OrganizationCount(id, ends) => {
                let memberships = self.memberships_between(*ends);
                self.people
                    .get(id)
                    .is_some_and(|state| memberships.is_some_and(|memberships| state.memberships != memberships))
            }
            Change::Tenant { id, org_code, is_active, requires_second_factor } => {
                self.differs_tenant(*id, org_code, *is_active, *requires_second_factor)
            }
            Change::Membership(tenant, member, roles) => {
                self.tenant(*tenant).is_some_and(|tenant| tenant.differs_membership(*member, roles.as_deref()))
            }
            Change::Role(tenant, role) => self.tenant(*tenant).is_some_and(|tenant| tenant.role(role.id) != Some(role)),
            Change::RoleDeleted(tenant, role) => {
                self.tenant(*tenant).is_some_and(|tenant| tenant.role(*role).is_some())
            }
            Change::RoleSetsRecomputed(tenant) => self.tenant(*tenant).is_some_and(|tenant| !tenant.is_folded()),
            Change::Plugins(tenant, bindings) => self.tenant(*tenant).is_some_and(|tenant| {
                !tenant.plugins.iter().map(Binding::digest_input).eq(bindings.iter().map(Binding::digest_input))
            }),
            Change::Catalog(catalog) => {
                let open = |slot| (self.catalog.is_open(slot), catalog.is_open(slot));
                !self.catalog.iter().eq(catalog.iter())
                    || catalog.iter().map(|node| open(node.slot)).any(|(known, now)| known != now)
            }
            Change::Grant(key, id) => self.grant(key) != *id,
            Change::Client(client) => {
                self.client(&client.client_key).is_none_or(|known| known.digest_input() != client.digest_input())
            }
            Change::ClientDeleted(client_key) => self.client(client_key).is_some(),
            Change::Session(id, session) => self.session(*id) != *session,
            Change::ApiKey(key) => {
                let is_found = |hash: Hash| self.imported_keys.get(&hash) == Some(&key.id);
                self.api_key(key.id).is_none_or(|known| known.digest_input() != key.digest_input())
                    || (key.is_imported && !key.hashes().all(is_found))
            }
            Change::ApiKeyDeleted(id) => self.api_key(*id).is_some(),
        }
    }

    fn differs_tenant(
        &self,
        id: OrganizationId,
        org_code: &Arc<str>,
        is_active: bool,
        requires_second_factor: bool,
    ) -> bool {
        let Some(index) = self.tenant_index.get(&id).copied() else { return true };
        let tenant = &self.tenants[index as usize];
        tenant.org_code != *org_code
            || tenant.is_active != is_active
            || tenant.requires_second_factor != requires_second_factor
            || self.org_codes.get(org_code) != Some(&id)
            || self.strict.binary_search(&index).is_ok() != (is_active && requires_second_factor)
            || (**org_code == *PLATFORM_ORG_CODE && self.platform != Some(index))
    }

    /// The organization count of a member whose first and last organizations are these. `None` if the only one is not
    /// in the snapshot.
    pub(super) fn memberships_between(
        &self,
        ends: Option<(OrganizationId, OrganizationId)>,
    ) -> Option<OrganizationCount> {
        match ends {
            None => Some(OrganizationCount::None),
            Some((first, last)) if first == last => self.tenant_index.get(&first).copied().map(OrganizationCount::One),
            Some(_) => Some(OrganizationCount::Many),
        }
    }

    /// The number of entries of a part, of one organization or of all. `None` for parts that are always small.
    pub fn count(&self, part: Part, organization: Option<OrganizationId>) -> Option<usize> {
        match (part, organization) {
            (Part::Memberships, Some(id)) => Some(self.tenant(id).map_or(0, |tenant| tenant.memberships.len())),
            (Part::Memberships, None) => Some(self.tenants().map(|tenant| tenant.memberships.len()).sum()),
            (Part::Members, None) => Some(self.people.len()),
            (Part::Grants, None) => Some(self.grants.len()),
            (Part::Sessions, None) => Some(self.sessions.len()),
            (Part::ApiKeys, None) => Some(self.api_keys.len()),
            _ => None,
        }
    }

    /// The entries of a part from a position on, as changes that name them, until there are at least `enough`; and the
    /// next position, if there is one.
    pub fn known(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        position: SnapshotCursor,
        enough: usize,
    ) -> (Vec<Change>, Option<SnapshotCursor>) {
        let next_location = |next: Option<usize>| next.map(|bucket| SnapshotCursor { tenant: 0, bucket });
        match part {
            Part::Catalog => (vec![Change::Catalog(self.catalog.clone())], None),
            Part::Tenants | Part::Roles | Part::Memberships | Part::RoleSets => {
                self.known_of_tenants(part, organization, position, enough)
            }
            Part::Members => {
                let (people, next) = self.people.keys_from(position.bucket, enough);
                (people.into_iter().map(Change::MemberDeleted).collect(), next_location(next))
            }
            Part::Grants => {
                let (grants, next) = self.grants.keys_from(position.bucket, enough);
                (grants.into_iter().map(|key| Change::Grant(key, self.grant(&key))).collect(), next_location(next))
            }
            Part::Clients => (self.clients.keys().cloned().map(Change::ClientDeleted).collect(), None),
            Part::Sessions => {
                let (sessions, next) = self.sessions.keys_from(position.bucket, enough);
                (sessions.into_iter().map(|id| Change::Session(id, None)).collect(), next_location(next))
            }
            Part::ApiKeys => {
                let (keys, next) = self.api_keys.keys_from(position.bucket, enough);
                (keys.into_iter().map(Change::ApiKeyDeleted).collect(), next_location(next))
            }
        }
    }

    fn known_of_tenants(
        &self,
        part: Part,
        organization: Option<OrganizationId>,
        mut position: SnapshotCursor,
        enough: usize,
    ) -> (Vec<Change>, Option<SnapshotCursor>) {
        let mut known = Vec::new();
        while let Some(tenant) = self.tenants.get(position.tenant) {
            if known.len() >= enough {
                return (known, Some(position));
            }
            let next = match part {
                _ if organization.is_some_and(|only| only != tenant.id) => None,
                Part::Tenants => {
                    known.push(Change::Tenant {
                        id: tenant.id,
                        org_code: tenant.org_code.clone(),
                        is_active: tenant.is_active,
                        requires_second_factor: tenant.requires_second_factor,
                    });
                    None
                }
                Part::Roles => {
                    known.extend(tenant.roles().map(|role| Change::RoleDeleted(tenant.id, role.id)));
                    None
                }
                Part::RoleSets => {
                    known.push(Change::RoleSetsRecomputed(tenant.id));
                    None
                }
                _ => {
                    let (members, next) = tenant.memberships.keys_from(position.bucket, enough - known.len());
                    known.extend(members.into_iter().map(|member| Change::Membership(tenant.id, member, None)));
                    next
                }
            };
            position = match next {
                Some(bucket) => SnapshotCursor { bucket, ..position },
                None => SnapshotCursor { tenant: position.tenant + 1, bucket: 0 },
            };
        }
        (known, None)
    }
}
