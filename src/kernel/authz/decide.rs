//! The decision: a pure function over one snapshot. Every guard, the check endpoint and the explanation call it.
//!
//! ```text
//! gates   tenant active, member active and in the tenant, path canonical; if one fails: deny
//! base    an open role of the member holds an open permission for the target, or a direct grant matches
//! plugins their effects, if any are called (`kernel::app::evaluate`), are combined by `combine_deny_overrides`
//! ```

use std::sync::Arc;

use super::catalog::{PermissionIndex, RouteMatch};
use super::path;
use super::permission::Permission;
use super::snapshot::{MemberStatus, Right, Role, RoleSet, Snapshot, Tenant};
use crate::kernel::ids::{GrantId, MemberId, OrganizationId, RoleId};

/// An access request: may this member do this in this tenant?
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// `None` is the site as a whole: only a direct grant can allow that.
    pub tenant: Option<OrganizationId>,
    pub member: MemberId,
    /// Whether the member's rights over the site and grants in other organizations count. They do not if a gateway
    /// asserts the member, nor if a member of a tenant asks.
    pub with_platform: bool,
    pub target: Target<'a>,
}

/// What an access request is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    Route {
        app: &'a str,
        method: &'a str,
        path: &'a str,
    },
    Permission(&'a str),
    Builtin(Permission),
    Grant(Right<'a>),
    /// An operation of a member on its own data, such as `video.register`: membership is enough, unless a plugin of the
    /// organization denies it.
    Operation(&'a str),
}

macro_rules! reasons {
    ($($name:ident $text:literal $allow:literal;)*) => {
        /// The reason of a decision: a closed set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($name,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];
            pub const fn as_str(self) -> &'static str { match self { $(Reason::$name => $text,)* } }
            /// The reason with this wire spelling.
            pub fn of(text: &str) -> Option<Self> { Self::ALL.iter().copied().find(|reason| reason.as_str() == text) }
            pub const fn allows(self) -> bool { match self { $(Reason::$name => $allow,)* } }
        }
    };
}

reasons! {
    OkRole "ok_role" true;
    OkGrant "ok_grant" true;
    OkPlugin "ok_plugin" true;
    NoPermission "no_permission" false;
    UnmappedRoute "unmapped_route" false;
    MethodNotMapped "method_not_mapped" false;
    PathNotCanonical "path_not_canonical" false;
    MemberInactive "member_inactive" false;
    NotAMember "not_a_member" false;
    TenantInactive "tenant_inactive" false;
    PluginDenied "plugin_denied" false;
    PluginFailed "plugin_failed" false;
    SnapshotUnavailable "snapshot_unavailable" false;
}

/// The result of one plugin call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginEffect {
    /// `may_grant`: whether the plugin can allow what no role allows.
    Allow {
        may_grant: bool,
    },
    Deny,
    Abstain,
    /// The plugin failed, for any reason. This never counts as an abstention.
    Failed,
}

/// Combines the base decision with the results of the enforced plugins, in their order.
///
/// A deny or a failure overrides every other effect; the first one in order gives the reason. An allow turns only
/// `no_permission` into an allow. The caller checks before whether a plugin may open the request.
pub fn combine_deny_overrides(base: Reason, effects: impl IntoIterator<Item = PluginEffect>) -> Reason {
    let mut is_opened = false;
    for effect in effects {
        match effect {
            PluginEffect::Deny => return Reason::PluginDenied,
            PluginEffect::Failed => return Reason::PluginFailed,
            PluginEffect::Allow { may_grant } => is_opened |= may_grant,
            PluginEffect::Abstain => {}
        }
    }
    if is_opened && base == Reason::NoPermission { Reason::OkPlugin } else { base }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allow: bool,
    pub reason: Reason,
    pub epoch: u64,
}

/// The rows that a decision is based on. Removing all of them turns an allow into a deny.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    pub template: Option<String>,
    /// Names of the permissions of which any one is enough.
    pub permissions: Vec<Arc<str>>,
    /// Roles the member holds in the tenant.
    pub held: Vec<RoleId>,
    /// Held roles each of which allows the request.
    pub allowed_by: Vec<MatchedRole>,
    /// Grants each of which allows the request.
    pub grants: Vec<GrantId>,
    /// Open roles of the tenant that the member does not hold and that would allow the request.
    pub would_allow: Vec<MatchedRole>,
}

/// A role that allows a request, with one permission that does so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRole {
    pub organization: OrganizationId,
    pub role: RoleId,
    pub role_key: Arc<str>,
    pub permission: Arc<str>,
}

/// The `scope_id` that means every scope of its type.
pub const ANY_SCOPE_ID: &str = "*";

/// Scope types whose `scope_id` names an organization: their grants end when the organization is deactivated.
pub const ORGANIZATION_SCOPES: [&str; 2] = ["organization", "tenant"];

