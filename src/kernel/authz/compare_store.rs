//! SQL that reads the policy rows again, to compare them with the snapshot: in pages, or the rows of one object. Writes
//! nothing.

use rusqlite::Row;

use super::snapshot::{Change, Part, Role, Session, Snapshot};
use super::store;
use crate::kernel::db::Reader;
use crate::kernel::db::sql::{Parameters, limit};
use crate::kernel::error::Result;
use crate::kernel::ids::{ApiKeyId, GrantId, MemberId, OrganizationId, RoleId, SessionId};

/// The rows of one page. A page is read in one transaction and occupies a reader for some milliseconds.
pub const PAGE_ROWS: usize = 2_000;

/// The row after which a page begins. Each part uses only some of the fields.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    organization: [u8; 16],
    id: [u8; 16],
    text: String,
}

impl Cursor {
    /// The mark before the first row.
    pub fn first(organization: Option<OrganizationId>) -> Self {
        Self { organization: organization.map_or([0; 16], |id| *id.0.as_bytes()), ..Self::default() }
    }
}

/// One page of rows, as changes.
pub struct Page {
    pub facts: Vec<Change>,
    /// The start of the next page, if there can be one.
    pub next: Option<Cursor>,
}

impl Page {
    /// From ordered rows, each with its mark.
    fn of(rows: Vec<(Cursor, Change)>) -> Self {
        Self { next: mark_after(&rows), facts: rows.into_iter().map(|(_, change)| change).collect() }
    }

    fn whole(facts: Vec<Change>) -> Self {
        Self { facts, next: None }
    }
}

/// Reads the rows of a part after a mark, of one organization or of all. Grants, clients, sessions and keys belong to
/// no organization.
pub fn page(r: &Reader<'_>, part: Part, organization: Option<OrganizationId>, after: &Cursor) -> Result<Page> {
    match part {
        Part::Catalog => Ok(Page::whole(vec![store::catalog(r)?])),
        // Computed, not stored.
        Part::RoleSets => Ok(Page::whole(Vec::new())),
        Part::Tenants => match organization {
            Some(id) => {
                let tenant = store::find_tenant(r, id)?;
                Ok(Page::whole(tenant.into_iter().chain([store::plugins(r, id)?]).collect()))
            }
            None => tenants(r, after),
        },
        Part::Roles => roles(r, organization, after),
        Part::Members => members(r, organization, after),
        Part::Memberships => memberships(r, organization, after),
        Part::Grants => grants(r, after),
        Part::Clients => clients(r, after),
        Part::Sessions => sessions(r, after),
        Part::ApiKeys => api_keys(r, after),
    }
}

/// The mark of the last row, if the page is full.
fn mark_after<T>(rows: &[(Cursor, T)]) -> Option<Cursor> {
    rows.last().filter(|_| rows.len() == PAGE_ROWS).map(|(mark, _)| mark.clone())
}

const PAGE_OF_TENANTS: &str = "
    select id, org_code, status = 'active', second_factor_required
    from organizations
    where id > :after
    order by id
    limit :most";

fn tenants(r: &Reader<'_>, after: &Cursor) -> Result<Page> {
    let rows = r.all(PAGE_OF_TENANTS, &[(":after", &after.id), (":most", &limit(PAGE_ROWS))], |row| {
        Ok((Cursor { id: row.get(0)?, ..Cursor::default() }, (row.get(0)?, store::tenant_of(row)?)))
    })?;
    let next = mark_after(&rows);
    let mut facts = Vec::new();
    for (_, (id, tenant)) in rows {
        facts.extend([tenant, store::plugins(r, id)?]);
    }
    Ok(Page { facts, next })
}

const PAGE_OF_ROLES: &str = "
    select organization_id, id, key, status = 'open', holds
    from roles
    where (organization_id, key) > (:organization_id, :key)
    order by organization_id, key
    limit :most";

