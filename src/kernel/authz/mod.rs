//! Authorization. `decide` is the only decision function; `require` turns its decision into an error.
//!
//! A caller's reach is the whole site or one tenant. Objects outside of the reach are answered with 404.

pub mod catalog;
pub mod client;
pub mod compare_store;
pub mod cow_map;
pub mod decide;
pub mod deferred_grant;
pub mod delegation;
pub mod key;
pub mod path;
pub mod permission;
pub mod plugin;
pub mod principal;
pub mod resolved_request;
pub mod snapshot;
pub mod store;

use crate::kernel::authz::principal::{Identity, Principal};
use decide::{AccessRequest, Target, decide};
use permission::Permission;
use snapshot::Snapshot;

use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};

/// The area that a caller's permission covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Site,
    Tenant(OrganizationId),
}

impl Reach {
    /// The only organization in reach; `None` for the whole site.
    pub fn organization(self) -> Option<OrganizationId> {
        match self {
            Self::Site => None,
            Self::Tenant(id) => Some(id),
        }
    }

    pub fn includes(self, organization: OrganizationId) -> bool {
        self.organization().is_none_or(|only| only == organization)
    }
}

/// The guard of operations: returns the reach of the caller's permission, or fails.
pub fn require(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    let builtin = permission.builtin();
    match &caller.principal {
        Principal::CommandLine => reach_of_program(snapshot, caller, permission),
        Principal::Internal => {
            if !builtin.scope.is_some_and(|scope| delegation::has_scope(&caller.principal, scope)) {
                return Err(Error::new(ErrorCode::ScopeNotAllowed)
                    .with_message("the internal secret does not allow this operation"));
            }
            reach_of_program(snapshot, caller, permission)
        }
        Principal::Visitor => Err(ErrorCode::Forbidden.into()),
        Principal::Client(client) => {
            if !builtin.scope.is_some_and(|scope| client.has_scope(scope)) {
                return Err(ErrorCode::ScopeNotAllowed.into());
            }
            crate::kernel::authz::principal::take(caller)?;
            reach_of_program(snapshot, caller, permission)
        }
        Principal::Key(key) => {
            if !builtin.scope.is_some_and(|scope| key.has_scope(scope)) {
                return Err(Error::new(ErrorCode::ScopeNotAllowed)
                    .with_message("this key's scopes do not cover this operation"));
            }
            match key.member() {
                None => reach_of_program(snapshot, caller, permission),
                Some(_) if builtin.site_only => Err(ErrorCode::Forbidden.into()),
                Some(_) => reach_of_member(snapshot, caller, permission),
            }
        }
        Principal::Asserted(_) if builtin.site_only => Err(ErrorCode::Forbidden.into()),
        Principal::Member(_) if builtin.site_only => {
            let platform = snapshot.platform().ok_or(ErrorCode::Forbidden)?;
            require_decision(snapshot, caller, platform.id, permission)?;
            Ok(Reach::Site)
        }
        Principal::Member(_) | Principal::Asserted(_) => reach_of_member(snapshot, caller, permission),
    }
}

fn reach_of_member(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    let tenant = caller.tenant(snapshot)?;
    require_decision(snapshot, caller, tenant, permission)?;
    // Only a signed-in member can reach the whole site, never a key or a gateway.
    let is_signed_in = matches!(caller.principal, Principal::Member(_));
    Ok(if is_signed_in && snapshot.is_platform(tenant) { Reach::Site } else { Reach::Tenant(tenant) })
}

/// A program without X-Tenant-ID reaches the site. With X-Tenant-ID it acts for that tenant only, and cannot call
/// site-wide operations.
fn reach_of_program(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    if caller.named_tenant.is_none() {
        return Ok(Reach::Site);
    }
    let tenant = caller.tenant(snapshot)?;
    if permission.builtin().site_only {
        return Err(
            Error::new(ErrorCode::Forbidden).with_message("this operation is for the whole site: omit X-Tenant-ID")
        );
    }
    Ok(Reach::Tenant(tenant))
}

