//! Delegation rules: what each kind of principal may grant, change and create. Every operation that passes rights on
//! checks this one table.
//!
//! **Invariant.** No principal can grant what it does not hold, by any operation. A program holds exactly what its
//! scopes allow. It cannot change an administrator, and cannot create one.

use std::collections::BTreeSet;

use super::Reach;
use super::catalog::{Catalog, PermissionIndex};
use super::client;
use super::decide::{AccessRequest, Target, decide};
use super::permission::{PLATFORM_ADMIN, Permission, ROSTER_APP, TENANT_ADMIN, TENANT_OWNER};
use super::snapshot::{Right, Role, Snapshot};
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};

/// The kinds of principals that the rules distinguish, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    CommandLine,
    Member,
    /// A member whom a trusted gateway asserts.
    Asserted,
    Client,
    ServiceKey,
    MemberKey,
    /// A service of this site with the internal secret, or a signed call of an external system.
    Internal,
    /// An unauthenticated caller.
    Visitor,
}

/// What is granted, changed or created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delegable {
    /// A permission or a role of an organization: in a role, by assignment, mapping, sync or invitation.
    Role,
    /// The role of an owner or of a platform administrator, by invitation.
    Ownership,
    /// A direct grant.
    Right,
    /// A membership in the organization `platform`.
    PlatformSeat,
    /// Profile, e-mail, credentials, identities and status of another member.
    Account,
    /// A password hash that another system computed: it bypasses the password rules.
    PasswordHash,
    /// Scopes of an API client or of a service's API key.
    Scope,
    /// The activation of a plugin that can grant rights.
    Plugin,
    /// The quotas of members and organizations.
    Quota,
    /// Whether an organization requires a second factor. The rule decides who can sign in.
    SecondFactorRule,
}

/// How much of it a principal may grant, change or create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    All,
    /// What the principal holds itself.
    Held,
    /// What the scopes of the program allow.
    ByScope,
    Nothing,
}

const KINDS: usize = 8;

#[rustfmt::skip]
mod table {
    use super::Delegable;
    use super::Limit::{self, All, Held, Nothing, ByScope};