fn roles(r: &Reader<'_>, only: Option<OrganizationId>, after: &Cursor) -> Result<Page> {
    let parameters: Parameters<'_> =
        &[(":organization_id", &after.organization), (":key", &after.text), (":most", &limit(PAGE_ROWS))];
    let rows: Vec<(OrganizationId, Role)> =
        r.all(PAGE_OF_ROLES, parameters, |row| Ok((row.get(0)?, store::role_of(row, 1)?)))?;
    let mut roles = Vec::with_capacity(rows.len());
    for (organization, role) in
        rows.into_iter().filter(|(organization, _)| only.is_none_or(|only| only == *organization))
    {
        let mark = Cursor { organization: *organization.0.as_bytes(), text: role.key.to_string(), ..Cursor::default() };
        let ticked = store::ticks(r, role.id)?.into();
        roles.push((mark, Change::Role(organization, Role { ticked, ..role })));
    }
    Ok(Page::of(roles))
}

const PAGE_OF_MEMBERS: &str = "
    select m.id, m.status,
           (select min(organization_id) from memberships where member_id = m.id),
           (select max(organization_id) from memberships where member_id = m.id)
    from members m
    where m.id > :after
    order by m.id
    limit :most";
const PAGE_OF_MEMBERS_IN: &str = "
    select m.id, m.status,
           (select min(organization_id) from memberships where member_id = m.id),
           (select max(organization_id) from memberships where member_id = m.id)
    from memberships s
    join members m on m.id = s.member_id
    where s.organization_id = :organization_id and s.member_id > :after
    order by s.member_id
    limit :most";

fn members(r: &Reader<'_>, only: Option<OrganizationId>, after: &Cursor) -> Result<Page> {
    let of_row = |row: &Row<'_>| -> rusqlite::Result<(Cursor, [Change; 2])> {
        let ends = row.get::<_, Option<_>>(2)?.zip(row.get(3)?);
        let id: MemberId = row.get(0)?;
        let mark = Cursor { id: row.get(0)?, ..Cursor::default() };
        Ok((mark, [Change::Member(id, row.get(1)?), Change::OrganizationCount(id, ends)]))
    };
    let rows = match &only {
        None => r.all(PAGE_OF_MEMBERS, &[(":after", &after.id), (":most", &limit(PAGE_ROWS))], of_row)?,
        Some(organization) => r.all(
            PAGE_OF_MEMBERS_IN,
            &[(":organization_id", organization), (":after", &after.id), (":most", &limit(PAGE_ROWS))],
            of_row,
        )?,
    };
    let next = mark_after(&rows);
    Ok(Page { facts: rows.into_iter().flat_map(|(_, facts)| facts).collect(), next })
}

const PAGE_OF_MEMBERSHIPS: &str = "
    select organization_id, member_id
    from memberships
    where (organization_id, member_id) > (:organization_id, :member_id)
    order by organization_id, member_id
    limit :most";

