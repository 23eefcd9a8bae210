//! All that decides, in memory: one immutable value that is swapped as a whole.
//!
//! **Invariant.** A snapshot is exactly one epoch. It is built by applying [`Change`]s, the first one to an empty
//! snapshot at start, the others one by one as they are made: there is no second way to build it.
//!
//! Real sites have few distinct combinations of roles, so a member points to an interned *role set*, which owns the
//! union of its roles' permissions: a check is one bit of one set.

pub mod differ;
pub mod tenant;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use differ::{Part, RowLocation};
pub use tenant::{Holds, Role, RoleSet, Tenant};

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

/// A direct grant as a key: a digest of member and right.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Active,
    Suspended,
    Deleted,
}

/// What is known of a member wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberState {
    pub status: Status,
    memberships: OrganizationCount,
}

/// A sign-in that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub member: MemberId,
    /// Was a second factor shown?
    pub second_factor: bool,
}

impl MemberState {
    fn is_erased(self) -> bool {
        self.status == Status::Deleted
    }
}

/// In which organizations a member is, as far as "the only one" goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrganizationCount {
    None,
    /// An index into the tenants.
    One(u32),
    Many,
}

/// One fact that changed, with all that a snapshot has to know of it.
pub enum Change {
    Member(MemberId, Status),
    /// Who never was anybody: no seat, no session, no grant.
    MemberGone(MemberId),
    /// The first and the last organization that a member is in: what follows from its seats, said again.
    Placed(MemberId, Option<(OrganizationId, OrganizationId)>),
    Tenant {
        id: OrganizationId,
        org_code: Arc<str>,
        is_active: bool,
        requires_second_factor: bool,
    },
    /// The roles a member holds in an organization; `None` when it does not belong to it.
    Membership(OrganizationId, MemberId, Option<Vec<RoleId>>),
    Role(OrganizationId, Role),
    RoleGone(OrganizationId, RoleId),
    /// What combinations of an organization's roles hold: what follows from its roles, computed again.
    Folded(OrganizationId),
    /// All plugins of an organization that are in force or watched, in the order in which they are asked.
    Plugins(OrganizationId, Vec<Binding>),
    Catalog(Arc<Catalog>),
    Grant(GrantKey, Option<GrantId>),
    Client(Box<Client>),
    ClientGone(Arc<str>),
    /// `None` when it ended.
    Session(SessionId, Option<Session>),
    ApiKey(Box<ApiKey>),
    ApiKeyGone(ApiKeyId),
}

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
    /// How many of them were erased.
    erased: usize,
    grants: CowMap<GrantKey, GrantId>,
    clients: Arc<HashMap<Arc<str>, Arc<Client>>>,
    sessions: CowMap<SessionId, Session>,
    /// Indexes of the tenants that require a second factor: few, and asked in every request.
    strict: Arc<Vec<u32>>,
    api_keys: CowMap<ApiKeyId, Arc<ApiKey>>,
    /// Keys that were made elsewhere, and so do not say their id.
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

    /// Is there a policy at all? Epoch 0 is none: everything is denied.
    pub fn is_available(&self) -> bool {
        self.epoch > 0
    }

    pub fn tenant(&self, id: OrganizationId) -> Option<&Tenant> {
        self.tenant_index.get(&id).map(|index| &*self.tenants[*index as usize])
    }

    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().map(|tenant| &**tenant)
    }

    /// The organization of an id or an `org_code`.
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

    /// Is this a member of today, who may do anything at all?
    pub fn is_active(&self, member: MemberId) -> bool {
        self.member_state(member).is_some_and(|person| person.status == Status::Active)
    }

    pub fn member_states(&self) -> usize {
        self.people.len()
    }

    /// Those who were not erased.
    pub fn members(&self) -> usize {
        self.people.len() - self.erased
    }

    pub fn grants(&self) -> usize {
        self.grants.len()
    }

    /// The member's one organization, when there is exactly one.
    pub fn only_tenant(&self, member: MemberId) -> Option<&Tenant> {
        match self.people.get(&member)?.memberships {
            OrganizationCount::One(index) => self.tenants.get(index as usize).map(|tenant| &**tenant),
            OrganizationCount::None | OrganizationCount::Many => None,
        }
    }

    /// All organizations that the member belongs to.
    pub fn tenants_of(&self, member: MemberId) -> impl Iterator<Item = &Tenant> {
        let only = self.only_tenant(member);
        let has_many = self.people.get(&member).is_some_and(|person| person.memberships == OrganizationCount::Many);
        let many = has_many.then(|| self.tenants().filter(move |tenant| tenant.set_of(member).is_some()));
        only.into_iter().chain(many.into_iter().flatten())
    }

    pub fn belongs_nowhere(&self, member: MemberId) -> bool {
        self.people.get(&member).is_none_or(|person| person.memberships == OrganizationCount::None)
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

    /// Does some active organization of the member's require a second factor?
    pub fn requires_second_factor(&self, member: MemberId) -> bool {
        self.strict.iter().any(|index| self.tenants[*index as usize].memberships.get(&member).is_some())
    }

    pub fn api_key(&self, id: ApiKeyId) -> Option<&Arc<ApiKey>> {
        self.api_keys.get(&id)
    }

    /// The key whose whole text has this digest, for keys that were made elsewhere.
    pub fn imported_key(&self, hash: &Hash) -> Option<&Arc<ApiKey>> {
        self.api_keys.get(self.imported_keys.get(hash)?)
    }

    pub fn api_keys(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
        self.api_keys.iter().map(|(_, key)| key)
    }

    /// Does the member hold everything there is, by the organization `platform`?
    pub fn is_platform_admin(&self, member: MemberId) -> bool {
        let Some(platform) = self.platform() else { return false };
        platform.is_active && platform.set_of(member).is_some_and(RoleSet::holds_everything)
    }

    /// Applies a change. It cannot fail: what is applied was read from rows that hold together.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Member(id, status) => {
                let former = self.people.get(&id).copied();
                let memberships = former.map_or(OrganizationCount::None, |person| person.memberships);
                self.erased -= usize::from(former.is_some_and(MemberState::is_erased));
                self.erased += usize::from(status == Status::Deleted);
                self.people.insert(id, MemberState { status, memberships });
            }
            Change::MemberGone(id) => {
                self.erased -= usize::from(self.people.get(&id).is_some_and(|person| person.is_erased()));
                self.people.remove(&id);
            }
            Change::Placed(id, ends) => {
                if let (Some(person), Some(memberships)) =
                    (self.people.get(&id).copied(), self.memberships_between(ends))
                {
                    self.people.insert(id, MemberState { memberships, ..person });
                }
            }
            Change::Tenant { id, org_code, is_active, requires_second_factor } => {
                self.apply_tenant(id, org_code, is_active, requires_second_factor);
            }
            Change::Membership(tenant, member, roles) => self.apply_membership(tenant, member, roles),
            Change::Role(tenant, role) => self.with_tenant(tenant, |tenant| tenant.put_role(role)),
            Change::RoleGone(tenant, role) => self.with_tenant(tenant, |tenant| tenant.drop_role(role)),
            Change::Folded(tenant) => self.with_tenant(tenant, Tenant::fold),
            Change::Plugins(tenant, bindings) => self.with_tenant(tenant, |tenant| tenant.bind(bindings)),
            Change::Catalog(catalog) => self.catalog = catalog,
            Change::Grant(key, Some(id)) => drop(self.grants.insert(key, id)),
            Change::Grant(key, None) => drop(self.grants.remove(&key)),
            Change::Client(client) => self.apply_client(client),
            Change::ClientGone(client_key) => drop(Arc::make_mut(&mut self.clients).remove(&client_key)),
            Change::Session(id, Some(session)) => drop(self.sessions.insert(id, session)),
            Change::Session(id, None) => drop(self.sessions.remove(&id)),
            Change::ApiKey(key) => self.apply_api_key(*key),
            Change::ApiKeyGone(id) => drop(self.drop_api_key(id)),
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
            return self.find_strict();
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
            self.find_strict();
        }
    }

    fn find_strict(&mut self) {
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
        let Some(mut person) = self.people.get(&member).copied() else { return };
        person.memberships = match (person.memberships, is_in) {
            (OrganizationCount::None, true) => OrganizationCount::One(index),
            (_, true) => OrganizationCount::Many,
            (OrganizationCount::One(_) | OrganizationCount::None, false) => OrganizationCount::None,
            (OrganizationCount::Many, false) => self.organization_count(member),
        };
        self.people.insert(member, person);
    }

    fn organization_count(&self, member: MemberId) -> OrganizationCount {
        let mut held = (0..).zip(self.tenants.iter()).filter(|(_, tenant)| tenant.memberships.get(&member).is_some());
        match (held.next(), held.next()) {
            (None, _) => OrganizationCount::None,
            (Some((index, _)), None) => OrganizationCount::One(index),
            _ => OrganizationCount::Many,
        }
    }

    /// Counters outlive an edit, unless the rate itself was edited.
    fn apply_client(&mut self, mut client: Box<Client>) {
        let clients = Arc::make_mut(&mut self.clients);
        if let Some(former) = clients.get(&client.client_key)
            && former.rate_limit_per_min == client.rate_limit_per_min
        {
            client.counters = former.counters.clone();
        }
        clients.insert(client.client_key.clone(), Arc::from(client));
    }

    /// Counters outlive an edit, as a client's do.
    fn apply_api_key(&mut self, mut key: ApiKey) {
        if let Some(former) = self.drop_api_key(key.id) {
            key.counters = former.counters.clone();
        }
        if key.is_imported {
            // Rotated, the text that was made elsewhere is the former one.
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

    /// A digest of all that decides, for tests, whatever the order it was built in: equal policies, equal digests.
    #[cfg(test)]
    pub fn digest(&self) -> [u8; 32] {
        use super::catalog::PermissionIndex;
        let mut sum = [0u64; 4];
        let mut fact = |text: String| {
            let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            for (total, part) in sum.iter_mut().zip(digest.chunks_exact(8)) {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(part);
                *total = total.wrapping_add(u64::from_le_bytes(bytes));
            }
        };
        for node in self.catalog.iter() {
            let organizations = self.catalog.organizations(&node.app);
            fact(format!("node {node:?} {} {organizations:?}", self.catalog.is_open(node.slot)));
        }
        for (id, person) in self.people.iter() {
            let only = self.only_tenant(*id).map(|tenant| tenant.id);
            fact(format!("person {id} {:?} {only:?}", person.status));
        }
        for tenant in self.tenants() {
            let Tenant { id, org_code, is_active, requires_second_factor, .. } = tenant;
            fact(format!("tenant {id} {org_code} {is_active} {requires_second_factor}"));
            for role in tenant.roles.iter().flatten() {
                let ticked: Vec<PermissionIndex> = role.ticked.iter().collect();
                fact(format!(
                    "role {} {} {} {} {:?} {ticked:?}",
                    tenant.id, role.id, role.key, role.is_open, role.holds
                ));
            }
            for (n, binding) in tenant.plugins.iter().enumerate() {
                fact(format!("plugin {} {n} {}", tenant.id, binding.digest_input()));
            }
            for (member, _) in tenant.memberships.iter() {
                let mut roles: Vec<RoleId> = tenant.roles_of(*member).map(|role| role.id).collect();
                roles.sort_unstable();
                let set = tenant.set_of(*member);
                let ticked: Vec<PermissionIndex> = set.map(|set| set.ticked.iter().collect()).unwrap_or_default();
                fact(format!(
                    "seat {} {member} {roles:?} {ticked:?} {:?}",
                    tenant.id,
                    set.map(|s| (s.holds_tenant, s.holds_everything))
                ));
            }
        }
        for (key, id) in self.grants.iter() {
            fact(format!("grant {key:?} {id}"));
        }
        self.clients().for_each(|client| fact(client.digest_input()));
        for (id, session) in self.sessions.iter() {
            fact(format!("session {id} {session:?}"));
        }
        for key in self.api_keys() {
            fact(key.digest_input());
        }
        let mut digest = [0; 32];
        for (part, total) in digest.chunks_exact_mut(8).zip(sum) {
            part.copy_from_slice(&total.to_le_bytes());
        }
        digest
    }
}
