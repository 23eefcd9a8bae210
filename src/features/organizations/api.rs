//! Operations on organizations.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::store::{self, Filter};
use super::{Organization, create};
use crate::kernel::app::{App, Changed, Committed, Occurrence, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{AdminCaller, InternalCaller};
use crate::kernel::authz::permission::{PLATFORM_ORG_CODE, Permission};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach, delegation};
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{ActiveInactive, Body, Page, Reply, Tag, like, ok, require_version};
use crate::kernel::ids::OrganizationId;

crate::text! {
    /// Unique; cannot change
    OrgCode 1..=64 "^[a-z0-9][a-z0-9._-]*$";
    /// A display name
    OrganizationName 1..=200 "^[^\\x00-\\x1f\\x7f]+$";
    /// The tax number; not unique, because branches share one
    TaxId 1..=64 "^[^\\x00-\\x1f\\x7f]+$";
}

/// An organization, which is a tenant
#[derive(Object)]
#[oai(rename = "Organization")]
struct OrganizationView {
    id: OrganizationId,
    org_code: String,
    name: String,
    #[oai(nullable)]
    tax_id: Option<String>,
    status: ActiveInactive,
    /// Whether its members must use a second factor, wherever they sign in
    second_factor_required: bool,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<Organization> for OrganizationView {
    fn from(organization: Organization) -> Self {
        Self {
            id: organization.id,
            org_code: organization.org_code,
            name: organization.name,
            tax_id: organization.tax_id,
            status: ActiveInactive::of(organization.is_active),
            second_factor_required: organization.requires_second_factor,
            created_at: organization.created_at.0,
            updated_at: organization.updated_at.0,
        }
    }
}

/// A new organization
#[derive(Object)]
struct CreateOrganization {
    org_code: OrgCode,
    name: OrganizationName,
    tax_id: Option<TaxId>,
    /// `active` by default
    status: Option<ActiveInactive>,
    /// Whether its members must sign in with a second factor; false by default
    second_factor_required: Option<bool>,
}

/// The fields of an organization to change
#[derive(Object)]
struct UpdateOrganization {
    name: Option<OrganizationName>,
    /// Null removes it
    #[oai(nullable)]
    tax_id: MaybeUndefined<TaxId>,
    status: Option<ActiveInactive>,
    /// If true, sessions of its members without a second factor are refused from the next request on
    second_factor_required: Option<bool>,
}

crate::document! {
    create_organization: [OrganizationExists] ["etag", "x-policy-epoch"];
    get_organization: [] ["etag"];
    update_organization: [BuiltInOrganization] ["etag", "x-policy-epoch"];
    activate_organization: [] ["etag", "x-policy-epoch"];
    deactivate_organization: [BuiltInOrganization] ["etag", "x-policy-epoch"];

    "CreateOrganization": r#"{"org_code":"acme","name":"Acme Studios","tax_id":"12345678"}"#;
    "UpdateOrganization": r#"{"name":"Acme Pictures"}"#;
    "Organization": r#"{"id":"019abcde-0000-7000-8000-000000000003","org_code":"acme","name":"Acme Studios","tax_id":"12345678","status":"active","second_factor_required":false,"created_at":1763740800000,"updated_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Organizations")]
impl Api {
    /// List organizations
    ///
    /// The platform and API clients get all organizations, members their own.
    #[oai(path = "/admin/organizations", method = "get", operation_id = "list_organizations")]
    async fn list_organizations(
        &self,
        caller: AdminCaller,
        /// Only organizations with this text in the code or name
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        status: Query<Option<ActiveInactive>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<OrganizationView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::ORGANIZATION_LIST)?;
        let filter = Filter {
            only: reach.organization(),
            is_active: status.0.map(ActiveInactive::is_active),
            keyword: like(keyword.0.as_deref()),
        };
        self.page(filter, PageRequest::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an organization
    ///
    /// Also creates its system roles: `tenant_owner`, `tenant_admin`, `member_manager`, `member`, `viewer`.
    #[oai(path = "/admin/organizations", method = "post", operation_id = "create_organization")]
    async fn create_organization(
        &self,
        caller: AdminCaller,
        body: Body<CreateOrganization>,
    ) -> Reply<OrganizationView> {
        let organizations_max = self.app.config.organizations_max;
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::ORGANIZATION_CREATE)?;
            if !OrganizationId::of(&body.0.org_code).is_nil() {
                return Err(Error::field(
                    "org_code",
                    "must not have the form of an id, because X-Tenant-ID accepts both",
                ));
            }
            if t.snapshot().tenants().count() as u64 >= organizations_max {
                let message = format!("the site already has {organizations_max} organizations (limits.organizations)");
                return Err(Error::field("org_code", message));
            }
            let organization = Organization {
                id: OrganizationId::new(),
                org_code: body.0.org_code.0,
                name: body.0.name.0,
                tax_id: body.0.tax_id.map(|text| text.0),
                is_active: body.0.status.is_none_or(ActiveInactive::is_active),
                requires_second_factor: body.0.second_factor_required == Some(true),
                version: 1,
                created_at: t.now(),
                updated_at: t.now(),
            };
            let changes = create(t, &organization)?;
            let entry =
                Entry::new("organization", organization.id).within(organization.id).after(described(&organization));
            Ok(Changed::new(OrganizationView::from(organization), entry).with_policy_changes(changes))
        };
        let made = self.app.create(&caller, "organization.create", Permission::ORGANIZATION_CREATE, make).await?;
        Ok(ok(made.answer).version(1).epoch(made.epoch))
    }

    /// Get an organization
    ///
    /// Returns the organization with this id.
    #[oai(path = "/admin/organizations/:id", method = "get", operation_id = "get_organization")]
    async fn get_organization(&self, caller: AdminCaller, id: Path<OrganizationId>) -> Reply<OrganizationView> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::ORGANIZATION_GET)?;
        require_reached(reach, id.0)?;
        let organization = self.app.read(move |r| store::get_organization(r, id.0)).await?;
        let version = organization.version;
        Ok(ok(organization.into()).version(version))
    }

    /// Update an organization
    ///
    /// Only the platform and API clients can change the status. Only members, not programs, can change whether a second
    /// factor is required; for `platform`, only platform administrators.
    #[oai(path = "/admin/organizations/:id", method = "patch", operation_id = "update_organization")]
    async fn update_organization(
        &self,
        caller: AdminCaller,
        id: Path<OrganizationId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateOrganization>,
    ) -> Reply<OrganizationView> {
        let edit = body.0;
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::ORGANIZATION_UPDATE)?;
            require_reached(reach, id.0)?;
            if let Some(status) = edit.status {
                let permission = if status.is_active() {
                    Permission::ORGANIZATION_ACTIVATE
                } else {
                    Permission::ORGANIZATION_DEACTIVATE
                };
                authz::require(t.snapshot(), caller, permission)?;
            }
            let required = t.snapshot().tenant(id.0).map(|tenant| tenant.requires_second_factor);
            if edit.second_factor_required.is_some() && edit.second_factor_required != required {
                delegation::require_second_factor_rule(t.snapshot(), caller, id.0)?;
            }
            change(t, id.0, if_match.0.as_deref(), |organization| {
                if let Some(name) = edit.name {
                    organization.name = name.0;
                }
                match edit.tax_id {
                    MaybeUndefined::Undefined => {}
                    MaybeUndefined::Null => organization.tax_id = None,
                    MaybeUndefined::Value(tax_id) => organization.tax_id = Some(tax_id.0),
                }
                if let Some(status) = edit.status {
                    organization.is_active = status.is_active();
                }
                if let Some(required) = edit.second_factor_required {
                    organization.requires_second_factor = required;
                }
            })
        };
        answer(self.app.change(&caller, "organization.update", update).await?)
    }

    /// Activate an organization
    ///
    /// Its members have their permissions again. Repeating it changes nothing.
    #[oai(path = "/admin/organizations/:id/activate", method = "post", operation_id = "activate_organization")]
    async fn activate_organization(&self, caller: AdminCaller, id: Path<OrganizationId>) -> Reply<OrganizationView> {
        let activate = move |t: &Transaction<'_>, caller: &Identity| {
            require_reached(authz::require(t.snapshot(), caller, Permission::ORGANIZATION_ACTIVATE)?, id.0)?;
            change(t, id.0, None, |organization| organization.is_active = true)
        };
        answer(self.app.change(&caller, "organization.activate", activate).await?)
    }

    /// Deactivate an organization
    ///
    /// All requests within it are denied from the next request on. No data is deleted.
    #[oai(path = "/admin/organizations/:id/deactivate", method = "post", operation_id = "deactivate_organization")]
    async fn deactivate_organization(&self, caller: AdminCaller, id: Path<OrganizationId>) -> Reply<OrganizationView> {
        let deactivate = move |t: &Transaction<'_>, caller: &Identity| {
            require_reached(authz::require(t.snapshot(), caller, Permission::ORGANIZATION_DEACTIVATE)?, id.0)?;
            change(t, id.0, None, |organization| organization.is_active = false)
        };
        answer(self.app.change(&caller, "organization.deactivate", deactivate).await?)
    }

    /// List organizations, for the services of this site
    ///
    /// A page has up to 500 organizations, more than in `list_organizations`.
    #[oai(path = "/internal/organizations", method = "get", operation_id = "list_organizations_internal")]
    async fn list_organizations_internal(
        &self,
        caller: InternalCaller,
        /// Only organizations with this text in the code or name
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<OrganizationView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::ORGANIZATION_LIST)?;
        let filter = Filter { only: reach.organization(), is_active: None, keyword: like(keyword.0.as_deref()) };
        self.page(filter, PageRequest::internal(limit.0, offset.0, after.0)?).await
    }

    /// Get an organization by its code, for the services of this site
    ///
    /// The code is chosen when the organization is created and cannot change.
    #[oai(
        path = "/internal/organizations/by-code/:org_code",
        method = "get",
        operation_id = "get_organization_by_code"
    )]
    async fn get_organization_by_code(
        &self,
        caller: InternalCaller,
        org_code: Path<String>,
    ) -> Reply<OrganizationView> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::ORGANIZATION_GET)?;
        let named = snapshot.tenant_named(&org_code.0).filter(|tenant| *tenant.org_code == *org_code.0);
        let id = named.ok_or(ErrorCode::OrganizationNotFound)?.id;
        require_reached(reach, id)?;
        let organization = self.app.read(move |r| store::get_organization(r, id)).await?;
        Ok(ok(organization.into()))
    }
}