fn memberships(r: &Reader<'_>, only: Option<OrganizationId>, after: &Cursor) -> Result<Page> {
    let parameters: Parameters<'_> =
        &[(":organization_id", &after.organization), (":member_id", &after.id), (":most", &limit(PAGE_ROWS))];
    let mut rows: Vec<(OrganizationId, MemberId)> =
        r.all(PAGE_OF_MEMBERSHIPS, parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.retain(|(organization, _)| only.is_none_or(|only| only == *organization));
    let mut memberships = Vec::with_capacity(rows.len());
    for (organization, member) in rows {
        let mark = Cursor { organization: *organization.0.as_bytes(), id: *member.0.as_bytes(), ..Cursor::default() };
        memberships.push((mark, store::membership(r, organization, member)?));
    }
    Ok(Page::of(memberships))
}

const PAGE_OF_GRANTS: &str = "
    select id, member_id, scope_type, scope_id, module, action
    from grants
    where id > :after
    order by id
    limit :most";

fn grants(r: &Reader<'_>, after: &Cursor) -> Result<Page> {
    page_by_id(r, PAGE_OF_GRANTS, after, store::grant_of)
}

/// Reads a page in the order of the ids, which are the first column.
fn page_by_id(
    r: &Reader<'_>,
    page: &'static str,
    after: &Cursor,
    change_of: fn(&Row<'_>) -> rusqlite::Result<Change>,
) -> Result<Page> {
    r.all(page, &[(":after", &after.id), (":most", &limit(PAGE_ROWS))], |row| {
        Ok((Cursor { id: row.get(0)?, ..Cursor::default() }, change_of(row)?))
    })
    .map(Page::of)
}

const PAGE_OF_CLIENTS: &str = "
    select client_key, status = 'active', api_key_hash, previous_hash, previous_expires_at, scopes, allowed_origins,
           allowed_ips, allowed_paths, rate_limit_per_min, expires_at, maker
    from api_clients
    where client_key > :after
    order by client_key
    limit :most";

fn clients(r: &Reader<'_>, after: &Cursor) -> Result<Page> {
    r.all(PAGE_OF_CLIENTS, &[(":after", &after.text), (":most", &limit(PAGE_ROWS))], |row| {
        Ok((Cursor { text: row.get(0)?, ..Cursor::default() }, Change::Client(Box::new(store::client_of(row)?))))
    })
    .map(Page::of)
}

const PAGE_OF_SESSIONS: &str = "
    select id, member_id, second_factor
    from sessions
    where id > :after
    order by id
    limit :most";

fn sessions(r: &Reader<'_>, after: &Cursor) -> Result<Page> {
    page_by_id(r, PAGE_OF_SESSIONS, after, store::session_of)
}

const PAGE_OF_API_KEYS: &str = "
    select id, type, member_id, service_name, hash, previous_hash, previous_expires_at, scopes, expires_at,
           spent_at is not null, is_imported, maker
    from api_keys
    where id > :after
    order by id
    limit :most";

fn api_keys(r: &Reader<'_>, after: &Cursor) -> Result<Page> {
    page_by_id(r, PAGE_OF_API_KEYS, after, |row| Ok(Change::ApiKey(Box::new(store::api_key_of(row)?))))
}

const COUNT_MEMBERS: &str = "select count(*) from members";
const COUNT_MEMBERSHIPS: &str = "select count(*) from memberships";
const COUNT_MEMBERSHIPS_IN: &str = "select count(*) from memberships where organization_id = :organization_id";
const COUNT_GRANTS: &str = "select count(*) from grants";
const COUNT_SESSIONS: &str = "select count(*) from sessions";
const COUNT_API_KEYS: &str = "select count(*) from api_keys";

/// Whether the snapshot can have entries of a part without a row. It cannot if it has the same epoch and the same
/// number of entries as the rows, because the caller has already checked that every row is in the snapshot.
pub fn may_lack_rows(
    r: &Reader<'_>,
    snapshot: &Snapshot,
    part: Part,
    organization: Option<OrganizationId>,
) -> Result<bool> {
    let Some(known) = snapshot.count(part, organization) else { return Ok(true) };
    if store::epoch(r)? != snapshot.epoch {
        return Ok(true);
    }
    let rows: i64 = match (part, &organization) {
        (Part::Memberships, Some(id)) => r.one(COUNT_MEMBERSHIPS_IN, &[(":organization_id", id)], |row| row.get(0))?,
        (Part::Memberships, None) => r.one(COUNT_MEMBERSHIPS, &[], |row| row.get(0))?,
        (Part::Members, _) => r.one(COUNT_MEMBERS, &[], |row| row.get(0))?,
        (Part::Grants, _) => r.one(COUNT_GRANTS, &[], |row| row.get(0))?,
        (Part::Sessions, _) => r.one(COUNT_SESSIONS, &[], |row| row.get(0))?,
        (Part::ApiKeys, _) => r.one(COUNT_API_KEYS, &[], |row| row.get(0))?,
        _ => return Ok(true),
    };
    Ok(usize::try_from(rows) != Ok(known))
}

/// Reads the current rows of the object that a change is about, with the changes that follow from them.
pub fn reread(r: &Reader<'_>, snapshot: &Snapshot, change: &Change) -> Result<Vec<Change>> {
    Ok(match change {
        Change::Catalog(_) => vec![store::catalog(r)?],
        Change::Member(id, _) | Change::MemberDeleted(id) | Change::OrganizationCount(id, _) => member(r, *id)?,
        Change::Tenant { id, org_code, .. } => vec![store::find_tenant(r, *id)?.unwrap_or_else(|| Change::Tenant {
            // The snapshot keeps a deleted organization until the next start. Until then it is inactive.
            id: *id,
            org_code: org_code.clone(),
            is_active: false,
            requires_second_factor: false,
        })],
        Change::Membership(organization, member, _) => {
            vec![store::membership(r, *organization, *member)?, placed(r, *member)?]
        }
        Change::Role(organization, Role { id, .. }) | Change::RoleDeleted(organization, id) => {
            vec![role(r, *organization, *id)?]
        }
        Change::RoleSetsRecomputed(organization) => vec![Change::RoleSetsRecomputed(*organization)],
        Change::Plugins(organization, _) => vec![store::plugins(r, *organization)?],
        Change::Grant(key, Some(id)) => match find_grant(r, *id)? {
            Some(Change::Grant(now, id)) if now == *key => vec![Change::Grant(now, id)],
            // The id can belong to another grant now.
            _ if snapshot.grant(key) == Some(*id) => vec![Change::Grant(*key, None)],
            _ => Vec::new(),
        },
        Change::Grant(_, None) => Vec::new(),
        Change::Client(client) => vec![client_named(r, &client.client_key)?],
        Change::ClientDeleted(client_key) => vec![client_named(r, client_key)?],
        Change::Session(id, _) => vec![session(r, *id)?],
        Change::ApiKey(key) => vec![api_key(r, key.id)?],
        Change::ApiKeyDeleted(id) => vec![api_key(r, *id)?],
    })
}

fn member(r: &Reader<'_>, id: MemberId) -> Result<Vec<Change>> {
    Ok(match store::find_member_state(r, id)? {
        Some(state) => vec![state, placed(r, id)?],
        None => vec![Change::MemberDeleted(id)],
    })
}

const FIND_PLACES: &str = "
    select min(organization_id), max(organization_id)
    from memberships
    where member_id = :member_id";

fn placed(r: &Reader<'_>, id: MemberId) -> Result<Change> {
    let ends = r.one(FIND_PLACES, &[(":member_id", &id)], |row| Ok(row.get::<_, Option<_>>(0)?.zip(row.get(1)?)))?;
    Ok(Change::OrganizationCount(id, ends))
}

fn role(r: &Reader<'_>, organization: OrganizationId, id: RoleId) -> Result<Change> {
    Ok(store::find_role(r, organization, id)?.unwrap_or(Change::RoleDeleted(organization, id)))
}

const FIND_GRANT: &str = "select id, member_id, scope_type, scope_id, module, action from grants where id = :id";

fn find_grant(r: &Reader<'_>, id: GrantId) -> Result<Option<Change>> {
    r.find(FIND_GRANT, &[(":id", &id)], store::grant_of)
}

fn client_named(r: &Reader<'_>, client_key: &str) -> Result<Change> {
    Ok(store::find_client(r, client_key)?.unwrap_or_else(|| Change::ClientDeleted(client_key.into())))
}

const FIND_SESSION: &str = "select member_id, second_factor from sessions where id = :id";

fn session(r: &Reader<'_>, id: SessionId) -> Result<Change> {
    let found =
        r.find(FIND_SESSION, &[(":id", &id)], |row| Ok(Session { member: row.get(0)?, second_factor: row.get(1)? }))?;
    Ok(Change::Session(id, found))
}

fn api_key(r: &Reader<'_>, id: ApiKeyId) -> Result<Change> {
    Ok(store::find_api_key(r, id)?.unwrap_or(Change::ApiKeyDeleted(id)))
}
