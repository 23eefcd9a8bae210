//! SQL that reads the policy rows as [`Change`]s: all at start, single ones after a change. Writes nothing.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::catalog::{Catalog, Node, PermissionIndex, PermissionSet, UserType};
use super::client::{Client, Counters};
use super::deferred_grant::Grantor;
use super::delegation::RightRow;
use super::key::{self, ApiKey, Owner};
use super::plugin::{Activation, Binding, Mode, RunState};
use super::snapshot::{Change, MemberStatus, Right, Role, RoleKind, Session, Snapshot};
use crate::kernel::config;
use crate::kernel::db::{Reader, sql};
use crate::kernel::encryption::{Encryption, KeyId, SecretLocation};
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::{ApiKeyId, GrantId, MemberId, OrganizationId, RoleId, Timestamp};
use crate::kernel::secret::Hash;

const EPOCH: &str = "select epoch from site where only = 1";

/// The epoch of the rows; 0 if there is none.
pub fn epoch(r: &Reader<'_>) -> Result<u64> {
    r.find(EPOCH, &[], |row| row.get::<_, i64>(0)).map(|epoch| epoch.and_then(|e| u64::try_from(e).ok()).unwrap_or(0))
}

/// Builds the snapshot from all rows.
pub fn load(r: &Reader<'_>) -> Result<Snapshot> {
    let mut snapshot = Snapshot::empty(epoch(r)?);
    snapshot.apply(catalog(r)?);
    member_states(r, &mut snapshot)?;
    tenants(r, &mut snapshot)?;
    roles(r, &mut snapshot)?;
    memberships(r, &mut snapshot)?;
    grants(r, &mut snapshot)?;
    clients(r, &mut snapshot)?;
    sessions(r, &mut snapshot)?;
    api_keys(r, &mut snapshot)?;
    all_plugins(r, &mut snapshot)?;
    Ok(snapshot)
}

const LIST_PERMISSIONS: &str = "
    select slot, name, app, parent_slot, http_methods, http_path, status = 'open', type = 'frontend_user', orphaned,
           position
    from permissions
    order by slot";

/// The current catalog.
pub fn catalog(r: &Reader<'_>) -> Result<Change> {
    let nodes = r.all(LIST_PERMISSIONS, &[], |row| {
        Ok(Node {
            slot: row.get(0)?,
            name: row.get::<_, String>(1)?.into(),
            app: row.get::<_, String>(2)?.into(),
            parent: row.get(3)?,
            http_methods: row.get::<_, Option<String>>(4)?.map(Into::into),
            http_path: row.get::<_, Option<String>>(5)?.map(Into::into),
            is_open: row.get(6)?,
            user_type: if row.get(7)? { UserType::Frontend } else { UserType::Backend },
            orphaned: row.get(8)?,
            position: row.get(9)?,
        })
    })?;
    let mut organizations: HashMap<Arc<str>, Vec<OrganizationId>> = HashMap::new();
    each(r, LIST_APP_ORGANIZATIONS, |row| {
        organizations.entry(row.get::<_, String>(0)?.into()).or_default().push(row.get(1)?);
        Ok(())
    })?;
    Ok(Change::Catalog(Arc::new(Catalog::build(nodes).reserved(organizations))))
}

const LIST_APP_ORGANIZATIONS: &str =
    "select app, organization_id from catalog_organizations order by app, organization_id";

const LIST_MEMBER_STATES: &str = "select id, status from members";

fn member_states(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    each(r, LIST_MEMBER_STATES, |row| {
        snapshot.apply(Change::Member(row.get(0)?, row.get(1)?));
        Ok(())
    })
}

const FIND_MEMBER_STATE: &str = "select status from members where id = :id";

pub fn member_state(r: &Reader<'_>, id: MemberId) -> Result<Change> {
    find_member_state(r, id)?.ok_or_else(|| missing(FIND_MEMBER_STATE))
}

pub fn find_member_state(r: &Reader<'_>, id: MemberId) -> Result<Option<Change>> {
    r.find(FIND_MEMBER_STATE, &[(":id", &id)], |row| Ok(Change::Member(id, row.get(0)?)))
}

impl FromSql for MemberStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

const LIST_TENANTS: &str =
    "select id, org_code, status = 'active', second_factor_required from organizations order by id";
const FIND_TENANT: &str =
    "select id, org_code, status = 'active', second_factor_required from organizations where id = :id";

/// The current row of an organization.
pub fn tenant(r: &Reader<'_>, id: OrganizationId) -> Result<Change> {
    find_tenant(r, id)?.ok_or_else(|| missing(FIND_TENANT))
}