    pub const TABLE: [(Delegable, [Limit; super::KINDS]); 10] = [
        //                    command line  member   asserted  client   service key  member's key  internal  visitor
        (Delegable::Role,         [All,          Held,    Held,     ByScope,  Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::Ownership,    [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::Right,        [All,          Held,    Nothing,  ByScope,  Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::PlatformSeat, [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::Account,      [All,          Held,    Nothing,  ByScope,  Nothing,     Nothing,      ByScope,   Nothing]),
        (Delegable::PasswordHash, [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::Scope,        [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::Plugin,       [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Delegable::Quota,        [All,          Held,    Nothing,  ByScope,  ByScope,      Held,         Nothing,  Nothing]),
        (Delegable::SecondFactorRule,
                             [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
    ];
}

impl PrincipalKind {
    fn of(principal: &Principal) -> Self {
        match principal {
            Principal::CommandLine => Self::CommandLine,
            Principal::Member(_) => Self::Member,
            Principal::Asserted(_) => Self::Asserted,
            Principal::Client(_) => Self::Client,
            Principal::Key(key) if key.member().is_none() => Self::ServiceKey,
            Principal::Key(_) => Self::MemberKey,
            Principal::Internal => Self::Internal,
            Principal::Visitor => Self::Visitor,
        }
    }
}

/// Looks up the limit of a principal in the table.
fn limit(principal: &Principal, gift: Delegable) -> Limit {
    let column = PrincipalKind::of(principal) as usize;
    table::TABLE.iter().find(|(of, _)| *of == gift).map_or(Limit::Nothing, |(_, limits)| limits[column])
}

/// Fails with `forbidden` for kinds of principals that can grant nothing of this. The limits of the others are checked
/// by the functions below.
pub fn require_any(caller: &Identity, gift: Delegable) -> Result<()> {
    let message = match gift {
        Delegable::PlatformSeat => "programs cannot add members to `platform`",
        Delegable::PasswordHash => {
            "programs cannot set a password hash: only a platform administrator or the command line can"
        }
        Delegable::SecondFactorRule => {
            "programs cannot decide who needs a second factor: only a signed-in member or the command line can"
        }
        _ => "programs cannot grant this",
    };
    if limit(&caller.principal, gift) == Limit::Nothing {
        Err(Error::new(ErrorCode::Forbidden).with_message(message))
    } else {
        Ok(())
    }
}

// ── what the scopes of a program allow ──

/// The scopes of the internal secret: services of this site synchronize members, look up organizations and request
/// decisions.
const INTERNAL_SCOPES: [&str; 3] = ["members:write", "organizations:read", "permissions:check"];

/// The scope to assign roles with permissions of the organization's applications, and to grant direct rights.
const GRANT_SCOPE: &str = "permissions:write";

/// Whether the scopes of this program cover `scope`. Members have no scopes.
pub fn has_scope(principal: &Principal, scope: &str) -> bool {
    match principal {
        Principal::Client(client) => client.has_scope(scope),
        Principal::Key(key) => key.has_scope(scope),
        Principal::Internal => INTERNAL_SCOPES.iter().any(|held| client::covers(held, scope)),
        Principal::CommandLine | Principal::Member(_) | Principal::Asserted(_) | Principal::Visitor => false,
    }
}

/// Whether the scopes of a program allow it to grant this permission. Of Roster's own permissions, it can grant those
/// that it may use itself.
fn opens(catalog: &Catalog, principal: &Principal, slot: PermissionIndex) -> bool {
    let Some(node) = catalog.get(slot) else { return false };
    if *node.app != *ROSTER_APP {
        return has_scope(principal, GRANT_SCOPE);
    }
    Permission::all()
        .find(|builtin| catalog.index_of(*builtin) == slot)
        .is_some_and(|builtin| opens_builtin(principal, builtin))
}

/// Like `opens`, for one of Roster's own permissions.
fn opens_builtin(principal: &Principal, permission: Permission) -> bool {
    let builtin = permission.builtin();
    // A category allows nothing by itself.
    builtin.method.is_empty() || builtin.scope.is_some_and(|scope| has_scope(principal, scope))
}

/// Whether a program must treat this role as administrative: the role of an owner or administrator, a role of
/// `platform`, or a role with a changing operation of Roster that the program's scopes do not cover.
fn is_administrative(snapshot: &Snapshot, principal: &Principal, tenant: OrganizationId, role: &Role) -> bool {
    let catalog = &snapshot.catalog;
    let is_change = |permission: &Permission| !permission.builtin().method.is_empty() && !permission.is_read_only();
    snapshot.is_platform(tenant)
        || is_administrators(role)
        || Permission::all()
            .filter(is_change)
            .any(|builtin| role.holds(catalog, tenant, catalog.index_of(builtin)) && !opens_builtin(principal, builtin))
}

/// Whether the role holds a permission of an application other than Roster.
fn is_of_applications(snapshot: &Snapshot, tenant: OrganizationId, role: &Role) -> bool {
    let catalog = &snapshot.catalog;
    catalog.iter().any(|node| *node.app != *ROSTER_APP && role.holds(catalog, tenant, node.slot))
}

/// Whether the role is an owner's or administrator's by its key or kind, independent of its current permissions.
fn is_administrators(role: &Role) -> bool {
    role.is_protected() || [TENANT_OWNER, TENANT_ADMIN, PLATFORM_ADMIN].contains(&&*role.key)
}

// ── permissions and roles ──

/// Whether the caller may grant this permission in the tenant.
pub fn holds(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, slot: PermissionIndex) -> bool {
    let catalog = &snapshot.catalog;
    match limit(&caller.principal, Delegable::Role) {
        Limit::All => true,
        Limit::Nothing => false,
        // In `platform` the same permissions are rights over the site, which no program can grant.
        Limit::ByScope => {
            !snapshot.is_platform(tenant)
                && catalog.is_in_tenant(slot, tenant)
                && opens(catalog, &caller.principal, slot)
        }
        Limit::Held => {
            let Some(id) = caller.member() else { return false };
            let here = snapshot.tenant(tenant).and_then(|tenant| tenant.set_of(id));
            is_platform_admin(snapshot, caller) || here.is_some_and(|set| set.holds(catalog, tenant, slot))
        }
    }
}

/// Whether the caller is a signed-in platform administrator. A gateway cannot act with rights over the site.
fn is_platform_admin(snapshot: &Snapshot, caller: &Identity) -> bool {
    matches!(caller.principal, Principal::Member(id) if snapshot.is_platform_admin(id))
}

/// Fails with `not_held` unless the caller may grant every permission of the role.
pub fn require_held(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, role: &Role) -> Result<()> {
    let catalog = &snapshot.catalog;
    if limit(&caller.principal, Delegable::Role) == Limit::ByScope && is_administrators(role) {
        let message =
            format!("programs cannot assign the role {}: only a signed-in member or the command line can", role.key);
        return Err(Error::new(ErrorCode::NotHeld).with_message(message));
    }
    let given = catalog.iter().map(|node| node.slot).filter(|slot| role.holds(catalog, tenant, *slot));
    let missing = given.into_iter().find(|slot| !holds(snapshot, caller, tenant, *slot));
    match missing {
        None => Ok(()),
        Some(slot) => {
            let name = catalog.get(slot).map_or("", |node| &node.name);
            Err(Error::new(ErrorCode::NotHeld)
                .with_message(format!("you cannot give {name}, which you do not hold yourself")))
        }
    }
}

/// Whether the caller may tick or untick this permission in a role: it may grant the permission, or the permission is a
/// category, which allows nothing by itself, above one that it may grant.
fn may_tick(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, slot: PermissionIndex) -> bool {
    let catalog = &snapshot.catalog;
    let is_category = || catalog.get(slot).is_some_and(|node| node.http_path.is_none());
    let is_above = |below: PermissionIndex| catalog.ancestors(below).any(|above| above == slot);
    let may_below = |below: PermissionIndex| is_above(below) && holds(snapshot, caller, tenant, below);
    holds(snapshot, caller, tenant, slot) || (is_category() && catalog.iter().any(|below| may_below(below.slot)))
}

/// Fails with `not_held` if the change adds a permission that the caller may not grant, or removes one that is in
/// effect.
pub fn require_may_retick(
    snapshot: &Snapshot,
    caller: &Identity,
    (tenant, role): (OrganizationId, &Role),
    ticked: &BTreeSet<PermissionIndex>,
) -> Result<()> {
    let catalog = &snapshot.catalog;
    let added = ticked.iter().copied().filter(|slot| !role.ticked.contains(*slot)).map(|slot| (slot, "give"));
    // Removing a permission that the organization cannot hold has no effect.
    let is_in_effect = |slot: &PermissionIndex| {
        role.holds(catalog, tenant, *slot) && (catalog.is_in_tenant(*slot, tenant) || snapshot.is_platform(tenant))
    };
    let lost =
        role.ticked.iter().filter(|slot| !ticked.contains(slot)).filter(is_in_effect).map(|slot| (slot, "take away"));
    match added.chain(lost).find(|(slot, _)| !may_tick(snapshot, caller, tenant, *slot)) {
        None => Ok(()),
        Some((slot, what)) => {
            let name = catalog.get(slot).map_or("", |node| &node.name);
            Err(Error::new(ErrorCode::NotHeld)
                .with_message(format!("you cannot {what} {name}, which you do not hold yourself")))
        }
    }
}

/// Fails with `not_held` unless the caller may revoke this role. A member must hold all permissions of the role. A
/// program need not, so that it can revoke all roles of a member who leaves, but it cannot revoke administrative roles.
pub fn require_may_revoke(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, role: &Role) -> Result<()> {
    if limit(&caller.principal, Delegable::Account) != Limit::ByScope {
        return require_held(snapshot, caller, tenant, role);
    }
    let message =
        format!("programs cannot revoke the role {}: only a signed-in member or the command line can", role.key);
    let is_rejected = is_administrative(snapshot, &caller.principal, tenant, role);
    if is_rejected { Err(Error::new(ErrorCode::NotHeld).with_message(message)) } else { Ok(()) }
}

/// Fails unless the caller may add somebody to an organization, with this role or without a role.
pub fn require_may_invite(
    snapshot: &Snapshot,
    caller: &Identity,
    tenant: OrganizationId,
    role: Option<&Role>,
) -> Result<()> {
    // Members of `platform` can get rights over the site, so only platform administrators can add any.
    let may_change_platform =
        limit(&caller.principal, Delegable::PlatformSeat) == Limit::All || is_platform_admin(snapshot, caller);
    if snapshot.is_platform(tenant) && !may_change_platform {
        return Err(
            Error::new(ErrorCode::Forbidden).with_message("only a platform administrator can invite to `platform`")
        );
    }
    let Some(role) = role else { return Ok(()) };
    let is_owner_role = [TENANT_OWNER, PLATFORM_ADMIN].contains(&&*role.key);
    if is_owner_role && limit(&caller.principal, Delegable::Ownership) == Limit::Nothing {
        return Err(Error::new(ErrorCode::SystemRole).with_message(
            "only a signed-in member or the command line can invite an owner or a platform administrator",
        ));
    }
    require_held(snapshot, caller, tenant, role)
}

/// Fails with `forbidden` unless the caller's kind may decide whether this organization requires a second factor. For
/// `platform` it must be a platform administrator or the command line.
pub fn require_second_factor_rule(snapshot: &Snapshot, caller: &Identity, organization: OrganizationId) -> Result<()> {
    require_any(caller, Delegable::SecondFactorRule)?;
    let may_change_platform =
        limit(&caller.principal, Delegable::SecondFactorRule) == Limit::All || is_platform_admin(snapshot, caller);
    if snapshot.is_platform(organization) && !may_change_platform {
        let message = "only a platform administrator can decide who needs a second factor in `platform`";
        return Err(Error::new(ErrorCode::Forbidden).with_message(message));
    }
    Ok(())
}

// ── direct rights ──

/// Fails with `not_held` unless the caller holds the right, is a platform administrator, or is a program with the scope
/// to grant.
pub fn require_right_held(snapshot: &Snapshot, caller: &Identity, right: &Right<'_>) -> Result<()> {
    let held = match limit(&caller.principal, Delegable::Right) {
        Limit::All => true,
        Limit::Nothing => false,
        Limit::ByScope => has_scope(&caller.principal, GRANT_SCOPE),
        Limit::Held => caller.member().is_some_and(|member| {
            let request = AccessRequest { tenant: None, member, with_platform: true, target: Target::Grant(*right) };
            is_platform_admin(snapshot, caller) || decide(snapshot, &request).allow
        }),
    };
    if held { Ok(()) } else { Err(ErrorCode::NotHeld.into()) }
}

/// A direct right as stored: scope type, scope id, module, action.
pub type RightRow = [String; 4];

// ── members ──

/// The part of a member that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberPart {
    /// Credentials, e-mail and identities: a principal that sets them can sign in as the member.
    Account,
    /// Status, quota, membership and deletion: they do not let anybody sign in as the member.
    Standing,
}

/// Fails with `forbidden` if the caller reaches one organization only and the member belongs to others too. The
/// member's own data is then visible to and changeable by the platform only.
pub fn require_sole_organization(snapshot: &Snapshot, reach: Reach, id: MemberId) -> Result<()> {
    if reach == Reach::Site || snapshot.only_tenant(id).is_some() {
        return Ok(());
    }
    let message = "this member also belongs to other organizations: only the platform can see and change this";
    Err(Error::new(ErrorCode::Forbidden).with_message(message))
}

/// Fails unless the caller may change a profile, an e-mail, a credential or a status: the member itself with a session
/// of this site, a caller who reaches the site, or an administrator of the only organization that the member belongs
/// to. The last two must hold everything that the member holds. A program cannot change administrators, and cannot
/// change the account of a member who holds something that the program cannot grant. `rights` are the member's direct
/// rights.
pub fn require_may_change(
    snapshot: &Snapshot,
    caller: &Identity,
    (reach, id): (Reach, MemberId),
    (touch, rights): (MemberPart, &[RightRow]),
) -> Result<()> {
    if caller.member() == Some(id) && matches!(caller.principal, Principal::Member(_)) {
        let has_session = caller.session.is_some_and(|session| snapshot.session(session).is_some());
        let message = "sign in to this site first: credentials cannot be changed with a provider's token";
        return if has_session { Ok(()) } else { Err(Error::new(ErrorCode::Forbidden).with_message(message)) };
    }
    require_sole_organization(snapshot, reach, id)?;
    let mut roles = snapshot.tenants_of(id).flat_map(|tenant| tenant.roles_of(id).map(move |role| (tenant.id, role)));
    match limit(&caller.principal, Delegable::Account) {
        Limit::All => Ok(()),
        Limit::Nothing => Err(ErrorCode::NotHeld.into()),
        Limit::ByScope => {
            let roles: Vec<_> = roles.collect();
            let not_held = |message: &'static str| Err(Error::new(ErrorCode::NotHeld).with_message(message));
            if roles.iter().any(|(tenant, role)| is_administrative(snapshot, &caller.principal, *tenant, role)) {
                return not_held(
                    "this member is an administrator: only a signed-in member or the command line can change it",
                );
            }
            // The services of this site synchronize the members who sign in with the site's own provider.
            let may = touch == MemberPart::Standing
                || matches!(caller.principal, Principal::Internal)
                || has_scope(&caller.principal, GRANT_SCOPE);
            if !may
                && (!rights.is_empty()
                    || roles.iter().any(|(tenant, role)| is_of_applications(snapshot, *tenant, role)))
            {
                return not_held(
                    "this member holds direct rights or roles of applications, which this program cannot grant: \
                     changing its account requires the scope permissions:write, a signed-in member or the command line",
                );
            }
            Ok(())
        }
        Limit::Held => {
            let refused = |_| {
                Error::new(ErrorCode::NotHeld)
                    .with_message("this member has rights that you do not hold: ask an owner of the organization")
            };
            roles.try_for_each(|(tenant, role)| require_held(snapshot, caller, tenant, role)).map_err(refused)?;
            rights.iter().try_for_each(|[scope_type, scope_id, module, action]| {
                require_right_held(snapshot, caller, &Right { scope_type, scope_id, module, action })
            })
        }
    }
}

// ── scopes and plugins ──

/// Fails with `not_held` unless the caller holds, site-wide, every permission that the scopes allow.
pub fn require_scopes_held<S: AsRef<str>>(snapshot: &Snapshot, caller: &Identity, scopes: &[S]) -> Result<()> {
    let limit = limit(&caller.principal, Delegable::Scope);
    let is_unlimited = limit == Limit::All || is_platform_admin(snapshot, caller);
    let holds_site = |permission: Permission| {
        let slot = snapshot.catalog.index_of(permission);
        snapshot.platform().is_some_and(|platform| holds(snapshot, caller, platform.id, slot))
    };
    let may_give = |scope: &str| {
        let mut allowed = Permission::all()
            .filter(|p| p.builtin().scope.is_some_and(|needed| client::covers(scope, needed)))
            .peekable();
        // A scope without permissions can get some later, so only callers without limit can give it.
        limit == Limit::Held && allowed.peek().is_some() && allowed.all(holds_site)
    };
    match scopes.iter().map(AsRef::as_ref).find(|scope| !is_unlimited && !may_give(scope)) {
        None => Ok(()),
        Some(scope) => Err(Error::new(ErrorCode::NotHeld)
            .with_message(format!("you cannot give the scope {scope}, which allows more than you hold"))),
    }
}

/// Whether the caller is an owner of this organization, who may activate a plugin that can grant rights.
pub fn is_owner(snapshot: &Snapshot, caller: &Identity, organization: OrganizationId) -> bool {
    match limit(&caller.principal, Delegable::Plugin) {
        Limit::All => true,
        Limit::Held => {
            let tenant = snapshot.tenant(organization);
            let set = tenant.zip(caller.member()).and_then(|(tenant, id)| tenant.set_of(id));
            is_platform_admin(snapshot, caller) || set.is_some_and(super::snapshot::RoleSet::is_of_owner)
        }
        Limit::ByScope | Limit::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Limit::{Held, Nothing};

    #[test]
    fn every_gift_is_in_the_table() {
        for gift in [
            Delegable::Role,
            Delegable::Ownership,
            Delegable::Right,
            Delegable::PlatformSeat,
            Delegable::Account,
            Delegable::PasswordHash,
            Delegable::Scope,
            Delegable::Plugin,
            Delegable::Quota,
            Delegable::SecondFactorRule,
        ] {
            assert_eq!(limit(&Principal::CommandLine, gift), Limit::All, "{gift:?}");
            assert_eq!(limit(&Principal::Visitor, gift), Nothing, "{gift:?}");
            assert_eq!(limit(&Principal::Member(MemberId::new()), gift), Held, "{gift:?}");
        }
        assert_eq!(limit(&Principal::Internal, Delegable::Role), Nothing);
        assert_eq!(limit(&Principal::Internal, Delegable::Account), Limit::ByScope);
    }

    #[test]
    fn the_internal_secret_has_exactly_the_scopes_that_its_operations_need() {
        let opens = |scope| has_scope(&Principal::Internal, scope);
        assert!(["members:read", "members:write", "organizations:read", "permissions:check"].into_iter().all(opens));
        for scope in ["organizations:write", "permissions:write", "quotas:write", "videos:read", "jobs:read", "*"] {
            assert!(!opens(scope), "{scope}");
        }
    }
}
