//! Roles, their assignments and mappings, direct grants, and the catalog they pick from.
//!
//! **Invariant.** Nobody gives what they do not hold, and an organization never loses its last owner.

pub mod api;
pub mod external_key;
pub mod import;
pub mod mappers;
mod openapi;
pub mod publish;
pub mod role_claims;
pub mod store;
pub mod sync;

use std::sync::Arc;

use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::catalog::PermissionIndex;
use crate::kernel::authz::permission::{
    BUILTIN_PERMISSIONS, PLATFORM_ADMIN, PLATFORM_ORG_CODE, ROSTER_APP, SYSTEM_ROLES, TENANT_OWNER, is_role_key, parent,
};
use crate::kernel::authz::snapshot::{Change, Role, Snapshot, Tenant};
use crate::kernel::db::Writer;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{AssignmentId, MappingId, MemberId, OrganizationId, RoleId, Timestamp};
use crate::kernel::nearest::did_you_mean;

pub use store::list_assignments;

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
    /// May its set of permissions be edited, and may a mapping yield it?
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

/// Where an assignment comes from. A sync touches only its own.
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

    /// The source of a stored word; the schema admits no others.
    pub fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|source| source.as_str() == word).unwrap_or(Self::Manual)
    }
}

/// A custom role's key: one that is well formed, with none of the reserved beginnings.
pub fn require_role_key(key: &str) -> Result<()> {
    let reserved = key.starts_with("system.") || key.starts_with("platform_");
    if is_role_key(key) && !reserved { Ok(()) } else { Err(ErrorCode::RoleKey.into()) }
}

/// The role of a tenant as the policy knows it.
pub fn known_role(snapshot: &Snapshot, organization: OrganizationId, id: RoleId) -> Result<&Role> {
    snapshot.tenant(organization).and_then(|tenant| tenant.role(id)).ok_or_else(|| ErrorCode::RoleNotFound.into())
}

/// The role of a tenant that has this key.
pub fn known_role_of_key<'s>(snapshot: &'s Snapshot, organization: OrganizationId, key: &str) -> Result<&'s Role> {
    let mut roles = snapshot.tenant(organization).into_iter().flat_map(Tenant::roles);
    roles.find(|role| *role.key == *key).ok_or_else(|| no_role_of_key(snapshot, organization, key))
}

/// The failure of a tenant that has no role of this key.
pub fn no_role_of_key(snapshot: &Snapshot, organization: OrganizationId, key: &str) -> Error {
    let Some(tenant) = snapshot.tenant(organization) else { return ErrorCode::RoleNotFound.into() };
    let mut message = without_role(&tenant.org_code, key, tenant.roles().map(|role| &*role.key));
    if snapshot.is_platform(organization) {
        message.push_str(". To act in another organization, name it with X-Tenant-ID");
    }
    Error::new(ErrorCode::RoleNotFound).with_message(message)
}

/// What an organization without a role of this key is told of: what was meant, and which roles it has.
pub fn without_role<'k>(organization: &str, key: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    /// More are not listed.
    const LISTED_MAX: usize = 20;
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    let mut listed = known.iter().take(LISTED_MAX).map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    if known.len() > LISTED_MAX {
        listed.push_str(&format!(" and {} more", known.len() - LISTED_MAX));
    }
    let meant = did_you_mean(key, known);
    match listed.as_str() {
        "" => format!("{organization} has no role `{key}`, and no other one"),
        listed => format!("{organization} has no role `{key}`{meant}; it has {listed}"),
    }
}

/// Makes an organization's system roles, with the ticks of the grid.
pub fn create_system_roles(t: &Transaction<'_>, organization: OrganizationId, org_code: &str) -> Result<Vec<Change>> {
    let catalog = &t.snapshot().catalog;
    let mut changes = Vec::new();
    if org_code == PLATFORM_ORG_CODE {
        changes.push(create_system_role(t, organization, PLATFORM_ADMIN, "Platform administrator", "everything", &[])?);
        return Ok(changes);
    }
    for (key, display_name, letter) in SYSTEM_ROLES {
        let holds = if key == TENANT_OWNER { "tenant" } else { "ticked" };
        let of_grid = BUILTIN_PERMISSIONS.iter().filter(|own| key != TENANT_OWNER && own.roles.contains(letter));
        let slots: Vec<PermissionIndex> =
            of_grid.filter_map(|own| catalog.find(own.name)).map(|node| node.slot).collect();
        changes.push(create_system_role(t, organization, key, display_name, holds, &slots)?);
    }
    Ok(changes)
}

fn create_system_role(
    t: &Transaction<'_>,
    organization: OrganizationId,
    key: &str,
    display_name: &str,
    holds: &str,
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
        store::tick(t, role.id, *slot)?;
    }
    authz::store::role(t, organization, role.id)
}

