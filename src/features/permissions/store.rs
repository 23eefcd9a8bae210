//! SQL of roles, their permissions, assignments, mappings and catalog rows.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::role_claims::normalized;
use super::{Assignment, Mapping, RoleRecord, Source};
use crate::kernel::authz::catalog::{PermissionIndex, UserType};
use crate::kernel::authz::snapshot::RoleKind;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{AssignmentId, MappingId, MemberId, OrganizationId, RoleId};

// ── roles ──

const LIST_ROLES: &str = "
    select id, organization_id, key, display_name, creator_id, status = 'open', is_system, version, permissions_version,
           created_at, updated_at
    from roles
    where organization_id = :organization_id
    order by is_system desc, key";

pub fn list_roles(r: &Reader<'_>, organization: OrganizationId) -> Result<Vec<RoleRecord>> {
    r.all(LIST_ROLES, &[(":organization_id", &organization)], role_of)
}

const FIND_ROLE: &str = "
    select id, organization_id, key, display_name, creator_id, status = 'open', is_system, version, permissions_version,
           created_at, updated_at
    from roles
    where organization_id = :organization_id and id = :id";

pub fn get_role(r: &Reader<'_>, organization: OrganizationId, id: RoleId) -> Result<RoleRecord> {
    let found = r.find(FIND_ROLE, &[(":organization_id", &organization), (":id", &id)], role_of)?;
    found.ok_or_else(|| ErrorCode::RoleNotFound.into())
}

const FIND_ROLE_BY_KEY: &str = "
    select id, organization_id, key, display_name, creator_id, status = 'open', is_system, version, permissions_version,
           created_at, updated_at
    from roles
    where organization_id = :organization_id and key = :key";

pub fn find_role_by_key(r: &Reader<'_>, organization: OrganizationId, key: &str) -> Result<Option<RoleRecord>> {
    r.find(FIND_ROLE_BY_KEY, &[(":organization_id", &organization), (":key", &key)], role_of)
}

fn role_of(row: &Row<'_>) -> rusqlite::Result<RoleRecord> {
    Ok(RoleRecord {
        id: row.get(0)?,
        organization: row.get(1)?,
        key: row.get(2)?,
        display_name: row.get(3)?,
        creator: row.get(4)?,
        is_open: row.get(5)?,
        is_system: row.get(6)?,
        version: row.get(7)?,
        permissions_version: row.get(8)?,
        created_at: row.get(9)?,
        updated_at: row.get(10)?,
    })
}

const COUNT_ROLES: &str = "select count(*) from roles where organization_id = :organization_id";

pub fn count_roles(r: &Reader<'_>, organization: OrganizationId) -> Result<u64> {
    r.one(COUNT_ROLES, &[(":organization_id", &organization)], count)
}

const INSERT_ROLE: &str = "
    insert into roles (id, organization_id, key, display_name, creator_id, status, is_system, holds, created_at, updated_at)
    values (:id, :organization_id, :key, :display_name, :creator_id, :status, :is_system, :holds, :now, :now)";

pub fn insert_role(w: &Writer<'_>, role: &RoleRecord, holds: RoleKind) -> Result<()> {
    w.insert(
        INSERT_ROLE,
        &[
            (":id", &role.id),
            (":organization_id", &role.organization),
            (":key", &role.key),
            (":display_name", &role.display_name),
            (":creator_id", &role.creator),
            (":status", &status(role.is_open)),
            (":is_system", &role.is_system),
            (":holds", &holds.as_str()),
            (":now", &w.now()),
        ],
        &[("roles.key", ErrorCode::RoleExists)],
    )
}

pub fn status(is_open: bool) -> &'static str {
    if is_open { "open" } else { "close" }
}

const UPDATE_ROLE: &str = "
    update roles
    set display_name = :display_name, status = :status, version = version + 1, updated_at = :now
    where organization_id = :organization_id and id = :id";

pub fn update_role(w: &Writer<'_>, role: &RoleRecord) -> Result<()> {
    w.execute(
        UPDATE_ROLE,
        &[
            (":display_name", &role.display_name),
            (":status", &status(role.is_open)),
            (":now", &w.now()),
            (":organization_id", &role.organization),
            (":id", &role.id),
        ],
    )
    .map(drop)
}

