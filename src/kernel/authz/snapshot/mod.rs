//! The policy snapshot: everything that decisions depend on, in memory, as one immutable value that is replaced as a
//! whole.
//!
//! **Invariant.** A snapshot is exactly one epoch. The only way to build it is to apply [`Change`]s: at start all rows
//! to an empty snapshot, later each change as it is committed.
//!
//! Real sites have few distinct combinations of roles. So each membership refers to an interned *role set* with the
//! union of its roles' permissions, and a check tests one bit of one set.

pub mod differ;
pub mod tenant;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use differ::{Part, SnapshotCursor};
pub use tenant::{Role, RoleKind, RoleSet, Tenant};

use super::catalog::Catalog;
use super::client::Client;
use super::cow_map::{CowMap, IdHasher, IdKey};
use super::key::ApiKey;
use super::permission::PLATFORM_ORG_CODE;
use super::plugin::Binding;
use crate::kernel::ids::{ApiKeyId, GrantId, MemberId, OrganizationId, RoleId, SessionId};
use crate::kernel::secret::Hash;

impl IdKey for MemberId {
    fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl IdKey for SessionId {
    fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl IdKey for ApiKeyId {
    fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// The key of a direct grant: a digest of member and right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantKey([u8; 16]);

impl IdKey for GrantKey {
    fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// One direct scoped right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right<'a> {
    pub scope_type: &'a str,
    pub scope_id: &'a str,
    pub module: &'a str,
    pub action: &'a str,
}

impl Right<'_> {
    /// The key of the grant of this right to a member.
    pub fn key(&self, member: MemberId) -> GrantKey {
        let mut digest = Sha256::new();
        digest.update(member.0.as_bytes());
        for part in [self.scope_type, self.scope_id, self.module, self.action] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let full: [u8; 32] = digest.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&full[..16]);
        GrantKey(key)
    }
}

/// The status of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStatus {
    Pending,
    Active,
    Suspended,
    /// Erased.
    Deleted,
}

impl MemberStatus {
    const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Suspended, Self::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The state of a member that does not depend on an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberState {
    pub status: MemberStatus,
    memberships: OrganizationCount,
}

/// A session that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub member: MemberId,
    /// Whether a second factor was verified.
    pub second_factor: bool,
}

impl MemberState {
    fn is_erased(self) -> bool {
        self.status == MemberStatus::Deleted
    }
}

/// Whether a member belongs to no organization, to one, or to several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrganizationCount {
    None,
    /// The index of the only one in `tenants`.
    One(u32),
    Many,
}

/// One change of the policy, with all data that a snapshot needs of it.
pub enum Change {
    Member(MemberId, MemberStatus),
    /// The member has no row. It has no membership, no session and no grant either.
    MemberDeleted(MemberId),
    /// The first and the last organization, by id, that a member belongs to. It follows from the memberships; a reload
    /// compares it again.
    OrganizationCount(MemberId, Option<(OrganizationId, OrganizationId)>),
    Tenant {
        id: OrganizationId,
        org_code: Arc<str>,
        is_active: bool,
        requires_second_factor: bool,
    },
    /// The roles that a member holds in an organization; `None` if it does not belong to it.
    Membership(OrganizationId, MemberId, Option<Vec<RoleId>>),
    Role(OrganizationId, Role),
    RoleDeleted(OrganizationId, RoleId),
    /// Computes the role sets of an organization again. They follow from its roles.
    RoleSetsRecomputed(OrganizationId),
    /// All active plugins of an organization, in enforce or shadow mode, in the order in which they are called.
    Plugins(OrganizationId, Vec<Binding>),
    Catalog(Arc<Catalog>),
    Grant(GrantKey, Option<GrantId>),
    Client(Box<Client>),
    ClientDeleted(Arc<str>),
    /// `None` if the session has ended.
    Session(SessionId, Option<Session>),
    ApiKey(Box<ApiKey>),
    ApiKeyDeleted(ApiKeyId),
}

