//! Who may do what. `decide` is the one decision; `require` turns its answer into an error.
//!
//! A caller's reach is the whole site or one tenant. What is outside its reach is answered with 404.

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
pub mod template;

use crate::kernel::authz::principal::{Identity, Principal};
use decide::{AccessRequest, Target, decide};
use permission::Permission;
use snapshot::Snapshot;

use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};

/// What a caller's permission covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Site,
    Tenant(OrganizationId),
}

impl Reach {
    /// The one organization that is reached; `None` for all.
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

/// The guard: may the caller do this, and how far?
pub fn require(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    let own = permission.builtin();
    match &caller.principal {
        Principal::CommandLine => reach_of_program(snapshot, caller, permission),
        Principal::Internal => {
            if !own.scope.is_some_and(|scope| delegation::has_scope(&caller.principal, scope)) {
                return Err(
                    Error::new(ErrorCode::ScopeNotAllowed).with_message("the internal secret does not open this")
                );
            }
            reach_of_program(snapshot, caller, permission)
        }
        Principal::Visitor => Err(ErrorCode::Forbidden.into()),
        Principal::Client(client) => {
            if !own.scope.is_some_and(|scope| client.has_scope(scope)) {
                return Err(ErrorCode::ScopeNotAllowed.into());
            }
            crate::kernel::authz::principal::take(caller)?;
            reach_of_program(snapshot, caller, permission)
        }
        Principal::Key(key) => {
            if !own.scope.is_some_and(|scope| key.has_scope(scope)) {
                return Err(Error::new(ErrorCode::ScopeNotAllowed)
                    .with_message("this key's scopes do not cover this operation"));
            }
            match key.member() {
                None => reach_of_program(snapshot, caller, permission),
                Some(_) if own.site_only => Err(ErrorCode::Forbidden.into()),
                Some(_) => reach_of_member(snapshot, caller, permission),
            }
        }
        Principal::Asserted(_) if own.site_only => Err(ErrorCode::Forbidden.into()),
        Principal::Member(_) if own.site_only => {
            let platform = snapshot.platform().ok_or(ErrorCode::Forbidden)?;
            ask(snapshot, caller, platform.id, permission)?;
            Ok(Reach::Site)
        }
        Principal::Member(_) | Principal::Asserted(_) => reach_of_member(snapshot, caller, permission),
    }
}

fn reach_of_member(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    let tenant = caller.tenant(snapshot)?;
    ask(snapshot, caller, tenant, permission)?;
    // Only a signed-in member can reach the whole site, never a key or a gateway.
    let is_person = matches!(caller.principal, Principal::Member(_));
    Ok(if is_person && snapshot.is_platform(tenant) { Reach::Site } else { Reach::Tenant(tenant) })
}

/// A program that sends X-Tenant-ID acts for that tenant only: it cannot call site-wide operations.
fn reach_of_program(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    if caller.named_tenant.is_none() {
        return Ok(Reach::Site);
    }
    let tenant = caller.tenant(snapshot)?;
    if permission.builtin().site_only {
        return Err(
            Error::new(ErrorCode::Forbidden).with_message("this is done for the whole site: leave X-Tenant-ID out")
        );
    }
    Ok(Reach::Tenant(tenant))
}

/// Does the caller ask about the site as well as about this tenant? To a tenant's own people the rights that a member
/// has over the site, or in another organization, do not exist. Programs are the site's, and enforce what it decides.
pub fn asks_for_site(snapshot: &Snapshot, caller: &Identity, tenant: Option<OrganizationId>) -> bool {
    match &caller.principal {
        Principal::Member(id) => {
            snapshot.is_platform_admin(*id) || tenant.is_none_or(|tenant| snapshot.is_platform(tenant))
        }
        Principal::Key(key) => key.member().is_none(),
        Principal::Client(_) | Principal::Internal | Principal::CommandLine => true,
        Principal::Asserted(_) | Principal::Visitor => false,
    }
}

/// What a caller who reads in this tenant can see.
pub fn reach_seen(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId) -> Reach {
    if asks_for_site(snapshot, caller, Some(tenant)) { Reach::Site } else { Reach::Tenant(tenant) }
}

/// Fails where one of the member's organizations asks for a second factor, which was not shown.
pub fn require_one_factor_enough(snapshot: &Snapshot, member: MemberId) -> Result<()> {
    if snapshot.requires_second_factor(member) {
        return Err(Error::new(ErrorCode::SecondFactorRequired)
            .with_message("your organization asks for a second factor: sign in again"));
    }
    Ok(())
}

/// The same for operations that always act in one tenant.
pub fn require_in_tenant(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<OrganizationId> {
    let tenant = caller.tenant(snapshot)?;
    require(snapshot, caller, permission)?;
    Ok(tenant)
}

/// The member whose own things are asked for: who signed in, or who owns the key, within its scopes.
pub fn require_own(caller: &Identity, scope: &str) -> Result<MemberId> {
    if let Principal::Key(key) = &caller.principal {
        if key.member().is_none() {
            return Err(
                Error::new(ErrorCode::Forbidden).with_message("a service's key has no member whose things these are")
            );
        }
        if !key.has_scope(scope) {
            return Err(Error::new(ErrorCode::ScopeNotAllowed)
                .with_message(format!("this key lacks the scope {scope}, which this needs")));
        }
    }
    caller.signed_in()
}

fn ask(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, permission: Permission) -> Result<()> {
    let Some(member) = caller.member() else { return Err(ErrorCode::Forbidden.into()) };
    let question = AccessRequest {
        tenant: Some(tenant),
        member,
        with_platform: matches!(caller.principal, Principal::Member(_)),
        target: Target::Builtin(permission),
    };
    let decision = decide(snapshot, &question);
    if decision.allow {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden)
        .with_message(format!("you lack the permission {}", permission.builtin().name))
        .with_source(decision.reason.as_str()))
}

/// Which rows a caller may see or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowScope {
    /// All within its reach, by a permission.
    All(Reach),
    Member(MemberId),
}

impl RowScope {
    /// With the permission all; without it one's own, as far as the key's scope goes.
    pub fn of(snapshot: &Snapshot, caller: &Identity, permission: Permission, scope: &str) -> Result<Self> {
        let refused = match require(snapshot, caller, permission) {
            Ok(reach) => return Ok(Self::All(reach)),
            Err(refused) => refused,
        };
        if caller.member().is_none() || refused.cause == ErrorCode::OrganizationNotFound {
            return Err(refused);
        }
        require_own(caller, scope).map(Self::Member)
    }

    /// The organization through whose eyes somebody else's video is seen; none for the site, and for one's own.
    pub fn seen_by(self, caller: &Identity, owner: Option<MemberId>) -> Option<OrganizationId> {
        match self {
            Self::All(reach) if owner.is_none() || owner != caller.member() => reach.organization(),
            Self::All(_) | Self::Member(_) => None,
        }
    }
}
