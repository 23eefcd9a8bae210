//! SQL of direct grants.

use crate::features::grants::{Grant, OwnedRight};
use crate::kernel::authz::snapshot::Right;
use crate::kernel::db::sql::Parameters;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{GrantId, MemberId};

const FIND_GRANT: &str = "
    select id
    from grants
    where member_id = :member_id and scope_type = :scope_type and scope_id = :scope_id and module = :module
      and action = :action";

pub fn find_grant(r: &Reader<'_>, member: MemberId, right: &Right<'_>) -> Result<Option<GrantId>> {
    r.find(
        FIND_GRANT,
        &[
            (":member_id", &member),
            (":scope_type", &right.scope_type),
            (":scope_id", &right.scope_id),
            (":module", &right.module),
            (":action", &right.action),
        ],
        |row| row.get(0),
    )
}

const INSERT_GRANT: &str = "
    insert into grants (id, member_id, scope_type, scope_id, module, action, created_at)
    values (:id, :member_id, :scope_type, :scope_id, :module, :action, :now)";

pub fn insert_grant(w: &Writer<'_>, id: GrantId, member: MemberId, right: &Right<'_>) -> Result<()> {
    w.execute(
        INSERT_GRANT,
        &[
            (":id", &id),
            (":member_id", &member),
            (":scope_type", &right.scope_type),
            (":scope_id", &right.scope_id),
            (":module", &right.module),
            (":action", &right.action),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const DELETE_GRANT: &str = "delete from grants where id = :id";

pub fn delete_grant(w: &Writer<'_>, id: GrantId) -> Result<()> {
    w.execute(DELETE_GRANT, &[(":id", &id)]).map(drop)
}

const LIST_GRANTS: List = List {
    name: "grants",
    columns: "scope_type, scope_id, module, action, id, created_at",
    from: "grants",
    joins: "",
    conditions: &["member_id = :member_id", "scope_type = :scope_type", "+module = :module"],
    order: &["scope_type", "scope_id", "module", "action"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// Returns the scope type, scope id, module and action of each grant of a member.
pub fn list_grants(
    r: &Reader<'_>,
    member: MemberId,
    scope_type: Option<&str>,
    module: Option<&str>,
) -> Result<Vec<[String; 4]>> {
    let parameters: Parameters<'_> = &[(":member_id", &member), (":scope_type", &scope_type), (":module", &module)];
    let all = PageRequest::first(u64::MAX);
    Ok(r.page_without_total(&LIST_GRANTS, parameters, &all, |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    })?
    .items)
}

/// Returns a page of the grants of a member.
pub fn page_of_member(
    r: &Reader<'_>,
    member: MemberId,
    (scope_type, module): (Option<&str>, Option<&str>),
    window: &PageRequest,
) -> Result<ListPage<Grant>> {
    let parameters: Parameters<'_> = &[(":member_id", &member), (":scope_type", &scope_type), (":module", &module)];
    r.page(&LIST_GRANTS, parameters, window, |row| {
        let right =
            OwnedRight { scope_type: row.get(0)?, scope_id: row.get(1)?, module: row.get(2)?, action: row.get(3)? };
        Ok(Grant { id: row.get(4)?, right, created_at: row.get(5)? })
    })
}

const DELETE_OF_MEMBER: &str = "delete from grants where member_id = :member_id";

pub fn delete_of_member(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(DELETE_OF_MEMBER, &[(":member_id", &member)]).map(drop)
}