/// The policy of one epoch.
#[derive(Clone)]
pub struct Snapshot {
    pub epoch: u64,
    pub catalog: Arc<Catalog>,
    tenants: Arc<Vec<Arc<Tenant>>>,
    tenant_index: Arc<HashMap<OrganizationId, u32, BuildHasherDefault<IdHasher>>>,
    org_codes: Arc<HashMap<Arc<str>, OrganizationId>>,
    /// The index of the organization `platform`.
    platform: Option<u32>,
    people: CowMap<MemberId, MemberState>,
    /// The number of erased members in `people`.
    erased: usize,
    grants: CowMap<GrantKey, GrantId>,
    clients: Arc<HashMap<Arc<str>, Arc<Client>>>,
    sessions: CowMap<SessionId, Session>,
    /// Indexes of the active tenants that require a second factor: few, and checked in every request.
    strict: Arc<Vec<u32>>,
    api_keys: CowMap<ApiKeyId, Arc<ApiKey>>,
    /// Keys whose text another system generated, by the digest of the text, which contains no id.
    imported_keys: Arc<HashMap<Hash, ApiKeyId>>,
}

impl Snapshot {
    pub fn empty(epoch: u64) -> Self {
        Self {
            epoch,
            catalog: Arc::new(Catalog::build(Vec::new())),
            tenants: Arc::default(),
            tenant_index: Arc::default(),
            org_codes: Arc::default(),
            platform: None,
            people: CowMap::default(),
            erased: 0,
            grants: CowMap::default(),
            clients: Arc::default(),
            sessions: CowMap::default(),
            strict: Arc::default(),
            api_keys: CowMap::default(),
            imported_keys: Arc::default(),
        }
    }

    /// Whether the organization has authorizer plugins in enforce or shadow mode.
    pub fn has_authorizers(&self, tenant: Option<OrganizationId>) -> bool {
        let tenant = tenant.and_then(|id| self.tenant(id));
        tenant.is_some_and(|tenant| tenant.plugins().iter().any(|binding| binding.exports.authorizer))
    }

    /// Whether there is a policy. Epoch 0 means none: everything is denied.
    pub fn is_available(&self) -> bool {
        self.epoch > 0
    }