/// Whether the caller's questions cover the site as well as this tenant. Members of a tenant must not see the rights
/// that a member has over the site or in another organization. Programs belong to the site and enforce its decisions,
/// so they do.
pub fn includes_site_rights(snapshot: &Snapshot, caller: &Identity, tenant: Option<OrganizationId>) -> bool {
    match &caller.principal {
        Principal::Member(id) => {
            snapshot.is_platform_admin(*id) || tenant.is_none_or(|tenant| snapshot.is_platform(tenant))
        }
        Principal::Key(key) => key.member().is_none(),
        Principal::Client(_) | Principal::Internal | Principal::CommandLine => true,
        Principal::Asserted(_) | Principal::Visitor => false,
    }
}

/// The reach of a caller's reads in this tenant.
pub fn read_reach(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId) -> Reach {
    if includes_site_rights(snapshot, caller, Some(tenant)) { Reach::Site } else { Reach::Tenant(tenant) }
}

/// Fails with `second_factor_required` if an organization of the member requires a second factor. Call it for
/// credentials without one.
pub fn require_one_factor_enough(snapshot: &Snapshot, member: MemberId) -> Result<()> {
    if snapshot.requires_second_factor(member) {
        return Err(Error::new(ErrorCode::SecondFactorRequired)
            .with_message("your organization requires a second factor: sign in again"));
    }
    Ok(())
}

/// Like `require`, for operations that always act in one tenant; returns that tenant.
pub fn require_in_tenant(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<OrganizationId> {
    let tenant = caller.tenant(snapshot)?;
    require(snapshot, caller, permission)?;
    Ok(tenant)
}

/// The member whose own data the request is about: the signed-in member, or the owner of a key that has the scope.
pub fn require_own(caller: &Identity, scope: &str) -> Result<MemberId> {
    if let Principal::Key(key) = &caller.principal {
        if key.member().is_none() {
            return Err(Error::new(ErrorCode::Forbidden)
                .with_message("a service's key belongs to no member, so it has no data of its own"));
        }
        if !key.has_scope(scope) {
            return Err(Error::new(ErrorCode::ScopeNotAllowed)
                .with_message(format!("this key lacks the scope {scope}, which this operation requires")));
        }
    }
    caller.signed_in()
}

fn require_decision(
    snapshot: &Snapshot,
    caller: &Identity,
    tenant: OrganizationId,
    permission: Permission,
) -> Result<()> {
    let Some(member) = caller.member() else { return Err(ErrorCode::Forbidden.into()) };
    let request = AccessRequest {
        tenant: Some(tenant),
        member,
        with_platform: matches!(caller.principal, Principal::Member(_)),
        target: Target::Builtin(permission),
    };
    let decision = decide(snapshot, &request);
    if decision.allow {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden)
        .with_message(format!("you lack the permission {}", permission.builtin().name))
        .with_source(decision.reason.as_str()))
}

/// The rows that a caller can see or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowScope {
    /// All rows in this reach, by a permission.
    All(Reach),
    /// The member's own rows.
    Member(MemberId),
}

impl RowScope {
    /// All rows in reach for a caller with the permission. Otherwise the caller's own rows; an API key also needs
    /// `scope`.
    pub fn of(snapshot: &Snapshot, caller: &Identity, permission: Permission, scope: &str) -> Result<Self> {
        let error = match require(snapshot, caller, permission) {
            Ok(reach) => return Ok(Self::All(reach)),
            Err(error) => error,
        };
        if caller.member().is_none() || error.code == ErrorCode::OrganizationNotFound {
            return Err(error);
        }
        require_own(caller, scope).map(Self::Member)
    }

    /// The organization to which the view of somebody else's video is limited; `None` for the site and for own videos.
    pub fn viewing_organization(self, caller: &Identity, owner: Option<MemberId>) -> Option<OrganizationId> {
        match self {
            Self::All(reach) if owner.is_none() || owner != caller.member() => reach.organization(),
            Self::All(_) | Self::Member(_) => None,
        }
    }
}
