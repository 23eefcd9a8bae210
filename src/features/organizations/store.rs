//! SQL of organizations.

use rusqlite::Row;

use super::Organization;
use crate::kernel::db::sql::Parameters;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::OrganizationId;

const GET_ORGANIZATION: &str = "
    select id, org_code, name, tax_id, status = 'active', second_factor_required, version, created_at, updated_at
    from organizations
    where id = :id";

pub fn get_organization(r: &Reader<'_>, id: OrganizationId) -> Result<Organization> {
    r.find(GET_ORGANIZATION, &[(":id", &id)], organization_of)?.ok_or_else(|| ErrorCode::OrganizationNotFound.into())
}

const LIST_ORGANIZATIONS: List = List {
    name: "organizations",
    columns: "id, org_code, name, tax_id, status = 'active', second_factor_required, version, created_at, updated_at",
    from: "organizations",
    joins: "",
    conditions: &[
        "id = :only",
        "(status = 'active') = :is_active",
        "org_code like :keyword escape '\\' or name like :keyword escape '\\'",
    ],
    order: &["org_code"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// The filters of a list of organizations.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub only: Option<OrganizationId>,
    pub is_active: Option<bool>,
    /// A pattern from `kernel::http::like`.
    pub keyword: Option<String>,
}

pub fn list_organizations(r: &Reader<'_>, filter: &Filter, window: &PageRequest) -> Result<ListPage<Organization>> {
    let Filter { only, is_active, keyword } = filter;
    let parameters: Parameters<'_> = &[(":only", only), (":is_active", is_active), (":keyword", keyword)];
    r.page(&LIST_ORGANIZATIONS, parameters, window, organization_of)
}

fn organization_of(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: row.get(0)?,
        org_code: row.get(1)?,
        name: row.get(2)?,
        tax_id: row.get(3)?,
        is_active: row.get(4)?,
        requires_second_factor: row.get(5)?,
        version: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

fn status(is_active: bool) -> &'static str {
    if is_active { "active" } else { "inactive" }
}

const INSERT_ORGANIZATION: &str = "
    insert into organizations (id, org_code, name, tax_id, status, second_factor_required, created_at, updated_at)
    values (:id, :org_code, :name, :tax_id, :status, :second_factor_required, :now, :now)";

pub fn insert_organization(w: &Writer<'_>, organization: &Organization) -> Result<()> {
    w.insert(
        INSERT_ORGANIZATION,
        &[
            (":id", &organization.id),
            (":org_code", &organization.org_code),
            (":name", &organization.name),
            (":tax_id", &organization.tax_id),
            (":status", &status(organization.is_active)),
            (":second_factor_required", &organization.requires_second_factor),
            (":now", &w.now()),
        ],
        &[("organizations.org_code", ErrorCode::OrganizationExists)],
    )
}

const UPDATE_ORGANIZATION: &str = "
    update organizations
    set name = :name, tax_id = :tax_id, status = :status, second_factor_required = :second_factor_required,
        version = version + 1, updated_at = :now
    where id = :id";

pub fn update_organization(w: &Writer<'_>, organization: &Organization) -> Result<()> {
    w.execute(
        UPDATE_ORGANIZATION,
        &[
            (":name", &organization.name),
            (":tax_id", &organization.tax_id),
            (":status", &status(organization.is_active)),
            (":second_factor_required", &organization.requires_second_factor),
            (":now", &w.now()),
            (":id", &organization.id),
        ],
    )
    .map(drop)
}