pub fn find_tenant(r: &Reader<'_>, id: OrganizationId) -> Result<Option<Change>> {
    r.find(FIND_TENANT, &[(":id", &id)], tenant_of)
}

pub fn tenant_of(row: &Row<'_>) -> rusqlite::Result<Change> {
    Ok(Change::Tenant {
        id: row.get(0)?,
        org_code: row.get::<_, String>(1)?.into(),
        is_active: row.get(2)?,
        requires_second_factor: row.get(3)?,
    })
}

fn tenants(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    each(r, LIST_TENANTS, |row| {
        snapshot.apply(tenant_of(row)?);
        Ok(())
    })
}

const LIST_ROLES: &str = "
    select organization_id, id, key, status = 'open', holds
    from roles
    order by organization_id, id";
const LIST_TICKS: &str = "select permission_slot from role_permissions where role_id = :role_id";

fn roles(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    let rows = r.all(LIST_ROLES, &[], |row| Ok((row.get(0)?, role_of(row, 1)?)))?;
    for (organization, role) in rows {
        let change = Change::Role(organization, Role { ticked: Arc::new(ticks(r, role.id)?), ..role });
        snapshot.apply(change);
    }
    Ok(())
}

/// The ticked permissions of a role, without the implied ancestors.
pub fn ticks(r: &Reader<'_>, role: RoleId) -> Result<PermissionSet> {
    Ok(r.all(LIST_TICKS, &[(":role_id", &role)], |row| row.get::<_, PermissionIndex>(0))?.into_iter().collect())
}

const FIND_ROLE: &str =
    "select id, key, status = 'open', holds from roles where organization_id = :organization_id and id = :id";

pub fn role(r: &Reader<'_>, organization: OrganizationId, id: RoleId) -> Result<Change> {
    find_role(r, organization, id)?.ok_or_else(|| missing(FIND_ROLE))
}

pub fn find_role(r: &Reader<'_>, organization: OrganizationId, id: RoleId) -> Result<Option<Change>> {
    let found = r.find(FIND_ROLE, &[(":organization_id", &organization), (":id", &id)], |row| role_of(row, 0))?;
    let Some(role) = found else { return Ok(None) };
    Ok(Some(Change::Role(organization, Role { ticked: Arc::new(ticks(r, id)?), ..role })))
}

impl FromSql for RoleKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

pub fn role_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Role> {
    Ok(Role {
        id: row.get(first)?,
        key: row.get::<_, String>(first + 1)?.into(),
        is_open: row.get(first + 2)?,
        holds: row.get(first + 3)?,
        ticked: Arc::default(),
    })
}

const LIST_MEMBERSHIPS: &str = "
    select m.organization_id, m.member_id, a.role_id
    from memberships m
    left join role_assignments a on a.organization_id = m.organization_id and a.member_id = m.member_id
    order by m.organization_id, m.member_id";

fn memberships(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    let mut current: Option<(OrganizationId, MemberId, Vec<RoleId>)> = None;
    each(r, LIST_MEMBERSHIPS, |row| {
        let (organization, member): (OrganizationId, MemberId) = (row.get(0)?, row.get(1)?);
        let role: Option<RoleId> = row.get(2)?;
        match &mut current {
            Some((o, m, roles)) if *o == organization && *m == member => roles.extend(role),
            other => {
                if let Some((o, m, roles)) = other.replace((organization, member, role.into_iter().collect())) {
                    snapshot.apply(Change::Membership(o, m, Some(roles)));
                }
            }
        }
        Ok(())
    })?;
    if let Some((organization, member, roles)) = current {
        snapshot.apply(Change::Membership(organization, member, Some(roles)));
    }
    Ok(())
}

const FIND_MEMBERSHIP: &str = "
    select 1
    from memberships
    where organization_id = :organization_id and member_id = :member_id";
const LIST_MEMBERSHIP_ROLES: &str = "
    select distinct role_id
    from role_assignments
    where organization_id = :organization_id and member_id = :member_id";

/// The current membership of a member in an organization.
pub fn membership(r: &Reader<'_>, organization: OrganizationId, member: MemberId) -> Result<Change> {
    let parameters: crate::kernel::db::sql::Parameters<'_> =
        &[(":organization_id", &organization), (":member_id", &member)];
    let roles = match r.find(FIND_MEMBERSHIP, parameters, |_| Ok(()))? {
        Some(()) => Some(r.all(LIST_MEMBERSHIP_ROLES, parameters, |row| row.get(0))?),
        None => None,
    };
    Ok(Change::Membership(organization, member, roles))
}

const LIST_GRANTS: &str = "select id, member_id, scope_type, scope_id, module, action from grants";