const ROLE_IS_USED: &str = "
    select exists (select 1 from role_assignments where role_id = :id)
        or exists (select 1 from role_mappings where role_id = :id)";

pub fn role_is_used(r: &Reader<'_>, id: RoleId) -> Result<bool> {
    r.one(ROLE_IS_USED, &[(":id", &id)], |row| row.get(0))
}

const DELETE_TICKS: &str = "delete from role_permissions where role_id = :role_id";
const DELETE_ROLE: &str = "delete from roles where organization_id = :organization_id and id = :id";

pub fn delete_role(w: &Writer<'_>, role: &RoleRecord) -> Result<()> {
    w.execute(DELETE_TICKS, &[(":role_id", &role.id)])?;
    w.execute(DELETE_ROLE, &[(":organization_id", &role.organization), (":id", &role.id)]).map(drop)
}

const INSERT_TICK: &str = "
    insert into role_permissions (role_id, permission_slot)
    values (:role_id, :slot)
    on conflict (role_id, permission_slot) do nothing";
const TOUCH_TICKS: &str = "
    update roles
    set permissions_version = permissions_version + 1, updated_at = :now
    where id = :id";

pub fn replace_role_permissions(w: &Writer<'_>, role: RoleId, slots: &[PermissionIndex]) -> Result<()> {
    w.execute(DELETE_TICKS, &[(":role_id", &role)])?;
    for slot in slots {
        insert_role_permission(w, role, *slot)?;
    }
    w.execute(TOUCH_TICKS, &[(":now", &w.now()), (":id", &role)]).map(drop)
}

pub fn insert_role_permission(w: &Writer<'_>, role: RoleId, slot: PermissionIndex) -> Result<()> {
    w.execute(INSERT_TICK, &[(":role_id", &role), (":slot", &slot)]).map(drop)
}

const LIST_SYSTEM_ROLES: &str = "select organization_id, id from roles where key = :key and is_system = 1";

/// Returns the system roles with this key in all organizations.
pub fn list_system_roles(r: &Reader<'_>, key: &str) -> Result<Vec<(OrganizationId, RoleId)>> {
    r.all(LIST_SYSTEM_ROLES, &[(":key", &key)], |row| Ok((row.get(0)?, row.get(1)?)))
}

// ── assignments ──