/// Gives a member a role without asking what the caller holds: for the founding of a site and of an organization.
pub fn assign_system_role(w: &Writer<'_>, organization: OrganizationId, member: MemberId, key: &str) -> Result<()> {
    let role = store::find_role_by_key(w, organization, key)?.ok_or(ErrorCode::RoleNotFound)?;
    store::insert_assignment(w, organization, member, role.id, Source::Manual)
}

/// Assigns a role manually without checking what the caller holds: that was checked for the creator of the invitation.
/// Assigning twice is the same as once.
pub fn give(w: &Writer<'_>, organization: OrganizationId, member: MemberId, role: RoleId) -> Result<()> {
    let held = store::list_assignments(w, organization, member)?;
    if held.iter().any(|held| held.role == role && held.source == Source::Manual) {
        return Ok(());
    }
    store::insert_assignment(w, organization, member, role, Source::Manual)
}

/// Takes all roles of a member in an organization, unless it is the last owner there.
pub fn leave(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    require_not_last(w, organization, member)?;
    store::delete_all_assignments(w, organization, member)
}

/// Fails when the organization would be left without an active owner (or the site without an administrator).
pub fn require_not_last(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    for (key, cause) in [(TENANT_OWNER, ErrorCode::LastOwner), (PLATFORM_ADMIN, ErrorCode::LastAdministrator)] {
        let holds = store::list_assignments(w, organization, member)?.iter().any(|held| held.role_key == key);
        if holds && !store::has_other_active_holder(w, organization, key, member)? {
            return Err(cause.into());
        }
    }
    Ok(())
}

/// The same in every organization the member belongs to.
pub fn require_not_last_anywhere(t: &Transaction<'_>, member: MemberId) -> Result<()> {
    let held: Vec<OrganizationId> =
        t.snapshot().tenants().filter(|tenant| tenant.set_of(member).is_some()).map(|tenant| tenant.id).collect();
    held.into_iter().try_for_each(|organization| require_not_last(t, organization, member))
}

/// Does any active member hold the role of this key?
pub fn has_active_holder(r: &crate::kernel::db::Reader<'_>, organization: OrganizationId, key: &str) -> Result<bool> {
    store::has_other_active_holder(r, organization, key, MemberId(uuid::Uuid::nil()))
}

/// Keys of the roles that a member holds in an organization, for the audit.
pub fn held_keys(snapshot: &Snapshot, organization: OrganizationId, member: MemberId) -> Vec<String> {
    let tenant = snapshot.tenant(organization);
    tenant.into_iter().flat_map(|tenant| tenant.roles_of(member)).map(|role| role.key.to_string()).collect()
}

/// Brings Roster's own entries into the catalog and into the system roles; does nothing when they are there.
pub async fn seed(app: &App) -> Result<()> {
    let base_path = app.config.base_path.clone();
    let caller = crate::kernel::authz::principal::Identity::command_line();
    app.change(&caller, "catalog.seed", move |t, _| {
        let (changes, added) = seed_own(t, &base_path)?;
        let entry = Entry::new("catalog", ROSTER_APP).after(serde_json::json!({"added": added}));
        if changes.is_empty() { Ok(Changed::nothing(())) } else { Ok(Changed::new((), entry).policy(changes)) }
    })
    .await
    .map(drop)
}

fn seed_own(t: &Transaction<'_>, base_path: &str) -> Result<(Vec<Change>, Vec<&'static str>)> {
    let catalog = t.snapshot().catalog.clone();
    let mut added = Vec::new();
    let mut changed = false;
    for (position, own) in (0..).zip(BUILTIN_PERMISSIONS) {
        let path = (!own.path.is_empty()).then(|| format!("{base_path}{}", own.path));
        let known = catalog.find(own.name);
        if known.is_some_and(|node| node.http_path.as_deref() == path.as_deref() && node.position == position) {
            continue;
        }
        changed = true;
        let row = store::PermissionRow {
            name: own.name,
            app: ROSTER_APP,
            http_methods: path.as_ref().map(|_| own.method),
            http_path: path.as_deref(),
            is_open: true,
            user_type: "backend_user",
            position,
        };
        store::put_permission(t, &row, known.is_some())?;
        store::set_parent(t, own.name, parent(own.name))?;
        if known.is_none() {
            added.push(own.name);
        }
    }
    if !changed {
        return Ok((Vec::new(), added));
    }
    let stored = authz::store::catalog(t)?;
    let Change::Catalog(fresh) = &stored else { return Err(Error::internal("the catalog reads as something else")) };
    let fresh = Arc::clone(fresh);
    let mut changes = vec![stored];
    for (key, _, letter) in SYSTEM_ROLES.iter().filter(|(key, _, _)| *key != TENANT_OWNER) {
        let slots: Vec<PermissionIndex> = BUILTIN_PERMISSIONS
            .iter()
            .filter(|own| added.contains(&own.name) && own.roles.contains(*letter))
            .filter_map(|own| fresh.find(own.name))
            .map(|node| node.slot)
            .collect();
        for (organization, role) in store::list_system_roles(t, key)? {
            slots.iter().try_for_each(|slot| store::tick(t, role, *slot))?;
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