    pub fn tenant(&self, id: OrganizationId) -> Option<&Tenant> {
        self.tenant_index.get(&id).map(|index| &*self.tenants[*index as usize])
    }

    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().map(|tenant| &**tenant)
    }

    /// The organization with this `org_code` or id.
    pub fn tenant_named(&self, text: &str) -> Option<&Tenant> {
        let id = self.org_codes.get(text).copied().unwrap_or_else(|| OrganizationId::of(text));
        self.tenant(id)
    }

    pub fn platform(&self) -> Option<&Tenant> {
        self.platform.map(|index| &*self.tenants[index as usize])
    }

    pub fn is_platform(&self, id: OrganizationId) -> bool {
        self.platform().is_some_and(|platform| platform.id == id)
    }

    pub fn member_state(&self, id: MemberId) -> Option<MemberState> {
        self.people.get(&id).copied()
    }

    /// Whether the member exists and is active.
    pub fn is_active(&self, member: MemberId) -> bool {
        self.member_state(member).is_some_and(|state| state.status == MemberStatus::Active)
    }

    /// The number of members, including erased ones.
    pub fn member_state_count(&self) -> usize {
        self.people.len()
    }

    /// The number of members that are not erased.
    pub fn members(&self) -> usize {
        self.people.len() - self.erased
    }

    pub fn grants(&self) -> usize {
        self.grants.len()
    }

    /// The member's organization, if there is exactly one.
    pub fn only_tenant(&self, member: MemberId) -> Option<&Tenant> {
        match self.people.get(&member)?.memberships {
            OrganizationCount::One(index) => self.tenants.get(index as usize).map(|tenant| &**tenant),
            OrganizationCount::None | OrganizationCount::Many => None,
        }
    }

    /// All organizations that the member belongs to.
    pub fn tenants_of(&self, member: MemberId) -> impl Iterator<Item = &Tenant> {
        let only = self.only_tenant(member);
        let has_many = self.people.get(&member).is_some_and(|state| state.memberships == OrganizationCount::Many);
        let many = has_many.then(|| self.tenants().filter(move |tenant| tenant.set_of(member).is_some()));
        only.into_iter().chain(many.into_iter().flatten())
    }

    pub fn belongs_nowhere(&self, member: MemberId) -> bool {
        self.people.get(&member).is_none_or(|state| state.memberships == OrganizationCount::None)
    }

    pub fn grant(&self, key: &GrantKey) -> Option<GrantId> {
        self.grants.get(key).copied()
    }

    pub fn client(&self, client_key: &str) -> Option<&Arc<Client>> {
        self.clients.get(client_key)
    }

    pub fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.values()
    }

    pub fn session(&self, id: SessionId) -> Option<Session> {
        self.sessions.get(&id).copied()
    }

    /// Whether an active organization of the member requires a second factor.
    pub fn requires_second_factor(&self, member: MemberId) -> bool {
        self.strict.iter().any(|index| self.tenants[*index as usize].memberships.get(&member).is_some())
    }

    pub fn api_key(&self, id: ApiKeyId) -> Option<&Arc<ApiKey>> {
        self.api_keys.get(&id)
    }

    /// The imported key whose text has this digest.
    pub fn imported_key(&self, hash: &Hash) -> Option<&Arc<ApiKey>> {
        self.api_keys.get(self.imported_keys.get(hash)?)
    }

    pub fn api_keys(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
        self.api_keys.iter().map(|(_, key)| key)
    }

    /// Whether the member is a platform administrator: it holds everything, by a role in the active organization
    /// `platform`.
    pub fn is_platform_admin(&self, member: MemberId) -> bool {
        let Some(platform) = self.platform() else { return false };
        platform.is_active && platform.set_of(member).is_some_and(RoleSet::holds_everything)
    }

    /// Applies a change. It cannot fail, because changes are read from consistent rows.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Member(id, status) => {
                let former = self.people.get(&id).copied();
                let memberships = former.map_or(OrganizationCount::None, |state| state.memberships);
                self.erased -= usize::from(former.is_some_and(MemberState::is_erased));
                self.erased += usize::from(status == MemberStatus::Deleted);
                self.people.insert(id, MemberState { status, memberships });
            }
            Change::MemberDeleted(id) => {
                self.erased -= usize::from(self.people.get(&id).is_some_and(|state| state.is_erased()));
                self.people.remove(&id);
            }
            Change::OrganizationCount(id, ends) => {
                if let (Some(state), Some(memberships)) =
                    (self.people.get(&id).copied(), self.memberships_between(ends))
                {
                    self.people.insert(id, MemberState { memberships, ..state });
                }
            }
            Change::Tenant { id, org_code, is_active, requires_second_factor } => {
                self.apply_tenant(id, org_code, is_active, requires_second_factor);
            }
            Change::Membership(tenant, member, roles) => self.apply_membership(tenant, member, roles),
            Change::Role(tenant, role) => self.with_tenant(tenant, |tenant| tenant.put_role(role)),
            Change::RoleDeleted(tenant, role) => self.with_tenant(tenant, |tenant| tenant.drop_role(role)),
            Change::RoleSetsRecomputed(tenant) => self.with_tenant(tenant, Tenant::fold),
            Change::Plugins(tenant, bindings) => self.with_tenant(tenant, |tenant| tenant.replace_plugins(bindings)),
            Change::Catalog(catalog) => self.catalog = catalog,
            Change::Grant(key, Some(id)) => drop(self.grants.insert(key, id)),
            Change::Grant(key, None) => drop(self.grants.remove(&key)),
            Change::Client(client) => self.apply_client(client),
            Change::ClientDeleted(client_key) => drop(Arc::make_mut(&mut self.clients).remove(&client_key)),
            Change::Session(id, Some(session)) => drop(self.sessions.insert(id, session)),
            Change::Session(id, None) => drop(self.sessions.remove(&id)),
            Change::ApiKey(key) => self.apply_api_key(*key),
            Change::ApiKeyDeleted(id) => drop(self.drop_api_key(id)),
        }
    }

    fn apply_tenant(&mut self, id: OrganizationId, org_code: Arc<str>, is_active: bool, requires_second_factor: bool) {
        if let Some(index) = self.tenant_index.get(&id).copied() {
            if self.tenants[index as usize].org_code != org_code || self.org_codes.get(&org_code) != Some(&id) {
                let codes = Arc::make_mut(&mut self.org_codes);
                codes.retain(|_, named| *named != id);
                codes.insert(org_code.clone(), id);
            }
            if &*org_code == PLATFORM_ORG_CODE {
                self.platform = Some(index);
            }
            self.with_tenant(id, |tenant| {
                tenant.org_code = org_code;
                tenant.is_active = is_active;
                tenant.requires_second_factor = requires_second_factor;
            });
            return self.index_strict();
        }
        let index = u32::try_from(self.tenants.len()).unwrap_or(u32::MAX);
        if &*org_code == PLATFORM_ORG_CODE {
            self.platform = Some(index);
        }
        Arc::make_mut(&mut self.org_codes).insert(org_code.clone(), id);
        Arc::make_mut(&mut self.tenant_index).insert(id, index);
        Arc::make_mut(&mut self.tenants).push(Arc::new(Tenant {
            id,
            org_code,
            is_active,
            requires_second_factor,
            roles: Arc::default(),
            role_index: Arc::default(),
            sets: Arc::default(),
            memberships: CowMap::default(),
            plugins: Arc::default(),
        }));
        if requires_second_factor {
            self.index_strict();
        }
    }

    fn index_strict(&mut self) {
        let strict =
            (0..).zip(self.tenants.iter()).filter(|(_, tenant)| tenant.is_active && tenant.requires_second_factor);
        self.strict = Arc::new(strict.map(|(index, _)| index).collect());
    }

    fn apply_membership(&mut self, tenant: OrganizationId, member: MemberId, roles: Option<Vec<RoleId>>) {
        let Some(index) = self.tenant_index.get(&tenant).copied() else { return };
        let was_in = self.tenants[index as usize].memberships.get(&member).is_some();
        let is_in = roles.is_some();
        self.with_tenant(tenant, |tenant| tenant.membership(member, roles));
        if was_in == is_in {
            return;
        }
        let Some(mut state) = self.people.get(&member).copied() else { return };
        state.memberships = match (state.memberships, is_in) {
            (OrganizationCount::None, true) => OrganizationCount::One(index),
            (_, true) => OrganizationCount::Many,
            (OrganizationCount::One(_) | OrganizationCount::None, false) => OrganizationCount::None,
            (OrganizationCount::Many, false) => self.organization_count(member),
        };
        self.people.insert(member, state);
    }

    fn organization_count(&self, member: MemberId) -> OrganizationCount {
        let mut joined = (0..).zip(self.tenants.iter()).filter(|(_, tenant)| tenant.memberships.get(&member).is_some());
        match (joined.next(), joined.next()) {
            (None, _) => OrganizationCount::None,
            (Some((index, _)), None) => OrganizationCount::One(index),
            _ => OrganizationCount::Many,
        }
    }

    /// Keeps the counters of the former version, unless the rate limit was changed.
    fn apply_client(&mut self, mut client: Box<Client>) {
        let clients = Arc::make_mut(&mut self.clients);
        if let Some(former) = clients.get(&client.client_key)
            && former.rate_limit_per_min == client.rate_limit_per_min
        {
            client.counters = former.counters.clone();
        }
        clients.insert(client.client_key.clone(), Arc::from(client));
    }

    /// Keeps the counters of the former version.
    fn apply_api_key(&mut self, mut key: ApiKey) {
        if let Some(former) = self.drop_api_key(key.id) {
            key.counters = former.counters.clone();
        }
        if key.is_imported {
            // After a rotation the imported text is the former one.
            let imported = Arc::make_mut(&mut self.imported_keys);
            imported.extend(key.hashes().map(|hash| (hash, key.id)));
        }
        self.api_keys.insert(key.id, Arc::new(key));
    }

    fn drop_api_key(&mut self, id: ApiKeyId) -> Option<Arc<ApiKey>> {
        let key = self.api_keys.remove(&id)?;
        if key.is_imported {
            let imported = Arc::make_mut(&mut self.imported_keys);
            for hash in key.hashes() {
                imported.remove(&hash);
            }
        }
        Some(key)
    }

    fn with_tenant(&mut self, id: OrganizationId, change: impl FnOnce(&mut Tenant)) {
        if let Some(index) = self.tenant_index.get(&id) {
            change(Arc::make_mut(&mut Arc::make_mut(&mut self.tenants)[*index as usize]));
        }
    }

    /// A digest of everything that decisions depend on, for tests. Equal policies have equal digests, in any order of
    /// changes.
    #[cfg(test)]
    pub fn digest(&self) -> [u8; 32] {
        use super::catalog::PermissionIndex;
        let mut sum = [0u64; 4];
        let mut add = |text: String| {
            let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            for (total, part) in sum.iter_mut().zip(digest.chunks_exact(8)) {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(part);
                *total = total.wrapping_add(u64::from_le_bytes(bytes));
            }
        };
        for node in self.catalog.iter() {
            let organizations = self.catalog.organizations(&node.app);
            add(format!("node {node:?} {} {organizations:?}", self.catalog.is_open(node.slot)));
        }
        for (id, state) in self.people.iter() {
            let only = self.only_tenant(*id).map(|tenant| tenant.id);
            add(format!("member {id} {:?} {only:?}", state.status));
        }
        for tenant in self.tenants() {
            let Tenant { id, org_code, is_active, requires_second_factor, .. } = tenant;
            add(format!("tenant {id} {org_code} {is_active} {requires_second_factor}"));
            for role in tenant.roles.iter().flatten() {
                let ticked: Vec<PermissionIndex> = role.ticked.iter().collect();
                add(format!(
                    "role {} {} {} {} {:?} {ticked:?}",
                    tenant.id, role.id, role.key, role.is_open, role.holds
                ));
            }
            for (n, binding) in tenant.plugins.iter().enumerate() {
                add(format!("plugin {} {n} {}", tenant.id, binding.digest_input()));
            }
            for (member, _) in tenant.memberships.iter() {
                let mut roles: Vec<RoleId> = tenant.roles_of(*member).map(|role| role.id).collect();
                roles.sort_unstable();
                let set = tenant.set_of(*member);
                let ticked: Vec<PermissionIndex> = set.map(|set| set.ticked.iter().collect()).unwrap_or_default();
                add(format!(
                    "membership {} {member} {roles:?} {ticked:?} {:?}",
                    tenant.id,
                    set.map(|s| (s.holds_tenant, s.holds_everything))
                ));
            }
        }
        for (key, id) in self.grants.iter() {
            add(format!("grant {key:?} {id}"));
        }
        self.clients().for_each(|client| add(client.digest_input()));
        for (id, session) in self.sessions.iter() {
            add(format!("session {id} {session:?}"));
        }
        for key in self.api_keys() {
            add(key.digest_input());
        }
        let mut digest = [0; 32];
        for (part, total) in digest.chunks_exact_mut(8).zip(sum) {
            part.copy_from_slice(&total.to_le_bytes());
        }
        digest
    }
}