impl FromSql for Source {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

const LIST_ASSIGNMENTS: &str = "
    select a.id, a.organization_id, a.member_id, a.role_id, r.key, r.display_name, a.source, a.created_at, a.updated_at
    from role_assignments a
    join roles r on r.id = a.role_id
    where a.organization_id = :organization_id and a.member_id = :member_id
    order by r.key, a.source";

pub fn list_assignments(r: &Reader<'_>, organization: OrganizationId, member: MemberId) -> Result<Vec<Assignment>> {
    r.all(LIST_ASSIGNMENTS, &[(":organization_id", &organization), (":member_id", &member)], assignment_of)
}

const FIND_MEMBER_NAME: &str = "
    select coalesce(display_name, username, email)
    from members
    where id = :id";

/// Returns the name of a member for people, if it has one.
pub fn find_member_name(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    r.find(FIND_MEMBER_NAME, &[(":id", &id)], |row| row.get(0)).map(Option::flatten)
}

const LIST_HOLDERS: List = List {
    name: "role_holders",
    columns: "a.id, a.organization_id, a.member_id, a.role_id, r.key, r.display_name, a.source, a.created_at,
              a.updated_at",
    from: "role_assignments a",
    joins: "join roles r on r.id = a.role_id",
    // The index starts with the role, which belongs to one organization, and continues with members.
    conditions: &["a.role_id = :role_id", "a.organization_id = :organization_id"],
    order: &["a.member_id", "a.source"],
    costly: &[],
    walked: &[],
    kept: &[],
};

pub fn list_holders(
    r: &Reader<'_>,
    (organization, role): (OrganizationId, RoleId),
    window: &PageRequest,
) -> Result<ListPage<Assignment>> {
    r.page(&LIST_HOLDERS, &[(":role_id", &role), (":organization_id", &organization)], window, assignment_of)
}

fn assignment_of(row: &Row<'_>) -> rusqlite::Result<Assignment> {
    Ok(Assignment {
        id: row.get(0)?,
        organization: row.get(1)?,
        member: row.get(2)?,
        role: row.get(3)?,
        role_key: row.get(4)?,
        role_display_name: row.get(5)?,
        source: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

const INSERT_ASSIGNMENT: &str = "
    insert into role_assignments (id, organization_id, member_id, role_id, source, created_at, updated_at)
    values (:id, :organization_id, :member_id, :role_id, :source, :now, :now)";

pub fn insert_assignment(
    w: &Writer<'_>,
    organization: OrganizationId,
    member: MemberId,
    role: RoleId,
    source: Source,
) -> Result<()> {
    w.insert(
        INSERT_ASSIGNMENT,
        &[
            (":id", &AssignmentId::new()),
            (":organization_id", &organization),
            (":member_id", &member),
            (":role_id", &role),
            (":source", &source.as_str()),
            (":now", &w.now()),
        ],
        &[("role_assignments.role_id", ErrorCode::RoleAlreadyAssigned)],
    )
}

const DELETE_ASSIGNMENTS: &str = "
    delete from role_assignments
    where organization_id = :organization_id and member_id = :member_id and role_id = :role_id";

/// Deletes the assignments of a role to a member from all sources; returns how many there were.
pub fn delete_assignments(
    w: &Writer<'_>,
    organization: OrganizationId,
    member: MemberId,
    role: RoleId,
) -> Result<usize> {
    w.execute(DELETE_ASSIGNMENTS, &[(":organization_id", &organization), (":member_id", &member), (":role_id", &role)])
}

const DELETE_SOURCED_ASSIGNMENT: &str = "
    delete from role_assignments
    where organization_id = :organization_id and member_id = :member_id and role_id = :role_id and source = :source";

pub fn delete_sourced_assignment(
    w: &Writer<'_>,
    organization: OrganizationId,
    member: MemberId,
    role: RoleId,
    source: Source,
) -> Result<()> {
    w.execute(
        DELETE_SOURCED_ASSIGNMENT,
        &[
            (":organization_id", &organization),
            (":member_id", &member),
            (":role_id", &role),
            (":source", &source.as_str()),
        ],
    )
    .map(drop)
}

const DELETE_ALL_ASSIGNMENTS: &str = "
    delete from role_assignments
    where organization_id = :organization_id and member_id = :member_id";

pub fn delete_all_assignments(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    w.execute(DELETE_ALL_ASSIGNMENTS, &[(":organization_id", &organization), (":member_id", &member)]).map(drop)
}

const OTHER_ACTIVE_HOLDER: &str = "
    select exists (
        select 1
        from role_assignments a
        join roles r on r.id = a.role_id
        join members m on m.id = a.member_id
        where r.organization_id = :organization_id and r.key = :key and m.status = 'active' and a.member_id <> :member_id)";

/// Whether an active member other than this one holds the role with this key.
pub fn has_other_active_holder(
    r: &Reader<'_>,
    organization: OrganizationId,
    key: &str,
    member: MemberId,
) -> Result<bool> {
    r.one(OTHER_ACTIVE_HOLDER, &[(":organization_id", &organization), (":key", &key), (":member_id", &member)], |row| {
        row.get(0)
    })
}

// ── mappings ──

const LIST_MAPPINGS: List = List {
    name: "role_mappings",
    columns: "m.id, m.organization_id, m.source, m.external_key, m.role_id, r.key, m.created_at, m.updated_at",
    from: "role_mappings m",
    joins: "join roles r on r.id = m.role_id",
    conditions: &["m.organization_id = :organization_id", "m.source = :source"],
    order: &["m.source", "m.external_key"],
    costly: &[],
    walked: &[],
    kept: &[],
};

pub fn list_mappings(
    r: &Reader<'_>,
    organization: OrganizationId,
    source: Option<Source>,
    window: &PageRequest,
) -> Result<ListPage<Mapping>> {
    let source = source.map(Source::as_str);
    r.page(&LIST_MAPPINGS, &[(":organization_id", &organization), (":source", &source)], window, mapping_of)
}

/// Returns how many mappings an organization has.
pub fn count_mappings(r: &Reader<'_>, organization: OrganizationId) -> Result<u64> {
    r.total(&LIST_MAPPINGS, &[(":organization_id", &organization)], &PageRequest::first(0))
}

fn mapping_of(row: &Row<'_>) -> rusqlite::Result<Mapping> {
    Ok(Mapping {
        id: row.get(0)?,
        organization: row.get(1)?,
        source: row.get(2)?,
        external_key: row.get(3)?,
        role: row.get(4)?,
        role_key: row.get(5)?,
        created_at: row.get(6)?,
        updated_at: row.get(7)?,
    })
}

const FIND_MAPPING: &str = "
    select m.id, m.organization_id, m.source, m.external_key, m.role_id, r.key, m.created_at, m.updated_at
    from role_mappings m
    join roles r on r.id = m.role_id
    where m.organization_id = :organization_id and m.source = :source and m.external_key in (:external_key, :as_given)
    order by m.external_key = :external_key desc
    limit 1";

/// Returns the mapping of a key, compared in normalized form. Rows that were stored before keys were normalized are
/// found by the key as given.
pub fn find_mapping(
    r: &Reader<'_>,
    organization: OrganizationId,
    source: Source,
    external_key: &str,
) -> Result<Option<Mapping>> {
    r.find(
        FIND_MAPPING,
        &[
            (":organization_id", &organization),
            (":source", &source.as_str()),
            (":external_key", &normalized(external_key)),
            (":as_given", &external_key),
        ],
        mapping_of,
    )
}

const PUT_MAPPING: &str = "
    insert into role_mappings (id, organization_id, source, external_key, role_id, created_at, updated_at)
    values (:id, :organization_id, :source, :external_key, :role_id, :now, :now)
    on conflict (id) do update
    set external_key = excluded.external_key, role_id = excluded.role_id,
        updated_at = max(excluded.updated_at, updated_at + 1)";

/// Sets a mapping; `id` is that of the existing mapping of the key, or a new one. `updated_at` is the version of the
/// mapping too, so every change increases it.
pub fn put_mapping(
    w: &Writer<'_>,
    id: MappingId,
    organization: OrganizationId,
    source: Source,
    external_key: &str,
    role: RoleId,
) -> Result<()> {
    w.execute(
        PUT_MAPPING,
        &[
            (":id", &id),
            (":organization_id", &organization),
            (":source", &source.as_str()),
            (":external_key", &normalized(external_key)),
            (":role_id", &role),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const DELETE_MAPPING: &str = "delete from role_mappings where id = :id";

pub fn delete_mapping(w: &Writer<'_>, id: MappingId) -> Result<()> {
    w.execute(DELETE_MAPPING, &[(":id", &id)]).map(drop)
}

// ── catalog ──

const INSERT_PERMISSION: &str = "
    insert into permissions (name, app, parent_slot, http_methods, http_path, status, type, position, created_at, updated_at)
    values (:name, :app, null, :http_methods, :http_path, :status, :type, :position, :now, :now)";
const UPDATE_PERMISSION: &str = "
    update permissions
    set http_methods = :http_methods, http_path = :http_path, status = :status, type = :type, position = :position,
        orphaned = 0, updated_at = :now
    where name = :name and app = :app";

/// A row of the catalog, without its parent.
pub struct PermissionRow<'a> {
    pub name: &'a str,
    pub app: &'a str,
    pub http_methods: Option<&'a str>,
    pub http_path: Option<&'a str>,
    pub is_open: bool,
    pub user_type: UserType,
    pub position: i64,
}

pub fn put_permission(w: &Writer<'_>, row: &PermissionRow<'_>, exists: bool) -> Result<()> {
    let statement = if exists { UPDATE_PERMISSION } else { INSERT_PERMISSION };
    w.insert(
        statement,
        &[
            (":name", &row.name),
            (":app", &row.app),
            (":http_methods", &row.http_methods),
            (":http_path", &row.http_path),
            (":status", &status(row.is_open)),
            (":type", &type_text(row.user_type)),
            (":position", &row.position),
            (":now", &w.now()),
        ],
        &[("permissions.name", ErrorCode::PermissionExists)],
    )
}

fn type_text(user_type: UserType) -> &'static str {
    match user_type {
        UserType::Backend => "backend_user",
        UserType::Frontend => "frontend_user",
    }
}

const SET_PARENT: &str = "
    update permissions
    set parent_slot = (select slot from permissions where name = :parent)
    where name = :name";

pub fn set_parent(w: &Writer<'_>, name: &str, parent: Option<&str>) -> Result<()> {
    w.execute(SET_PARENT, &[(":parent", &parent), (":name", &name)]).map(drop)
}

const ORPHAN_PERMISSION: &str =
    "update permissions set orphaned = 1, updated_at = :now where name = :name and orphaned = 0";

pub fn orphan_permission(w: &Writer<'_>, name: &str) -> Result<()> {
    w.execute(ORPHAN_PERMISSION, &[(":now", &w.now()), (":name", &name)]).map(drop)
}

const MOVE_NAME: &str = "
    update permissions
    set name = ' ' || slot
    where slot = :slot";
const RENAME_PERMISSION: &str = "
    update permissions
    set name = :name, updated_at = :now
    where slot = :slot";

/// Renames entries, which can exchange their names. The temporary names begin with a space, as no real name does.
pub fn rename_permissions(w: &Writer<'_>, names: &[(PermissionIndex, &str)]) -> Result<()> {
    for (slot, _) in names {
        w.execute(MOVE_NAME, &[(":slot", slot)])?;
    }
    for (slot, name) in names {
        w.execute(RENAME_PERMISSION, &[(":slot", slot), (":name", name), (":now", &w.now())])?;
    }
    Ok(())
}

const FIND_DOCUMENT: &str = "select title from catalog_documents where app = :app";

/// Returns the title of the OpenAPI document that an application's entries come from. The inner `None` stands for
/// Roster's own format, the outer for an application without an import.
pub fn find_document(r: &Reader<'_>, app: &str) -> Result<Option<Option<String>>> {
    r.find(FIND_DOCUMENT, &[(":app", &app)], |row| row.get(0))
}

const PUT_DOCUMENT: &str = "
    insert into catalog_documents (app, title)
    values (:app, :title)
    on conflict (app) do update set title = excluded.title";

pub fn put_document(w: &Writer<'_>, app: &str, title: Option<&str>) -> Result<()> {
    w.execute(PUT_DOCUMENT, &[(":app", &app), (":title", &title)]).map(drop)
}

const DELETE_APP_ORGANIZATIONS: &str = "delete from catalog_organizations where app = :app";
const INSERT_APP_ORGANIZATION: &str =
    "insert into catalog_organizations (app, organization_id) values (:app, :organization_id)";

/// Replaces the organizations that have an application. An empty list means all organizations.
pub fn replace_app_organizations(w: &Writer<'_>, app: &str, organizations: &[OrganizationId]) -> Result<()> {
    w.execute(DELETE_APP_ORGANIZATIONS, &[(":app", &app)])?;
    for organization in organizations {
        w.execute(INSERT_APP_ORGANIZATION, &[(":app", &app), (":organization_id", organization)])?;
    }
    Ok(())
}

fn count(row: &Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(|n| u64::try_from(n).unwrap_or_default())
}

const COUNT_OPEN_INVITATIONS: &str =
    "select count(*) from invitations where role_id = :role_id and accepted_at is null";

/// Returns how many invitations with this role were not accepted yet.
pub fn count_open_invitations(r: &Reader<'_>, role: RoleId) -> Result<i64> {
    r.one(COUNT_OPEN_INVITATIONS, &[(":role_id", &role)], |row| row.get(0))
}
