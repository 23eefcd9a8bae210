//! An access request resolved against the catalog, as plugins see it; and whether plugins are called for it.
//!
//! **Invariant.** Roster's own permissions are never a matter of plugins: none can hand them out, and none can lock its
//! organization out. A plugin opens only what a role of the same organization could open.

use std::borrow::Cow;
use std::sync::Arc;

use super::catalog::{PermissionIndex, RouteMatch};
use super::decide::{AccessRequest, ORGANIZATION_SCOPES, Reason, Target};
use super::path;
use super::permission::ROSTER_APP;
use super::plugin::{Binding, Topic};
use super::snapshot::{Right, Snapshot};
use crate::kernel::ids::OrganizationId;

/// What is asked: the word that plugins know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Route,
    Permission,
    Grant,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Permission => "permission",
            Self::Grant => "grant",
        }
    }
}

/// A question, looked up in the catalog.
#[derive(Debug, Clone)]
pub struct ResolvedRequest<'a> {
    pub kind: Kind,
    /// The method, the permission's name, or the grant's action.
    pub action: &'a str,
    /// The canonical path of a route; a path that has none, without its query.
    pub path: Cow<'a, str>,
    /// The application of a route or of a permission.
    pub app: Option<Arc<str>>,
    /// Open permissions of which any one answers.
    pub permissions: Vec<Arc<str>>,
    /// Those that would answer, open or not: by closing one of them nobody gets around a plugin that covers it.
    covered: Vec<Arc<str>>,
    pub right: Option<Right<'a>>,
    /// One of Roster's own, or none of an organization's: no plugin is ever asked.
    is_protected: bool,
    /// Could anything of this organization open it at all?
    can_open: bool,
}

impl<'a> ResolvedRequest<'a> {
    pub fn resolve(snapshot: &Snapshot, question: &AccessRequest<'a>) -> Self {
        let mut resolved = match question.target {
            Target::Route { app, method, path } => of_route(snapshot, question.tenant, app, method, path),
            Target::Permission(name) => of_permission(snapshot, question.tenant, name),
            Target::Builtin(own) => of_permission(snapshot, question.tenant, own.builtin().name),
            // Known by its name, as a permission is.
            Target::Operation(name) => Self {
                permissions: vec![name.into()],
                covered: vec![name.into()],
                ..Self::bare(Kind::Permission, name)
            },
            Target::Grant(right) => Self {
                right: Some(right),
                can_open: is_of_its_own(snapshot, question.tenant, &right),
                ..Self::bare(Kind::Grant, right.action)
            },
        };
        resolved.is_protected |= question.tenant.is_none();
        resolved
    }

    fn bare(kind: Kind, action: &'a str) -> Self {
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

    /// Are plugins called after this base result? Not if a gate denied, and not for unmapped routes.
    pub fn consults_plugins(&self, base: Reason) -> bool {
        !self.is_protected && (base.allows() || self.is_open_to_plugins(base))
    }

    /// May a plugin's `allow` open it?
    pub fn is_open_to_plugins(&self, base: Reason) -> bool {
        !self.is_protected && self.can_open && base == Reason::NoPermission
    }

    /// Is this plugin asked?
    pub fn consults(&self, base: Reason, binding: &Binding) -> bool {
        let may_matter = base.allows() || (binding.may_grant && self.is_open_to_plugins(base));
        self.consults_plugins(base) && may_matter && self.is_covered_by(binding)
    }

    pub fn is_covered_by(&self, binding: &Binding) -> bool {
        let permissions: Vec<&str> = self.covered.iter().map(AsRef::as_ref).collect();
        binding.filter.covers(&Topic {
            permissions: &permissions,
            route: (self.kind == Kind::Route).then_some((self.action, &self.path)),
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
        ..ResolvedRequest::bare(Kind::Route, method)
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
    let bare = ResolvedRequest::bare(Kind::Permission, name);
    // A name that no catalog has is no more mapped than a path that none has.
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

/// What is closed is suspended for everybody, and what is another organization's is not this one's to open: no plugin does.
fn open_names(snapshot: &Snapshot, tenant: Option<OrganizationId>, slots: &[PermissionIndex]) -> Vec<Arc<str>> {
    let catalog = &snapshot.catalog;
    let is_open =
        |slot: &PermissionIndex| catalog.is_open(*slot) && tenant.is_none_or(|tenant| catalog.is_for(*slot, tenant));
    let open: Vec<PermissionIndex> = slots.iter().copied().filter(is_open).collect();
    names(snapshot, &open)
}

/// Does the right lie in this very organization? Direct grants belong to the site: one organization's rule gives nothing
/// that could be another's.
fn is_of_its_own(snapshot: &Snapshot, tenant: Option<OrganizationId>, right: &Right<'_>) -> bool {
    ORGANIZATION_SCOPES.contains(&right.scope_type)
        && tenant.is_some()
        && snapshot.tenant_named(right.scope_id).map(|named| named.id) == tenant
}
