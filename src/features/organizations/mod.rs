//! Organizations: the customers of the site. An organization is a tenant.

pub mod api;
pub mod store;

use crate::features::permissions;
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::permission::PLATFORM_ORG_CODE;
use crate::kernel::authz::snapshot::Change;
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp};
pub use store::{Filter, list_organizations};

/// An organization as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    pub org_code: String,
    pub name: String,
    pub tax_id: Option<String>,
    pub is_active: bool,
    /// Whether its members must sign in with a second factor.
    pub requires_second_factor: bool,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Creates an organization with its system roles.
pub fn create(t: &Transaction<'_>, organization: &Organization) -> Result<Vec<Change>> {
    store::insert_organization(t, organization)?;
    let id = organization.id;
    let mut changes = vec![crate::kernel::authz::store::tenant(t, id)?];
    changes.extend(permissions::create_system_roles(t, id, &organization.org_code)?);
    Ok(changes)
}

/// Creates the built-in organization `platform`, whose permissions apply to the whole site. Does nothing if it exists.
pub async fn found_platform(app: &App) -> Result<()> {
    let caller = crate::kernel::authz::principal::Identity::command_line();
    app.change(&caller, "organization.found_platform", |t, _| {
        if t.snapshot().platform().is_some() {
            return Ok(Changed::unchanged(()));
        }
        let platform = Organization {
            id: OrganizationId::new(),
            org_code: PLATFORM_ORG_CODE.into(),
            name: "Platform".into(),
            tax_id: None,
            is_active: true,
            requires_second_factor: false,
            version: 1,
            created_at: t.now(),
            updated_at: t.now(),
        };
        let changes = create(t, &platform)?;
        Ok(Changed::new((), Entry::new("organization", platform.id).within(platform.id)).with_policy_changes(changes))
    })
    .await
    .map(drop)
}