fn grants(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    each(r, LIST_GRANTS, |row| {
        snapshot.apply(grant_of(row)?);
        Ok(())
    })
}

pub fn grant_of(row: &Row<'_>) -> rusqlite::Result<Change> {
    let id: GrantId = row.get(0)?;
    let right = Right {
        scope_type: row.get_ref(2)?.as_str()?,
        scope_id: row.get_ref(3)?.as_str()?,
        module: row.get_ref(4)?.as_str()?,
        action: row.get_ref(5)?.as_str()?,
    };
    Ok(Change::Grant(right.key(row.get(1)?), Some(id)))
}

const LIST_RIGHTS_OF: &str = "select scope_type, scope_id, module, action from grants where member_id = :member_id";

/// A member's direct rights.
pub fn rights_of(r: &Reader<'_>, member: MemberId) -> Result<Vec<RightRow>> {
    r.all(LIST_RIGHTS_OF, &[(":member_id", &member)], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))
}

const LIST_CLIENTS: &str = "
    select client_key, status = 'active', api_key_hash, previous_hash, previous_expires_at, scopes, allowed_origins,
           allowed_ips, allowed_paths, rate_limit_per_min, expires_at, maker
    from api_clients";
const FIND_CLIENT: &str = "
    select client_key, status = 'active', api_key_hash, previous_hash, previous_expires_at, scopes, allowed_origins,
           allowed_ips, allowed_paths, rate_limit_per_min, expires_at, maker
    from api_clients
    where client_key = :client_key";

fn clients(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    each(r, LIST_CLIENTS, |row| {
        snapshot.apply(Change::Client(Box::new(client_of(row)?)));
        Ok(())
    })
}

pub fn client(r: &Reader<'_>, client_key: &str) -> Result<Change> {
    find_client(r, client_key)?.ok_or_else(|| missing(FIND_CLIENT))
}

pub fn find_client(r: &Reader<'_>, client_key: &str) -> Result<Option<Change>> {
    r.find(FIND_CLIENT, &[(":client_key", &client_key)], |row| client_of(row).map(Box::new).map(Change::Client))
}

pub fn client_of(row: &Row<'_>) -> rusqlite::Result<Client> {
    let former: Option<Hash> = row.get(3)?;
    let until: Option<Timestamp> = row.get(4)?;
    let rate_limit_per_min = row.get::<_, Option<u32>>(9)?.and_then(NonZeroU32::new);
    Ok(Client {
        client_key: row.get::<_, String>(0)?.into(),
        is_active: row.get(1)?,
        hash: row.get(2)?,
        previous: former.zip(until),
        scopes: sql::json::<Vec<String>>(row, 5)?.into_iter().map(Into::into).collect(),
        allowed_origins: sql::json(row, 6)?,
        allowed_ips: sql::json::<Vec<String>>(row, 7)?.iter().filter_map(|text| config::network(text)).collect(),
        allowed_paths: sql::json(row, 8)?,
        rate_limit_per_min,
        expires_at: row.get(10)?,
        maker: Grantor::parse(row.get::<_, Option<String>>(11)?.as_deref()),
        counters: Arc::new(Counters::new(rate_limit_per_min)),
    })
}

const LIST_SESSIONS: &str = "select id, member_id, second_factor from sessions";

fn sessions(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    each(r, LIST_SESSIONS, |row| {
        snapshot.apply(session_of(row)?);
        Ok(())
    })
}

pub fn session_of(row: &Row<'_>) -> rusqlite::Result<Change> {
    let session = Session { member: row.get(1)?, second_factor: row.get(2)? };
    Ok(Change::Session(row.get(0)?, Some(session)))
}

const LIST_API_KEYS: &str = "
    select id, type, member_id, service_name, hash, previous_hash, previous_expires_at, scopes, expires_at,
           spent_at is not null, is_imported, maker
    from api_keys";
const FIND_API_KEY: &str = "
    select id, type, member_id, service_name, hash, previous_hash, previous_expires_at, scopes, expires_at,
           spent_at is not null, is_imported, maker
    from api_keys
    where id = :id";

fn api_keys(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    each(r, LIST_API_KEYS, |row| {
        snapshot.apply(Change::ApiKey(Box::new(api_key_of(row)?)));
        Ok(())
    })
}

/// The current row of an API key.
pub fn api_key(r: &Reader<'_>, id: ApiKeyId) -> Result<Change> {
    find_api_key(r, id)?.ok_or_else(|| missing(FIND_API_KEY))
}