impl Api {
    async fn page(&self, filter: Filter, window: PageRequest) -> Reply<Page<OrganizationView>> {
        Ok(ok(self.app.read(move |r| store::list_organizations(r, &filter, &window)).await?.into()))
    }
}

fn answer(committed: Committed<Organization>) -> Reply<OrganizationView> {
    let version = committed.answer.version;
    Ok(ok(committed.answer.into()).version(version).epoch(committed.epoch))
}

/// Fails with `OrganizationNotFound` for an organization outside the reach, as for one that does not exist.
fn require_reached(reach: Reach, id: OrganizationId) -> Result<()> {
    if reach.includes(id) { Ok(()) } else { Err(ErrorCode::OrganizationNotFound.into()) }
}

fn change(
    t: &Transaction<'_>,
    id: OrganizationId,
    if_match: Option<&str>,
    edit: impl FnOnce(&mut Organization),
) -> Result<Changed<Organization>> {
    let former = store::get_organization(t, id)?;
    require_version(if_match, former.version)?;
    let mut organization = former.clone();
    edit(&mut organization);
    if organization == former {
        return Ok(Changed::unchanged(former));
    }
    if former.org_code == PLATFORM_ORG_CODE && !organization.is_active {
        return Err(ErrorCode::BuiltInOrganization.into());
    }
    store::update_organization(t, &organization)?;
    if organization.is_active {
        t.react_to(&Occurrence::OrganizationActivated(organization.id))?;
    }
    let organization = store::get_organization(t, id)?;
    let entry = Entry::new("organization", id).within(id).before(described(&former)).after(described(&organization));
    let policy = authz::store::tenant(t, id)?;
    Ok(Changed::new(organization, entry).with_policy_changes([policy]))
}

fn described(organization: &Organization) -> serde_json::Value {
    json!({
        "org_code": organization.org_code,
        "name": organization.name,
        "tax_id": organization.tax_id,
        "is_active": organization.is_active,
        "second_factor_required": organization.requires_second_factor,
    })
}
