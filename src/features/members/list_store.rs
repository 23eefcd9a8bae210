//! SQL of the lists of members.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Row;

use super::store::member_of;
use super::{Member, search_store};
use crate::kernel::db::sql::Parameters;
use crate::kernel::db::{List, ListPage, PageRequest, Reader};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId};

const MEMBER_COLUMNS: &str = "m.id, m.username, m.email, m.display_name, m.status, i.subject, i.account_id, m.version,
    m.created_at, m.updated_at, m.username_by_site";
const BY_KEYWORD: &str = "m.username_folded like :folded escape '\\' or m.email_folded like :folded escape '\\'
    or m.display_name like :keyword escape '\\'";
const LIST_MEMBERS: List = List {
    name: "members",
    columns: MEMBER_COLUMNS,
    from: "members m",
    joins: "left join identities i on i.member_id = m.id and i.provider = 'authentik'",
    conditions: &[
        "+m.status <> 'deleted'",
        "m.status <> 'deleted' and (m.status = 'active') = :is_active",
        "m.id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["m.id"],
    costly: &[":keyword"],
    walked: &[":keyword"],
    kept: &[
        (&[], "select count(*) from members where status <> 'deleted'"),
        (
            &[":is_active"],
            "select count(*) from members where status <> 'deleted' and (status = 'active') = :is_active",
        ),
    ],
};
/// Needs no condition on `deleted`, because erased members have no memberships.
const LIST_MEMBERS_IN: List = List {
    name: "members",
    columns: MEMBER_COLUMNS,
    from: "memberships s cross join members m on m.id = s.member_id",
    joins: "left join identities i on i.member_id = m.id and i.provider = 'authentik'",
    conditions: &[
        "s.organization_id = :organization_id",
        "(m.status = 'active') = :is_active",
        "s.member_id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["s.member_id"],
    costly: &[":keyword", ":is_active"],
    walked: &[":keyword", ":is_active"],
    kept: &[(&[":organization_id"], "select count(*) from memberships where organization_id = :organization_id")],
};

/// The same by name: the folded username, or the e-mail of a member without one.
const LIST_MEMBERS_BY_NAME: List = List {
    name: "members by name",
    columns: MEMBER_COLUMNS,
    from: "members m",
    joins: "left join identities i on i.member_id = m.id and i.provider = 'authentik'",
    conditions: &[
        "+m.status <> 'deleted'",
        "(+m.status = 'active') = :is_active",
        "m.id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["coalesce(m.username_folded, m.email_folded, '')", "m.id"],
    costly: &[":keyword"],
    walked: &[":keyword", ":is_active"],
    kept: &[
        (&[], "select count(*) from members where status <> 'deleted'"),
        (
            &[":is_active"],
            "select count(*) from members where status <> 'deleted' and (status = 'active') = :is_active",
        ),
    ],
};
const LIST_MEMBERS_IN_BY_NAME: List = List {
    name: "members by name",
    columns: MEMBER_COLUMNS,
    from: "memberships s cross join members m on m.id = s.member_id",
    joins: "left join identities i on i.member_id = m.id and i.provider = 'authentik'",
    conditions: &[
        "s.organization_id = :organization_id",
        "(m.status = 'active') = :is_active",
        "s.member_id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["s.member_name", "s.member_id"],
    costly: &[":keyword", ":is_active"],
    walked: &[":keyword", ":is_active"],
    kept: &[(&[":organization_id"], "select count(*) from memberships where organization_id = :organization_id")],
};

/// What a list of members is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortKey {
    /// The time of creation, which is the order of the ids.
    #[default]
    Created,
    /// The folded username, or the e-mail of a member without one.
    Name,
}

/// The filters of a list of members.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub organization: Option<OrganizationId>,
    pub is_active: Option<bool>,
    /// A pattern from `kernel::http::like`.
    pub keyword: Option<String>,
    pub sort: SortKey,
}

pub fn list_members(r: &Reader<'_>, filter: &Filter, window: &PageRequest) -> Result<ListPage<Member>> {
    let Filter { organization, is_active, keyword, sort } = filter;
    let folded = keyword.as_ref().map(|keyword| keyword.to_lowercase());
    let among = keyword.as_deref().map(|keyword| search_store::find_among(r, keyword)).transpose()?.flatten();
    let list = match (sort, organization.is_some()) {
        (SortKey::Created, false) => &LIST_MEMBERS,
        (SortKey::Created, true) => &LIST_MEMBERS_IN,
        (SortKey::Name, false) => &LIST_MEMBERS_BY_NAME,
        (SortKey::Name, true) => &LIST_MEMBERS_IN_BY_NAME,
    };
    let parameters: Parameters<'_> = &[
        (":organization_id", organization),
        (":is_active", is_active),
        (":keyword", keyword),
        (":folded", &folded),
        (":among", &among),
    ];
    r.page(list, parameters, window, member_of)
}

// `json_each` gives the ids one by one, so that each is found by the primary key.
const LIST_NAMES: &str = "
    select m.id, coalesce(nullif(m.display_name, ''), m.username, m.email)
    from json_each(:ids) wanted
    cross join members m on m.id = unhex(wanted.value)
    where m.status <> 'deleted'
      and (:seen_by is null
           or exists (select 1 from memberships s where s.organization_id = :seen_by and s.member_id = m.id))";

/// The names of these members as the organization sees them; `seen_by` is `None` for the site. Members that it does not
/// see, and those without a name, are left out.
pub fn list_names(
    r: &Reader<'_>,
    seen_by: Option<OrganizationId>,
    ids: &BTreeSet<MemberId>,
) -> Result<HashMap<MemberId, String>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{}\"", id.0.simple())).collect();
    let ids = format!("[{}]", ids.join(","));
    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?));
    let found: Vec<(MemberId, Option<String>)> = r.all(LIST_NAMES, &[(":ids", &ids), (":seen_by", &seen_by)], pair)?;
    Ok(found.into_iter().filter_map(|(id, name)| Some((id, name?))).collect())
}
