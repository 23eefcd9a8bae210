//! Operations on roles and their permissions.

use std::collections::BTreeSet;
use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::{OpenClose, PermissionNode, flat};
use crate::features::permissions::preview::{Affected, Preview, preview};
use crate::features::permissions::{self, RoleRecord, get_role_in_snapshot, require_role_key, store};
use crate::kernel::app::{App, Changed, Occurrence, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::GatewayCaller;
use crate::kernel::authz::catalog::{Catalog, PermissionIndex};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, RoleKind, Snapshot};
use crate::kernel::authz::{self, delegation};
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, EmptyReply, Page, Reply, Tag, done, ok, require_version};
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

crate::text! {
    /// The key of a role; its syntax is checked separately, because that failure has its own error code
    RoleKey 2..=64 "";
    /// A display name
    RoleName 0..=200 "^[^\\x00-\\x1f\\x7f]*$";
    /// The name of a permission
    PermissionName 1..=190 "";
}

/// A role of an organization
#[derive(Object)]
#[oai(rename = "Role", skip_serializing_if_is_none)]
pub struct RoleView {
    pub id: RoleId,
    pub tenant_id: OrganizationId,
    /// Unique in the organization; cannot change
    pub key: String,
    pub display_name: String,
    /// The member who created it; absent for system roles
    pub creator_uid: Option<String>,
    pub status: OpenClose,
    /// System roles cannot be deleted and are always open
    pub is_system: bool,
    /// Unix milliseconds
    pub create_at: i64,
    /// Unix milliseconds
    pub update_at: i64,
}

impl RoleView {
    fn of(role: RoleRecord) -> Self {
        Self {
            id: role.id,
            tenant_id: role.organization,
            key: role.key,
            display_name: role.display_name,
            creator_uid: role.creator.map(|id| id.to_string()),
            status: OpenClose::of(role.is_open),
            is_system: role.is_system,
            create_at: role.created_at.0,
            update_at: role.updated_at.0,
        }
    }
}

/// All roles of the organization
#[derive(Object)]
struct RoleList {
    roles: Vec<RoleView>,
}

/// A new role
#[derive(Object)]
struct CreateRole {
    /// 2 to 64 characters of a-z 0-9 _ . - beginning with a letter; not `system.…` or `platform_…`
    key: RoleKey,
    /// A display name; the key by default
    display_name: Option<RoleName>,
    /// `open` by default
    status: Option<OpenClose>,
}

/// The fields of a role to change
#[derive(Object)]
struct UpdateRole {
    display_name: Option<RoleName>,
    /// System roles cannot be closed
    status: Option<OpenClose>,
}

/// The permissions of a role
#[derive(Object)]
struct RolePermissions {
    permissions: Vec<PermissionNode>,
}

/// The complete set of a role's permissions
#[derive(Object)]
struct ReplaceRolePermissions {
    /// Names of permissions; their ancestors are implied, for menus only
    #[oai(validator(max_items = 10_000))]
    permission_ids: Vec<PermissionName>,
    /// Reports what would happen without changing anything
    dry_run: Option<bool>,
}

/// The answer to a new set of permissions
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct ReplacedRolePermissions {
    /// Present only with `dry_run`
    preview: Option<RolePreview>,
}

/// What a new set of permissions of a role would change
#[derive(Object)]
struct RolePreview {
    added: Vec<String>,
    /// Ancestors that would be implied, for menus only, and are not yet
    implied: Vec<String>,
    removed: Vec<String>,
    /// Members who would get a permission that they do not hold by another role
    members_who_gain: AffectedMembers,
    /// Members who would lose a permission that they do not hold by another role
    members_who_lose: AffectedMembers,
}

/// Members whom a change affects
#[derive(Object)]
struct AffectedMembers {
    count: u64,
    /// The first 20
    members: Vec<AffectedMember>,
}

/// A member whom a change affects
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct AffectedMember {
    uid: MemberId,
    /// Only for callers who may list members
    name: Option<String>,
}

