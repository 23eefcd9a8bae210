//! The decision: a pure function over one snapshot. Every guard, the check endpoint and the explanation call it.
//!
//! ```text
//! gates   tenant active, member active and in the tenant, path canonical      any fails: deny
//! base    an open role of the member holds an open permission that answers, or a direct grant matches
//! plugins what the organization's plugins said, where they were asked (`kernel::app::evaluate`), settles the rest: `settle`
//! ```

use std::sync::Arc;

use super::catalog::{PermissionIndex, RouteMatch};
use super::path;
use super::permission::Permission;
use super::snapshot::{Right, Role, RoleSet, Snapshot, Status, Tenant};
use crate::kernel::ids::{GrantId, MemberId, OrganizationId, RoleId};

/// What is asked of a member in a tenant.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// `None` asks about the site as a whole: only a direct grant can answer that.
    pub tenant: Option<OrganizationId>,
    pub member: MemberId,
    /// Do the member's rights over the site, and grants in other organizations, count? Not where a gateway vouches for
    /// it, nor where a tenant's own people ask.
    pub with_platform: bool,
    pub target: Target<'a>,
}

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
    /// What every member may do with its own data, such as `video.register`: membership is enough, unless a plugin of
    /// the organization denies it.
    Operation(&'a str),
}

macro_rules! reasons {
    ($($name:ident $word:literal $allow:literal;)*) => {
        /// Why: a closed set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($name,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];
            pub const fn as_str(self) -> &'static str { match self { $(Reason::$name => $word,)* } }
            /// The reason that a word stands for.
            pub fn of(word: &str) -> Option<Self> { Self::ALL.iter().copied().find(|reason| reason.as_str() == word) }
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

/// What one of the organization's plugins said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginEffect {
    /// With or without the right to open what no role does.
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
/// Deny wins, whatever was said before or after. Only what base denied for want of a permission can be opened; whether
/// the question is one that a plugin may open was seen to before it was asked.
pub fn combine_deny_overrides(base: Reason, said: impl IntoIterator<Item = PluginEffect>) -> Reason {
    let mut is_opened = false;
    for one in said {
        match one {
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

/// The rows that a decision is based on. Removing all cited rows turns an allow into a deny.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    pub template: Option<String>,
    /// Names of permissions of which any one answers.
    pub permissions: Vec<Arc<str>>,
    /// Roles the member holds in the tenant.
    pub held: Vec<RoleId>,
    /// Roles of which each one allows; grants of which each one allows.
    pub allowed_by: Vec<MatchedRole>,
    pub grants: Vec<GrantId>,
    /// Open roles of the tenant that would have allowed it.
    pub would_allow: Vec<MatchedRole>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRole {
    pub organization: OrganizationId,
    pub role: RoleId,
    pub role_key: Arc<str>,
    pub permission: Arc<str>,
}

/// `scope_id` that means every scope of its type.
pub const EVERY_SCOPE: &str = "*";

/// Scope types whose `scope_id` names an organization: their rights end with it.
pub const ORGANIZATION_SCOPES: [&str; 2] = ["organization", "tenant"];

pub fn decide(snapshot: &Snapshot, question: &AccessRequest<'_>) -> Decision {
    let reason = reason(snapshot, question);
    Decision { allow: reason.allows(), reason, epoch: snapshot.epoch }
}

fn reason(snapshot: &Snapshot, question: &AccessRequest<'_>) -> Reason {
    let subject = match gates(snapshot, question) {
        Ok(subject) => subject,
        Err(gate) => return gate,
    };
    let by_role = |allowed: bool| if allowed { Reason::OkRole } else { Reason::NoPermission };
    match question.target {
        Target::Grant(right) => grant(snapshot, question, &right).map_or_else(|gate| gate, |_| Reason::OkGrant),
        Target::Operation(_) => Reason::OkRole,
        Target::Builtin(own) => by_role(subject.holds(snapshot.catalog.index_of(own))),
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

/// A member who passed the gates, and what it holds.
struct Subject<'s> {
    snapshot: &'s Snapshot,
    /// The member's roles in the tenant; none when only its rights over the site let it in, or no tenant was named.
    set: Option<&'s RoleSet>,
    /// May the member be a platform administrator, who holds everything everywhere?
    administrator: Option<MemberId>,
    tenant: Option<OrganizationId>,
}

impl Subject<'_> {
    /// Is the permission open, and held?
    fn holds(&self, slot: PermissionIndex) -> bool {
        let catalog = &self.snapshot.catalog;
        let Some(tenant) = self.tenant else { return false };
        catalog.is_open(slot)
            && (self.set.is_some_and(|set| set.holds(catalog, tenant, slot))
                || self.administrator.is_some_and(|member| self.snapshot.is_platform_admin(member)))
    }
}

fn gates<'s>(snapshot: &'s Snapshot, question: &AccessRequest<'_>) -> Result<Subject<'s>, Reason> {
    if !snapshot.is_available() {
        return Err(Reason::SnapshotUnavailable);
    }
    let tenant = match question.tenant {
        Some(id) => Some(snapshot.tenant(id).ok_or(Reason::NotAMember)?),
        None => None,
    };
    if tenant.is_some_and(|tenant| !tenant.is_active) {
        return Err(Reason::TenantInactive);
    }
    let person = snapshot.member_state(question.member).ok_or(Reason::NotAMember)?;
    let subject = Subject {
        snapshot,
        set: tenant.and_then(|tenant| tenant.set_of(question.member)),
        administrator: question.with_platform.then_some(question.member),
        tenant: tenant.map(|tenant| tenant.id),
    };
    let belongs = tenant.is_none() || subject.set.is_some() || reaches_everywhere(snapshot, question);
    // Membership is checked first: the status of a non-member must not be visible to this tenant.
    match (belongs, person.status) {
        (false, _) => Err(Reason::NotAMember),
        (true, Status::Active) => Ok(subject),
        (true, _) => Err(Reason::MemberInactive),
    }
}

/// A platform administrator acts in every tenant.
fn reaches_everywhere(snapshot: &Snapshot, question: &AccessRequest<'_>) -> bool {
    question.with_platform && snapshot.is_platform_admin(question.member)
}

/// The grant that answers; one that is found in an organization that is switched off does not.
fn grant(snapshot: &Snapshot, question: &AccessRequest<'_>, right: &Right<'_>) -> Result<GrantId, Reason> {
    if is_anothers(snapshot, question, right) {
        return Err(Reason::NoPermission);
    }
    let found = matching_grants(snapshot, question.member, right).next().ok_or(Reason::NoPermission)?;
    if is_of_inactive_organization(snapshot, right) { Err(Reason::TenantInactive) } else { Ok(found) }
}

fn matching_grants(snapshot: &Snapshot, member: MemberId, right: &Right<'_>) -> impl Iterator<Item = GrantId> {
    let exact = snapshot.grant(&right.key(member));
    let everywhere = Right { scope_id: EVERY_SCOPE, ..*right };
    // Asked for every scope, the two are one.
    let every = if right.scope_id == EVERY_SCOPE { None } else { snapshot.grant(&everywhere.key(member)) };
    exact.into_iter().chain(every)
}

/// Does a tenant ask about a right in another organization, or in all of them?
fn is_anothers(snapshot: &Snapshot, question: &AccessRequest<'_>, right: &Right<'_>) -> bool {
    let is_of_all = || ORGANIZATION_SCOPES.contains(&right.scope_type) && right.scope_id == EVERY_SCOPE;
    let is_beyond = |tenant| is_of_all() || is_elsewhere(snapshot, tenant, right);
    !question.with_platform && question.tenant.is_some_and(is_beyond)
}

/// Does the right name an organization, and not this one? One for all organizations counts in this one too.
pub fn is_elsewhere(snapshot: &Snapshot, tenant: OrganizationId, right: &Right<'_>) -> bool {
    ORGANIZATION_SCOPES.contains(&right.scope_type)
        && right.scope_id != EVERY_SCOPE
        && snapshot.tenant_named(right.scope_id).is_none_or(|named| named.id != tenant)
}

/// Does the right belong to an organization that is switched off? Such rights drop out at once.
pub fn is_of_inactive_organization(snapshot: &Snapshot, right: &Right<'_>) -> bool {
    ORGANIZATION_SCOPES.contains(&right.scope_type)
        && snapshot.tenant_named(right.scope_id).is_some_and(|tenant| !tenant.is_active)
}

/// All permissions that are in force for a member in a tenant; none when a gate denies.
pub fn effective(
    snapshot: &Snapshot,
    tenant: OrganizationId,
    member: MemberId,
    with_platform: bool,
) -> Vec<PermissionIndex> {
    // Any permission serves to ask the gates.
    let question = AccessRequest { tenant: Some(tenant), member, with_platform, target: Target::Permission("") };
    let Ok(subject) = gates(snapshot, &question) else { return Vec::new() };
    snapshot.catalog.iter().map(|node| node.slot).filter(|slot| subject.holds(*slot)).collect()
}

/// Explains a decision. Never part of the decision itself.
pub fn explain(snapshot: &Snapshot, question: &AccessRequest<'_>) -> Explanation {
    let catalog = &*snapshot.catalog;
    let mut explanation = Explanation::default();
    let slots: Vec<PermissionIndex> = match question.target {
        Target::Grant(right) => {
            if decide(snapshot, question).allow {
                explanation.grants = matching_grants(snapshot, question.member, &right).collect();
            }
            Vec::new()
        }
        Target::Operation(_) => Vec::new(),
        Target::Builtin(own) => vec![catalog.index_of(own)],
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
    let here = question.tenant.and_then(|id| snapshot.tenant(id));
    let allows = gates(snapshot, question).is_ok();
    if let Some(tenant) = here {
        explanation.held = tenant.roles_of(question.member).map(|role| role.id).collect();
        if allows {
            explanation.allowed_by = matched_roles(snapshot, tenant, tenant.roles_of(question.member), &open);
        }
        explanation.would_allow = matched_roles(snapshot, tenant, tenant.roles(), &open);
        explanation.would_allow.retain(|matched| !explanation.held.contains(&matched.role));
    }
    if allows
        && here.is_some()
        && reaches_everywhere(snapshot, question)
        && let Some(platform) = snapshot.platform()
        && here.is_none_or(|tenant| tenant.id != platform.id)
    {
        explanation.allowed_by.extend(matched_roles(snapshot, platform, platform.roles_of(question.member), &open));
    }
    explanation
}

/// The open roles among these that hold one of the permissions.
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