pub fn find_api_key(r: &Reader<'_>, id: ApiKeyId) -> Result<Option<Change>> {
    r.find(FIND_API_KEY, &[(":id", &id)], |row| api_key_of(row).map(Box::new).map(Change::ApiKey))
}

pub fn api_key_of(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let member: Option<MemberId> = row.get(2)?;
    let service: Option<String> = row.get(3)?;
    let former: Option<Hash> = row.get(5)?;
    let until: Option<Timestamp> = row.get(6)?;
    Ok(ApiKey {
        id: row.get(0)?,
        is_emergency: row.get_ref(1)?.as_str()? == key::EMERGENCY.prefix,
        owner: member.map_or_else(|| Owner::Service(service.unwrap_or_default().into()), Owner::Member),
        hash: row.get(4)?,
        previous: former.zip(until),
        scopes: sql::json::<Vec<String>>(row, 7)?.into_iter().map(Into::into).collect(),
        expires_at: row.get(8)?,
        is_spent: row.get(9)?,
        is_imported: row.get(10)?,
        maker: match (member, row.get::<_, Option<String>>(11)?) {
            (Some(id), None) => Grantor::Member(id),
            (_, text) => Grantor::parse(text.as_deref()),
        },
        counters: Arc::default(),
    })
}

const LIST_BOUND: &str = "
    select distinct organization_id from plugins where enforced is not null or shadow is not null";
const LIST_BINDINGS: &str = "
    select p.id, p.name, 1, p.enforced, v.sha256, v.exports, v.is_large, v.quarantined_at is not null
    from plugins p
    join plugin_versions v on v.plugin_id = p.id and v.version = p.enforced ->> '$.version'
    where p.organization_id = :organization_id
    union all
    select p.id, p.name, 0, p.shadow, v.sha256, v.exports, v.is_large, v.quarantined_at is not null
    from plugins p
    join plugin_versions v on v.plugin_id = p.id and v.version = p.shadow ->> '$.version'
    where p.organization_id = :organization_id";

fn all_plugins(r: &Reader<'_>, snapshot: &mut Snapshot) -> Result<()> {
    let organizations: Vec<OrganizationId> = r.all(LIST_BOUND, &[], |row| row.get(0))?;
    organizations.into_iter().try_for_each(|organization| {
        snapshot.apply(plugins(r, organization)?);
        Ok(())
    })
}

/// The active plugins of an organization, in the order of activation.
pub fn plugins(r: &Reader<'_>, organization: OrganizationId) -> Result<Change> {
    let mut bound: Vec<Binding> = r.all(LIST_BINDINGS, &[(":organization_id", &organization)], |row| {
        let activation: Activation = sql::json(row, 3)?;
        Ok(Binding {
            plugin: row.get(0)?,
            name: row.get::<_, String>(1)?.into(),
            version: activation.version,
            sha256: row.get(4)?,
            mode: if row.get(2)? { Mode::Enforce } else { Mode::Shadow },
            exports: sql::json(row, 5)?,
            may_grant: activation.may_grant,
            filter: Arc::new(activation.filter),
            deadline_ms: activation.deadline_ms,
            is_large: row.get(6)?,
            since: activation.since,
            run_state: Arc::new(RunState::new(row.get(7)?)),
        })
    })?;
    bound.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
    Ok(Change::Plugins(organization, bound))
}

const ENCRYPTION_KEY: &str = "select encryption_key_id from site where only = 1";

/// The id of the key that secrets are currently encrypted with.
pub fn encryption_key(r: &Reader<'_>) -> Result<KeyId> {
    let id: Option<String> = r.one(ENCRYPTION_KEY, &[], |row| row.get(0))?;
    id.ok_or_else(|| Error::internal("the database has no encryption key id"))?.parse()
}

/// Encrypts a secret for storage.
pub fn encrypt(r: &Reader<'_>, encryption: &Encryption, location: SecretLocation<'_>, clear: &[u8]) -> Result<Vec<u8>> {
    encryption.encrypt(encryption_key(r)?, location, clear)
}

/// The internal error for a required row that is missing.
fn missing(statement: &str) -> Error {
    Error::internal(format!("no row from: {statement}"))
}

/// Visits rows one by one, without collecting them.
fn each(r: &Reader<'_>, statement: &str, mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<()>) -> Result<()> {
    let mut prepared = r.connection.prepare_cached(statement).map_err(sql::from_sqlite)?;
    let mut rows = prepared.query([]).map_err(sql::from_sqlite)?;
    while let Some(row) = rows.next().map_err(sql::from_sqlite)? {
        visit(row).map_err(|e| Error::internal(format!("a row cannot be read: {e}: {statement}")))?;
    }
    Ok(())
}