/// A member who holds a role
#[derive(Object)]
struct RoleHolder {
    uid: String,
    source: String,
    /// Unix milliseconds
    create_at: i64,
}

crate::document! {
    create_role: [RoleKey, RoleExists] ["etag", "x-policy-epoch"];
    get_role: [RoleNotFound] ["etag"];
    update_role: [NotHeld, RoleNotFound, SystemRole] ["etag", "x-policy-epoch"];
    delete_role: [NotHeld, RoleNotFound, SystemRole, RoleInUse] ["x-policy-epoch"];
    list_role_permissions: [RoleNotFound] ["etag"];
    replace_role_permissions: [NotHeld, RoleNotFound, PermissionNotFound, SystemRole] ["etag", "x-policy-epoch"];
    list_role_members: [RoleNotFound];

    "CreateRole": r#"{"key":"editor","display_name":"Editor","status":"open"}"#;
    "UpdateRole": r#"{"display_name":"Chief editor"}"#;
    "ReplaceRolePermissions": r#"{"permission_ids":["video.list","video.delete"]}"#;
    "PermissionNode": r#"{"id":"video.delete","parent":"video","name":"video.delete","http_methods":"DELETE","http_path":"/videos/:id","status":"open","type":"backend_user"}"#;
    "Role": r#"{"id":"019abcde-0000-7000-8000-000000000001","tenant_id":"019abcde-0000-7000-8000-000000000003","key":"editor","display_name":"Editor","status":"open","is_system":false,"create_at":1763740800000,"update_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Permissions")]
impl Api {
    /// List the organization's roles
    ///
    /// System roles come first. There are no pages: an organization has at most `limits.roles` roles.
    #[oai(path = "/roles", method = "get", operation_id = "list_roles")]
    async fn list_roles(&self, caller: GatewayCaller) -> Reply<RoleList> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::ROLE_LIST)?;
        let roles = self.app.read(move |r| store::list_roles(r, tenant)).await?;
        Ok(ok(RoleList { roles: roles.into_iter().map(RoleView::of).collect() }))
    }

    /// Create a role
    ///
    /// The new role belongs to the organization and has no permissions.
    #[oai(path = "/roles", method = "post", operation_id = "create_role")]
    async fn create_role(&self, caller: GatewayCaller, body: Body<CreateRole>) -> Reply<RoleView> {
        let roles_max = self.app.config.roles_max;
        let create = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::ROLE_CREATE)?;
            require_role_key(&body.0.key)?;
            if store::count_roles(t, tenant)? >= roles_max {
                return Err(Error::field(
                    "key",
                    format!("this organization already has {roles_max} roles (limits.roles)"),
                ));
            }
            let role = RoleRecord {
                id: RoleId::new(),
                organization: tenant,
                display_name: body.0.display_name.map_or_else(|| body.0.key.0.clone(), |name| name.0),
                key: body.0.key.0,
                creator: caller.member(),
                is_open: body.0.status.is_none_or(OpenClose::is_open),
                is_system: false,
                version: 1,
                permissions_version: 1,
                created_at: t.now(),
                updated_at: t.now(),
            };
            store::insert_role(t, &role, RoleKind::Ticked)?;
            let entry = Entry::new("role", role.id).within(tenant).after(described(&role));
            let change = authz::store::role(t, tenant, role.id)?;
            Ok(Changed::new(RoleView::of(role), entry).with_policy_changes([change]))
        };
        let made = self.app.create(&caller, "role.create", Permission::ROLE_CREATE, create).await?;
        Ok(ok(made.answer).version(1).epoch(made.epoch))
    }

    /// Get a role
    ///
    /// Returns the role with this id; for its permissions see `/permissions/roles/{id}/permissions`.
    #[oai(path = "/roles/:id", method = "get", operation_id = "get_role")]
    async fn get_role(&self, caller: GatewayCaller, id: Path<RoleId>) -> Reply<RoleView> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::ROLE_GET)?;
        let role = self.app.read(move |r| store::get_role(r, tenant, id.0)).await?;
        let version = role.version;
        Ok(ok(RoleView::of(role)).version(version))
    }

    /// Update a role
    ///
    /// Changes its display name or status. Closing a role suspends it: assignments stay, and have effect again when it
    /// is opened. System roles cannot be closed.
    #[oai(path = "/roles/:id", method = "patch", operation_id = "update_role")]
    async fn update_role(
        &self,
        caller: GatewayCaller,
        id: Path<RoleId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateRole>,
    ) -> Reply<RoleView> {
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::ROLE_UPDATE)?;
            let former = store::get_role(t, tenant, id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let mut role = former.clone();
            if let Some(status) = body.0.status {
                role.is_open = status.is_open();
            }
            if role.is_system && !role.is_open {
                return Err(ErrorCode::SystemRole.into());
            }
            // Opening a role grants its permissions to all members who hold it; closing it revokes them.
            let known = get_role_in_snapshot(t.snapshot(), tenant, role.id)?;
            if role.is_open && !former.is_open {
                delegation::require_held(t.snapshot(), caller, tenant, known)?;
            }
            if !role.is_open && former.is_open {
                delegation::require_may_revoke(t.snapshot(), caller, tenant, known)?;
            }
            if let Some(name) = body.0.display_name {
                role.display_name = name.0;
            }
            if role == former {
                return Ok(Changed::unchanged(role));
            }
            store::update_role(t, &role)?;
            let role = store::get_role(t, tenant, role.id)?;
            let entry = Entry::new("role", role.id).within(tenant).before(described(&former)).after(described(&role));
            let change = authz::store::role(t, tenant, role.id)?;
            Ok(Changed::new(role, entry).with_policy_changes([change]))
        };
        let updated = self.app.change(&caller, "role.update", update).await?;
        let version = updated.answer.version;
        Ok(ok(RoleView::of(updated.answer)).version(version).epoch(updated.epoch))
    }

    /// Delete a role
    ///
    /// Refused while members hold it or a mapping yields it, and for system roles. The caller must hold all its
    /// permissions.
    #[oai(path = "/roles/:id", method = "delete", operation_id = "delete_role")]
    async fn delete_role(
        &self,
        caller: GatewayCaller,
        id: Path<RoleId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::ROLE_DELETE)?;
            let role = store::get_role(t, tenant, id.0)?;
            require_version(if_match.0.as_deref(), role.version)?;
            if role.is_system {
                return Err(ErrorCode::SystemRole.into());
            }
            if store::role_is_used(t, role.id)? {
                return Err(ErrorCode::RoleInUse.into());
            }
            delegation::require_may_revoke(
                t.snapshot(),
                caller,
                tenant,
                get_role_in_snapshot(t.snapshot(), tenant, role.id)?,
            )?;
            // Open invitations with this role are withdrawn.
            let withdrawn = store::count_open_invitations(t, role.id)?;
            t.react_to(&Occurrence::RoleDeleted(role.id))?;
            store::delete_role(t, &role)?;
            let mut entry = Entry::new("role", role.id).within(tenant).before(described(&role));
            if withdrawn > 0 {
                entry = entry.after(json!({"invitations_withdrawn": withdrawn}));
            }
            Ok(Changed::new((), entry).with_policy_changes([Change::RoleDeleted(tenant, role.id)]))
        };
        let deleted = self.app.change(&caller, "role.delete", delete).await?;
        Ok(done().epoch(deleted.epoch))
    }

    /// List the permissions of a role
    ///
    /// Includes ancestors that are only implied, and marks them. The ETag is the version of the set, not of the role.
    #[oai(path = "/roles/:id/permissions", method = "get", operation_id = "list_role_permissions")]
    async fn list_role_permissions(&self, caller: GatewayCaller, id: Path<RoleId>) -> Reply<RolePermissions> {
        let snapshot = self.app.snapshot();
        let tenant = authz::require_in_tenant(&snapshot, &caller, Permission::ROLE_LIST_PERMISSIONS)?;
        let role = self.app.read(move |r| store::get_role(r, tenant, id.0)).await?;
        let slots = held_slots(&snapshot, tenant, role.id)?;
        let catalog = &snapshot.catalog;
        let mut permissions = flat(catalog, slots.into_iter());
        let known = get_role_in_snapshot(&snapshot, tenant, role.id)?;
        for node in &mut permissions {
            let is_held = catalog.find(&node.name).is_some_and(|found| known.holds(catalog, tenant, found.slot));
            node.implied = (!is_held).then_some(true);
        }
        Ok(ok(RolePermissions { permissions }).version(role.permissions_version))
    }

    /// Replace the permissions of a role
    ///
    /// The list is the complete set; ancestors are implied, for menus only. An id that the role has as an implied
    /// ancestor stays implied, so a list that was read can be sent back. A caller can add and remove only permissions
    /// that it holds. With `dry_run` nothing changes, and the answer has a `preview`.
    #[oai(path = "/roles/:id/permissions", method = "put", operation_id = "replace_role_permissions")]
    async fn replace_role_permissions(
        &self,
        caller: GatewayCaller,
        id: Path<RoleId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<ReplaceRolePermissions>,
    ) -> Reply<ReplacedRolePermissions> {
        let replace = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::ROLE_GRANT)?;
            let role = store::get_role(t, tenant, id.0)?;
            require_version(if_match.0.as_deref(), role.permissions_version)?;
            if role.is_protected() {
                return Err(ErrorCode::SystemRole.into());
            }
            let names = body.0.permission_ids.iter().map(|name| name.0.as_str());
            let ticked = ticks(t, caller, tenant, role.id, names)?;
            if body.0.dry_run == Some(true) {
                let preview = RolePreview::of(t, caller, tenant, preview(t.snapshot(), tenant, role.id, &ticked)?)?;
                return Ok(Changed::unchanged((role.permissions_version, Some(preview))));
            }
            store::replace_role_permissions(t, role.id, &ticked)?;
            let before =
                names_of(&t.snapshot().catalog, get_role_in_snapshot(t.snapshot(), tenant, role.id)?.ticked.iter());
            let after = names_of(&t.snapshot().catalog, ticked.into_iter());
            let entry = Entry::new("role", role.id)
                .within(tenant)
                .before(json!({"permissions": before}))
                .after(json!({"permissions": after}));
            let change = authz::store::role(t, tenant, role.id)?;
            Ok(Changed::new((role.permissions_version + 1, None), entry).with_policy_changes([change]))
        };
        let replaced = self.app.change(&caller, "role.grant", replace).await?;
        let (version, preview) = replaced.answer;
        Ok(ok(ReplacedRolePermissions { preview }).version(version).epoch(replaced.epoch))
    }

    /// List the holders of a role
    ///
    /// Returns members, each with the source of the assignment: `manual` or an external system.
    #[oai(path = "/roles/:id/users", method = "get", operation_id = "list_role_members")]
    async fn list_role_members(
        &self,
        caller: GatewayCaller,
        id: Path<RoleId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<RoleHolder>> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::ROLE_LIST_MEMBERS)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let holders = self
            .app
            .read(move |r| {
                let role = store::get_role(r, tenant, id.0)?;
                store::list_holders(r, (tenant, role.id), &window)
            })
            .await?;
        let view = |held: permissions::Assignment| RoleHolder {
            uid: held.member.to_string(),
            source: held.source.as_str().into(),
            create_at: held.created_at.0,
        };
        Ok(ok(holders.map(view).into()))
    }
}

