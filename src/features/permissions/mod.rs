//! Roles, role assignments, role mappings, and the permission catalog.
//!
//! **Invariant.** A caller can grant only what it holds, and an organization never loses its last owner.

pub mod api;
pub mod import;
pub mod mappers;
mod openapi;
pub mod preview;
pub mod publish;
pub mod role_claims;
pub mod store;
pub mod sync;

use std::sync::Arc;

use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::catalog::{PermissionIndex, UserType};
use crate::kernel::authz::permission::{
    BUILTIN_PERMISSIONS, PLATFORM_ADMIN, PLATFORM_ORG_CODE, ROSTER_APP, SYSTEM_ROLES, TENANT_OWNER, is_role_key, parent,
};
use crate::kernel::authz::snapshot::{Change, Role, RoleKind, Snapshot, Tenant};
use crate::kernel::db::Writer;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{AssignmentId, MappingId, MemberId, OrganizationId, RoleId, Timestamp};
use crate::kernel::nearest::did_you_mean;

pub use store::{list_assignments, list_roles};

/// A role as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRecord {
    pub id: RoleId,
    pub organization: OrganizationId,
    pub key: String,
    pub display_name: String,
    pub creator: Option<MemberId>,
    pub is_open: bool,
    pub is_system: bool,
    pub version: i64,
    pub permissions_version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl RoleRecord {
    /// Whether the role is protected: its permissions cannot be edited, and no mapping can yield it.
    pub fn is_protected(&self) -> bool {
        self.is_system && (self.key == TENANT_OWNER || self.key == PLATFORM_ADMIN)
    }
}

#[derive(Debug, Clone)]
pub struct Assignment {
    pub id: AssignmentId,
    pub organization: OrganizationId,
    pub member: MemberId,
    pub role: RoleId,
    pub role_key: String,
    pub role_display_name: String,
    pub source: Source,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Mapping {
    pub id: MappingId,
    pub organization: OrganizationId,
    pub source: Source,
    pub external_key: String,
    pub role: RoleId,
    pub role_key: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The source of an assignment. A sync changes only the assignments of its own source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Manual,
    Zitadel,
    Ldap,
    Scim,
    Oidc,
    Wordpress,
}

impl Source {
    const ALL: [Self; 6] = [Self::Manual, Self::Zitadel, Self::Ldap, Self::Scim, Self::Oidc, Self::Wordpress];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Zitadel => "zitadel",
            Self::Ldap => "ldap",
            Self::Scim => "scim",
            Self::Oidc => "oidc",
            Self::Wordpress => "wordpress",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// Checks the key of a custom role: it must be well formed and must not start with a reserved prefix.
pub fn require_role_key(key: &str) -> Result<()> {
    let reserved = key.starts_with("system.") || key.starts_with("platform_");
    if is_role_key(key) && !reserved { Ok(()) } else { Err(ErrorCode::RoleKey.into()) }
}

/// Returns the role of a tenant from the policy snapshot. Fails with `RoleNotFound`.
pub fn get_role_in_snapshot(snapshot: &Snapshot, organization: OrganizationId, id: RoleId) -> Result<&Role> {
    snapshot.tenant(organization).and_then(|tenant| tenant.role(id)).ok_or_else(|| ErrorCode::RoleNotFound.into())
}

/// Returns the role of a tenant by its key, from the policy snapshot. Fails with `RoleNotFound`.
pub fn get_role_by_key_in_snapshot<'s>(
    snapshot: &'s Snapshot,
    organization: OrganizationId,
    key: &str,
) -> Result<&'s Role> {
    let mut roles = snapshot.tenant(organization).into_iter().flat_map(Tenant::roles);
    roles.find(|role| *role.key == *key).ok_or_else(|| role_key_not_found(snapshot, organization, key))
}

/// Returns the error for a tenant that has no role with this key.
pub fn role_key_not_found(snapshot: &Snapshot, organization: OrganizationId, key: &str) -> Error {
    let Some(tenant) = snapshot.tenant(organization) else { return ErrorCode::RoleNotFound.into() };
    let mut message = role_key_not_found_message(&tenant.org_code, key, tenant.roles().map(|role| &*role.key));
    if snapshot.is_platform(organization) {
        message.push_str(". To act in another organization, name it with X-Tenant-ID");
    }
    Error::new(ErrorCode::RoleNotFound).with_message(message)
}