/// Decides a request, without plugins.
pub fn decide(snapshot: &Snapshot, request: &AccessRequest<'_>) -> Decision {
    let reason = reason(snapshot, request);
    Decision { allow: reason.allows(), reason, epoch: snapshot.epoch }
}

fn reason(snapshot: &Snapshot, request: &AccessRequest<'_>) -> Reason {
    let subject = match gates(snapshot, request) {
        Ok(subject) => subject,
        Err(denied) => return denied,
    };
    let by_role = |allowed: bool| if allowed { Reason::OkRole } else { Reason::NoPermission };
    match request.target {
        Target::Grant(right) => grant(snapshot, request, &right).map_or_else(|denied| denied, |_| Reason::OkGrant),
        Target::Operation(_) => Reason::OkRole,
        Target::Builtin(builtin) => by_role(subject.holds(snapshot.catalog.index_of(builtin))),
        Target::Permission(name) => by_role(snapshot.catalog.find(name).is_some_and(|node| subject.holds(node.slot))),
        Target::Route { app, method, path } => {
            let Some(path) = path::canonical(path) else { return Reason::PathNotCanonical };
            match snapshot.catalog.route(app, method, &path) {
                RouteMatch::NoRoute => Reason::UnmappedRoute,
                RouteMatch::OtherMethod(_) => Reason::MethodNotMapped,
                RouteMatch::Permissions(_, slots) => {
                    by_role(slots.into_iter().flatten().any(|slot| subject.holds(*slot)))
                }
            }
        }
    }
}

/// A member who passed the gates, with its rights.
struct Subject<'s> {
    snapshot: &'s Snapshot,
    /// The member's roles in the tenant. `None` for a platform administrator outside of the tenant, or without a
    /// tenant.
    set: Option<&'s RoleSet>,
    /// The member, if its rights as a platform administrator count: one holds everything in every tenant.
    administrator: Option<MemberId>,
    tenant: Option<OrganizationId>,
}

impl Subject<'_> {
    /// Whether the permission is open and the member holds it.
    fn holds(&self, slot: PermissionIndex) -> bool {
        let catalog = &self.snapshot.catalog;
        let Some(tenant) = self.tenant else { return false };
        catalog.is_open(slot)
            && (self.set.is_some_and(|set| set.holds(catalog, tenant, slot))
                || self.administrator.is_some_and(|member| self.snapshot.is_platform_admin(member)))
    }
}

fn gates<'s>(snapshot: &'s Snapshot, request: &AccessRequest<'_>) -> Result<Subject<'s>, Reason> {
    if !snapshot.is_available() {
        return Err(Reason::SnapshotUnavailable);
    }
    let tenant = match request.tenant {
        Some(id) => Some(snapshot.tenant(id).ok_or(Reason::NotAMember)?),
        None => None,
    };
    if tenant.is_some_and(|tenant| !tenant.is_active) {
        return Err(Reason::TenantInactive);
    }
    let state = snapshot.member_state(request.member).ok_or(Reason::NotAMember)?;
    let subject = Subject {
        snapshot,
        set: tenant.and_then(|tenant| tenant.set_of(request.member)),
        administrator: request.with_platform.then_some(request.member),
        tenant: tenant.map(|tenant| tenant.id),
    };
    let belongs = tenant.is_none() || subject.set.is_some() || reaches_everywhere(snapshot, request);
    // Membership is checked first: the status of a non-member must not be visible to this tenant.
    match (belongs, state.status) {
        (false, _) => Err(Reason::NotAMember),
        (true, MemberStatus::Active) => Ok(subject),
        (true, _) => Err(Reason::MemberInactive),
    }
}

/// Whether the member acts in every tenant, as a platform administrator.
fn reaches_everywhere(snapshot: &Snapshot, request: &AccessRequest<'_>) -> bool {
    request.with_platform && snapshot.is_platform_admin(request.member)
}

/// The matching grant. A grant in an inactive organization does not count.
fn grant(snapshot: &Snapshot, request: &AccessRequest<'_>, right: &Right<'_>) -> Result<GrantId, Reason> {
    if is_foreign(snapshot, request, right) {
        return Err(Reason::NoPermission);
    }
    let found = matching_grants(snapshot, request.member, right).next().ok_or(Reason::NoPermission)?;
    if is_of_inactive_organization(snapshot, right) { Err(Reason::TenantInactive) } else { Ok(found) }
}

fn matching_grants(snapshot: &Snapshot, member: MemberId, right: &Right<'_>) -> impl Iterator<Item = GrantId> {
    let exact = snapshot.grant(&right.key(member));
    let everywhere = Right { scope_id: ANY_SCOPE_ID, ..*right };
    // If the request is for every scope, both keys are the same.
    let every = if right.scope_id == ANY_SCOPE_ID { None } else { snapshot.grant(&everywhere.key(member)) };
    exact.into_iter().chain(every)
}