impl RolePreview {
    /// The preview as the caller can see it: names of members only if it may list them.
    fn of(t: &Transaction<'_>, caller: &Identity, tenant: OrganizationId, preview: Preview) -> Result<Self> {
        let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_LIST);
        let shows_names = reach.is_ok_and(|reach| reach.includes(tenant));
        let members = |affected: Affected| {
            let named = affected.first.into_iter().map(|uid| {
                let name = if shows_names { store::find_member_name(t, uid)? } else { None };
                Ok(AffectedMember { uid, name })
            });
            Ok::<_, Error>(AffectedMembers { count: affected.count, members: named.collect::<Result<_>>()? })
        };
        let names = |slots: Vec<PermissionIndex>| names_of(&t.snapshot().catalog, slots.into_iter());
        Ok(Self {
            added: names(preview.added),
            implied: names(preview.implied),
            removed: names(preview.removed),
            members_who_gain: members(preview.gain)?,
            members_who_lose: members(preview.lose)?,
        })
    }
}

fn described(role: &RoleRecord) -> serde_json::Value {
    json!({"key": role.key, "display_name": role.display_name, "status": store::status(role.is_open)})
}

fn names_of(catalog: &Catalog, slots: impl Iterator<Item = PermissionIndex>) -> Vec<String> {
    slots.filter_map(|slot| catalog.get(slot)).map(|node| node.name.to_string()).collect()
}