/// Returns the message for a role key that an organization does not have, with a suggestion and the keys that exist.
pub fn role_key_not_found_message<'k>(
    organization: &str,
    key: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> String {
    /// The most keys that the message lists.
    const LISTED_MAX: usize = 20;
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    let mut listed = known.iter().take(LISTED_MAX).map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    if known.len() > LISTED_MAX {
        listed.push_str(&format!(" and {} more", known.len() - LISTED_MAX));
    }
    let meant = did_you_mean(key, known);
    match listed.as_str() {
        "" => format!("{organization} has no role `{key}`; it has no roles"),
        listed => format!("{organization} has no role `{key}`{meant}; it has {listed}"),
    }
}

/// Creates an organization's system roles with the permissions that `BUILTIN_PERMISSIONS` gives them.
pub fn create_system_roles(t: &Transaction<'_>, organization: OrganizationId, org_code: &str) -> Result<Vec<Change>> {
    let catalog = &t.snapshot().catalog;
    let mut changes = Vec::new();
    if org_code == PLATFORM_ORG_CODE {
        let (name, holds) = ("Platform administrator", RoleKind::Everything);
        changes.push(create_system_role(t, organization, PLATFORM_ADMIN, name, holds, &[])?);
        return Ok(changes);
    }
    for (key, display_name, letter) in SYSTEM_ROLES {
        let holds = if key == TENANT_OWNER { RoleKind::Tenant } else { RoleKind::Ticked };
        let ticked = BUILTIN_PERMISSIONS.iter().filter(|builtin| key != TENANT_OWNER && builtin.roles.contains(letter));
        let slots: Vec<PermissionIndex> =
            ticked.filter_map(|builtin| catalog.find(builtin.name)).map(|node| node.slot).collect();
        changes.push(create_system_role(t, organization, key, display_name, holds, &slots)?);
    }
    Ok(changes)
}

fn create_system_role(
    t: &Transaction<'_>,
    organization: OrganizationId,
    key: &str,
    display_name: &str,
    holds: RoleKind,
    slots: &[PermissionIndex],
) -> Result<Change> {
    let role = RoleRecord {
        id: RoleId::new(),
        organization,
        key: key.to_owned(),
        display_name: display_name.to_owned(),
        creator: None,
        is_open: true,
        is_system: true,
        version: 1,
        permissions_version: 1,
        created_at: t.now(),
        updated_at: t.now(),
    };
    store::insert_role(t, &role, holds)?;
    for slot in slots {
        store::insert_role_permission(t, role.id, *slot)?;
    }
    authz::store::role(t, organization, role.id)
}

/// Assigns a system role without checking what the caller holds. Used when a site is set up or an organization is
/// created.
pub fn assign_system_role(w: &Writer<'_>, organization: OrganizationId, member: MemberId, key: &str) -> Result<()> {
    let role = store::find_role_by_key(w, organization, key)?.ok_or(ErrorCode::RoleNotFound)?;
    store::insert_assignment(w, organization, member, role.id, Source::Manual)
}

/// Assigns a role with the source `manual`, without checking what the caller holds: this was checked for the creator of
/// the invitation. Does nothing if the member already has the assignment.
pub fn assign_role_unchecked(
    w: &Writer<'_>,
    organization: OrganizationId,
    member: MemberId,
    role: RoleId,
) -> Result<()> {
    let held = store::list_assignments(w, organization, member)?;
    if held.iter().any(|held| held.role == role && held.source == Source::Manual) {
        return Ok(());
    }
    store::insert_assignment(w, organization, member, role, Source::Manual)
}

/// Deletes all role assignments of a member in an organization. Fails if the member is its last active owner.
pub fn delete_all_roles(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    require_not_last(w, organization, member)?;
    store::delete_all_assignments(w, organization, member)
}

/// Fails if the member is the last active owner of the organization, or the last active administrator of the site.
pub fn require_not_last(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    for (key, cause) in [(TENANT_OWNER, ErrorCode::LastOwner), (PLATFORM_ADMIN, ErrorCode::LastAdministrator)] {
        let holds = store::list_assignments(w, organization, member)?.iter().any(|held| held.role_key == key);
        if holds && !store::has_other_active_holder(w, organization, key, member)? {
            return Err(cause.into());
        }
    }
    Ok(())
}

