//! Access requests resolved against the catalog, as plugins see them, and the rules when plugins are called.
//!
//! **Invariant.** Plugins are never called for Roster's own permissions: no plugin can grant them, and none can lock
//! its organization out. A plugin can allow only what a role of the same organization could allow.

use std::borrow::Cow;
use std::sync::Arc;

use super::catalog::{PermissionIndex, RouteMatch};
use super::decide::{AccessRequest, ORGANIZATION_SCOPES, Reason, Target};
use super::path;
use super::permission::ROSTER_APP;
use super::plugin::{Binding, FilterInput};
use super::snapshot::{Right, Snapshot};
use crate::kernel::ids::OrganizationId;

/// The kind of a request, by the name that plugins see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Route,
    Permission,
    Grant,
}

impl RequestKind {
    const ALL: [Self; 3] = [Self::Route, Self::Permission, Self::Grant];

    /// The kind with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Permission => "permission",
            Self::Grant => "grant",
        }
    }
}

/// An access request with its permissions looked up in the catalog.
#[derive(Debug, Clone)]
pub struct ResolvedRequest<'a> {
    pub kind: RequestKind,
    /// The method, the permission's name, or the grant's action.
    pub action: &'a str,
    /// The canonical path of a route. If it has no canonical form: the path as sent, without its query.
    pub path: Cow<'a, str>,
    /// The application of a route or of a permission.
    pub app: Option<Arc<str>>,
    /// The open permissions of which any one is enough.
    pub permissions: Vec<Arc<str>>,
    /// The same with closed permissions. Filters are compared with these, so that closing a permission does not bypass
    /// a plugin that covers it.
    covered: Vec<Arc<str>>,
    pub right: Option<Right<'a>>,
    /// Whether plugins are never called: for Roster's own permissions, unknown permissions, and requests without a
    /// tenant.
    is_protected: bool,
    /// Whether a role or grant of this organization could allow it.
    can_open: bool,
}

impl<'a> ResolvedRequest<'a> {
    pub fn resolve(snapshot: &Snapshot, request: &AccessRequest<'a>) -> Self {
        let mut resolved = match request.target {
            Target::Route { app, method, path } => of_route(snapshot, request.tenant, app, method, path),
            Target::Permission(name) => of_permission(snapshot, request.tenant, name),
            Target::Builtin(builtin) => of_permission(snapshot, request.tenant, builtin.builtin().name),
            // Plugins see the operation's name as a permission.
            Target::Operation(name) => Self {
                permissions: vec![name.into()],
                covered: vec![name.into()],
                ..Self::bare(RequestKind::Permission, name)
            },
            Target::Grant(right) => Self {
                right: Some(right),
                can_open: is_in_tenant(snapshot, request.tenant, &right),
                ..Self::bare(RequestKind::Grant, right.action)
            },
        };
        resolved.is_protected |= request.tenant.is_none();
        resolved
    }

    fn bare(kind: RequestKind, action: &'a str) -> Self {
        Self {
            kind,
            action,
            path: Cow::Borrowed(""),
            app: None,
            permissions: Vec::new(),
            covered: Vec::new(),
            right: None,
            is_protected: false,
            can_open: false,
        }
    }

    /// Whether plugins are called after this base result. They are not if a gate denied, nor for unmapped routes.
    pub fn consults_plugins(&self, base: Reason) -> bool {
        !self.is_protected && (base.allows() || self.is_open_to_plugins(base))
    }

    /// Whether a plugin's `allow` can turn this base result into an allow.
    pub fn is_open_to_plugins(&self, base: Reason) -> bool {
        !self.is_protected && self.can_open && base == Reason::NoPermission
    }

    /// Whether this plugin is called.
    pub fn consults(&self, base: Reason, binding: &Binding) -> bool {
        let can_change_result = base.allows() || (binding.may_grant && self.is_open_to_plugins(base));
        self.consults_plugins(base) && can_change_result && self.is_covered_by(binding)
    }

    /// Whether the filter of this plugin covers the request.
    pub fn is_covered_by(&self, binding: &Binding) -> bool {
        let permissions: Vec<&str> = self.covered.iter().map(AsRef::as_ref).collect();
        binding.filter.covers(&FilterInput {
            permissions: &permissions,
            route: (self.kind == RequestKind::Route).then_some((self.action, &self.path)),
            module: self.right.map(|right| right.module),
        })
    }
}

fn of_route<'a>(
    snapshot: &Snapshot,
    tenant: Option<OrganizationId>,
    app: &str,
    method: &'a str,
    target: &'a str,
) -> ResolvedRequest<'a> {
    let bare = ResolvedRequest {
        app: Some(app.into()),
        is_protected: app == ROSTER_APP,
        path: Cow::Borrowed(target.split('?').next().unwrap_or_default()),
        ..ResolvedRequest::bare(RequestKind::Route, method)
    };
    let Some(path) = path::canonical(target) else { return bare };
    let slots: Vec<PermissionIndex> = match snapshot.catalog.route(app, method, &path) {
        RouteMatch::Permissions(_, slots) => slots.into_iter().flatten().copied().collect(),
        RouteMatch::NoRoute | RouteMatch::OtherMethod(_) => Vec::new(),
    };
    let permissions = open_names(snapshot, tenant, &slots);
    ResolvedRequest { path, can_open: !permissions.is_empty(), covered: names(snapshot, &slots), permissions, ..bare }
}

fn of_permission<'a>(snapshot: &Snapshot, tenant: Option<OrganizationId>, name: &'a str) -> ResolvedRequest<'a> {
    let bare = ResolvedRequest::bare(RequestKind::Permission, name);
    // A name that is not in the catalog is treated like an unmapped path.
    let Some(node) = snapshot.catalog.find(name) else { return ResolvedRequest { is_protected: true, ..bare } };
    let permissions = open_names(snapshot, tenant, &[node.slot]);
    ResolvedRequest {
        app: Some(node.app.clone()),
        is_protected: *node.app == *ROSTER_APP,
        can_open: !permissions.is_empty(),
        covered: names(snapshot, &[node.slot]),
        permissions,
        ..bare
    }
}

fn names(snapshot: &Snapshot, slots: &[PermissionIndex]) -> Vec<Arc<str>> {
    slots.iter().filter_map(|slot| snapshot.catalog.get(*slot)).map(|node| node.name.clone()).collect()
}

/// The names of the permissions that are open and available to the tenant. No plugin can allow a closed permission,
/// which is suspended for everybody, nor one of another organization's application.
fn open_names(snapshot: &Snapshot, tenant: Option<OrganizationId>, slots: &[PermissionIndex]) -> Vec<Arc<str>> {
    let catalog = &snapshot.catalog;
    let is_open =
        |slot: &PermissionIndex| catalog.is_open(*slot) && tenant.is_none_or(|tenant| catalog.is_for(*slot, tenant));
    let open: Vec<PermissionIndex> = slots.iter().copied().filter(is_open).collect();
    names(snapshot, &open)
}

/// Whether the right is for exactly this organization. Direct grants belong to the site, so a plugin of one
/// organization must not allow a right that could belong to another.
fn is_in_tenant(snapshot: &Snapshot, tenant: Option<OrganizationId>, right: &Right<'_>) -> bool {
    ORGANIZATION_SCOPES.contains(&right.scope_type)
        && tenant.is_some()
        && snapshot.tenant_named(right.scope_id).map(|named| named.id) == tenant
}