/// Whether the request, of a tenant, is about a right in another organization or in all organizations.
fn is_foreign(snapshot: &Snapshot, request: &AccessRequest<'_>, right: &Right<'_>) -> bool {
    let is_of_all = || ORGANIZATION_SCOPES.contains(&right.scope_type) && right.scope_id == ANY_SCOPE_ID;
    let is_beyond = |tenant| is_of_all() || is_in_other_organization(snapshot, tenant, right);
    !request.with_platform && request.tenant.is_some_and(is_beyond)
}

/// Whether the right is for another organization. A right for all organizations is not: it also counts in this one.
pub fn is_in_other_organization(snapshot: &Snapshot, tenant: OrganizationId, right: &Right<'_>) -> bool {
    ORGANIZATION_SCOPES.contains(&right.scope_type)
        && right.scope_id != ANY_SCOPE_ID
        && snapshot.tenant_named(right.scope_id).is_none_or(|named| named.id != tenant)
}

/// Whether the right is for an inactive organization. Deactivation suspends these rights at once.
pub fn is_of_inactive_organization(snapshot: &Snapshot, right: &Right<'_>) -> bool {
    ORGANIZATION_SCOPES.contains(&right.scope_type)
        && snapshot.tenant_named(right.scope_id).is_some_and(|tenant| !tenant.is_active)
}

/// All permissions that a member effectively holds in a tenant; none if a gate denies.
pub fn effective(
    snapshot: &Snapshot,
    tenant: OrganizationId,
    member: MemberId,
    with_platform: bool,
) -> Vec<PermissionIndex> {
    // The gates do not look at the target, so any permission will do.
    let request = AccessRequest { tenant: Some(tenant), member, with_platform, target: Target::Permission("") };
    let Ok(subject) = gates(snapshot, &request) else { return Vec::new() };
    snapshot.catalog.iter().map(|node| node.slot).filter(|slot| subject.holds(*slot)).collect()
}

/// Explains a decision. The decision itself never depends on it.
pub fn explain(snapshot: &Snapshot, request: &AccessRequest<'_>) -> Explanation {
    let catalog = &*snapshot.catalog;
    let mut explanation = Explanation::default();
    let slots: Vec<PermissionIndex> = match request.target {
        Target::Grant(right) => {
            if decide(snapshot, request).allow {
                explanation.grants = matching_grants(snapshot, request.member, &right).collect();
            }
            Vec::new()
        }
        Target::Operation(_) => Vec::new(),
        Target::Builtin(builtin) => vec![catalog.index_of(builtin)],
        Target::Permission(name) => catalog.find(name).map(|node| node.slot).into_iter().collect(),
        Target::Route { app, method, path } => {
            match path::canonical(path).map(|path| catalog.route(app, method, &path)) {
                Some(RouteMatch::Permissions(template, slots)) => {
                    explanation.template = Some(template.to_owned());
                    slots.concat()
                }
                Some(RouteMatch::OtherMethod(template)) => {
                    explanation.template = Some(template.to_owned());
                    Vec::new()
                }
                Some(RouteMatch::NoRoute) | None => Vec::new(),
            }
        }
    };
    let open: Vec<PermissionIndex> = slots.iter().copied().filter(|slot| catalog.is_open(*slot)).collect();
    explanation.permissions =
        slots.iter().filter_map(|slot| catalog.get(*slot)).map(|node| node.name.clone()).collect();
    let here = request.tenant.and_then(|id| snapshot.tenant(id));
    let allows = gates(snapshot, request).is_ok();
    if let Some(tenant) = here {
        explanation.held = tenant.roles_of(request.member).map(|role| role.id).collect();
        if allows {
            explanation.allowed_by = matched_roles(snapshot, tenant, tenant.roles_of(request.member), &open);
        }
        explanation.would_allow = matched_roles(snapshot, tenant, tenant.roles(), &open);
        explanation.would_allow.retain(|matched| !explanation.held.contains(&matched.role));
    }
    if allows
        && here.is_some()
        && reaches_everywhere(snapshot, request)
        && let Some(platform) = snapshot.platform()
        && here.is_none_or(|tenant| tenant.id != platform.id)
    {
        explanation.allowed_by.extend(matched_roles(snapshot, platform, platform.roles_of(request.member), &open));
    }
    explanation
}

/// The open roles among `roles` that hold one of the permissions.
fn matched_roles<'r>(
    snapshot: &Snapshot,
    tenant: &Tenant,
    roles: impl Iterator<Item = &'r Role>,
    open: &[PermissionIndex],
) -> Vec<MatchedRole> {
    roles
        .filter(|role| role.is_open)
        .filter_map(|role| {
            let slot = open.iter().copied().find(|slot| role.holds(&snapshot.catalog, tenant.id, *slot))?;
            Some(MatchedRole {
                organization: tenant.id,
                role: role.id,
                role_key: role.key.clone(),
                permission: snapshot.catalog.get(slot)?.name.clone(),
            })
        })
        .collect()
}