/// Checks [`require_not_last`] in every organization that the member belongs to.
pub fn require_not_last_anywhere(t: &Transaction<'_>, member: MemberId) -> Result<()> {
    let held: Vec<OrganizationId> =
        t.snapshot().tenants().filter(|tenant| tenant.set_of(member).is_some()).map(|tenant| tenant.id).collect();
    held.into_iter().try_for_each(|organization| require_not_last(t, organization, member))
}

/// Whether any active member holds the role with this key.
pub fn has_active_holder(r: &crate::kernel::db::Reader<'_>, organization: OrganizationId, key: &str) -> Result<bool> {
    store::has_other_active_holder(r, organization, key, MemberId(uuid::Uuid::nil()))
}

/// Returns the keys of the roles that a member holds in an organization, for the audit log.
pub fn held_keys(snapshot: &Snapshot, organization: OrganizationId, member: MemberId) -> Vec<String> {
    let tenant = snapshot.tenant(organization);
    tenant.into_iter().flat_map(|tenant| tenant.roles_of(member)).map(|role| role.key.to_string()).collect()
}

/// Adds Roster's own permissions to the catalog and to the system roles. Does nothing if they are up to date.
pub async fn seed(app: &App) -> Result<()> {
    let base_path = app.config.base_path.clone();
    let caller = crate::kernel::authz::principal::Identity::command_line();
    app.change(&caller, "catalog.seed", move |t, _| {
        let (changes, added) = seed_builtin_permissions(t, &base_path)?;
        let entry = Entry::new("catalog", ROSTER_APP).after(serde_json::json!({"added": added}));
        if changes.is_empty() {
            Ok(Changed::unchanged(()))
        } else {
            Ok(Changed::new((), entry).with_policy_changes(changes))
        }
    })
    .await
    .map(drop)
}

fn seed_builtin_permissions(t: &Transaction<'_>, base_path: &str) -> Result<(Vec<Change>, Vec<&'static str>)> {
    let catalog = t.snapshot().catalog.clone();
    let mut added = Vec::new();
    let mut changed = false;
    for (position, builtin) in (0..).zip(BUILTIN_PERMISSIONS) {
        let path = (!builtin.path.is_empty()).then(|| format!("{base_path}{}", builtin.path));
        let known = catalog.find(builtin.name);
        if known.is_some_and(|node| node.http_path.as_deref() == path.as_deref() && node.position == position) {
            continue;
        }
        changed = true;
        let row = store::PermissionRow {
            name: builtin.name,
            app: ROSTER_APP,
            http_methods: path.as_ref().map(|_| builtin.method),
            http_path: path.as_deref(),
            is_open: true,
            user_type: UserType::Backend,
            position,
        };
        store::put_permission(t, &row, known.is_some())?;
        store::set_parent(t, builtin.name, parent(builtin.name))?;
        if known.is_none() {
            added.push(builtin.name);
        }
    }
    if !changed {
        return Ok((Vec::new(), added));
    }
    let stored = authz::store::catalog(t)?;
    let Change::Catalog(fresh) = &stored else { return Err(Error::internal("the change is not a catalog")) };
    let fresh = Arc::clone(fresh);
    let mut changes = vec![stored];
    for (key, _, letter) in SYSTEM_ROLES.iter().filter(|(key, _, _)| *key != TENANT_OWNER) {
        let slots: Vec<PermissionIndex> = BUILTIN_PERMISSIONS
            .iter()
            .filter(|builtin| added.contains(&builtin.name) && builtin.roles.contains(*letter))
            .filter_map(|builtin| fresh.find(builtin.name))
            .map(|node| node.slot)
            .collect();
        for (organization, role) in store::list_system_roles(t, key)? {
            slots.iter().try_for_each(|slot| store::insert_role_permission(t, role, *slot))?;
            changes.push(authz::store::role(t, organization, role)?);
        }
    }
    Ok((changes, added))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_keys_at_their_limits_and_one_past_them() {
        for key in ["ab", "a1", "editor", "a.b-c_d", &"a".repeat(64)] {
            assert!(require_role_key(key).is_ok(), "{key}");
        }
        for key in ["", "a", &"a".repeat(65), "1a", "Ab", "a b", "é1", "system.x", "platform_x", "a/b"] {
            assert!(require_role_key(key).is_err(), "{key}");
        }
    }
}