/// Returns the permissions that a role holds, with their implied ancestors.
fn held_slots(snapshot: &Snapshot, tenant: OrganizationId, role: RoleId) -> Result<BTreeSet<PermissionIndex>> {
    let catalog = &snapshot.catalog;
    let role = get_role_in_snapshot(snapshot, tenant, role)?;
    let held: BTreeSet<PermissionIndex> =
        catalog.iter().map(|node| node.slot).filter(|slot| role.holds(catalog, tenant, *slot)).collect();
    Ok(held.iter().flat_map(|slot| std::iter::once(*slot).chain(catalog.ancestors(*slot))).collect())
}

/// Resolves the names of permissions to the set to store, without ancestors that stay implied. Fails if one is unknown,
/// is not available to the organization, or the caller may not add or remove it.
fn ticks<'n>(
    t: &Transaction<'_>,
    caller: &Identity,
    tenant: OrganizationId,
    role: RoleId,
    names: impl Iterator<Item = &'n str>,
) -> Result<Vec<PermissionIndex>> {
    let (snapshot, catalog) = (t.snapshot(), &t.snapshot().catalog);
    let mut sent: BTreeSet<PermissionIndex> = BTreeSet::new();
    for name in names {
        let node = catalog.find(name).ok_or_else(|| {
            Error::new(ErrorCode::PermissionNotFound).with_message(format!("there is no permission {name}"))
        })?;
        sent.insert(node.slot);
    }
    let role = get_role_in_snapshot(snapshot, tenant, role)?;
    let former = &role.ticked;
    let was_implied: BTreeSet<PermissionIndex> =
        former.iter().flat_map(|slot| catalog.ancestors(slot)).filter(|slot| !former.contains(*slot)).collect();
    let is_implied: BTreeSet<PermissionIndex> = sent.iter().flat_map(|slot| catalog.ancestors(*slot)).collect();
    sent.retain(|slot| !(was_implied.contains(slot) && is_implied.contains(slot)));
    for slot in sent.iter().copied().filter(|slot| !former.contains(*slot)) {
        let node = catalog.get(slot).ok_or(ErrorCode::PermissionNotFound)?;
        if !catalog.is_for(slot, tenant) {
            let message =
                format!("{} belongs to the application {}, which this organization does not have", node.name, node.app);
            return Err(Error::new(ErrorCode::NotHeld).with_message(message));
        }
        if !catalog.is_in_tenant(slot, tenant) && !snapshot.is_platform(tenant) {
            let message =
                format!("{} is a permission for the whole site: only roles of `platform` can have it", node.name);
            return Err(Error::new(ErrorCode::NotHeld).with_message(message));
        }
    }
    delegation::require_may_retick(snapshot, caller, (tenant, role), &sent)?;
    Ok(sent.into_iter().collect())
}
