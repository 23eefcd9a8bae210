//! Who may do what. `decide` is the one decision; `require` turns its answer into an error.
//!
//! A caller reaches either the whole site or one tenant. What lies outside its reach looks as if it were not there.

pub mod caller;
pub mod catalog;
pub mod client;
pub mod cookie;
pub mod decide;
pub mod encryption;
pub mod key;
pub mod matter;
pub mod path;
pub mod permission;
pub mod plugin;
pub mod secret;
pub mod shards;
pub mod slowdown;
pub mod snapshot;
pub mod store;
pub mod token;
pub mod verified;

use caller::{Identity, Who};
use catalog::Slot;
use decide::{Ask, Question, decide};
use permission::Permission;
use snapshot::{Role, Snapshot};

use crate::error::{Cause, Error, Result};
use crate::ids::{MemberId, OrganizationId};

/// How far a caller's permission carries.
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
    let own = permission.own();
    match &caller.who {
        Who::CommandLine | Who::Internal => reach_of_program(snapshot, caller),
        Who::Visitor => Err(Cause::Forbidden.into()),
        Who::Client(client) => {
            if !own.scope.is_some_and(|scope| client.has_scope(scope)) {
                return Err(Cause::ScopeNotAllowed.into());
            }
            caller::take(caller)?;
            reach_of_program(snapshot, caller)
        }
        Who::Key(key) => {
            if !own.scope.is_some_and(|scope| key.has_scope(scope)) {
                return Err(Error::new(Cause::ScopeNotAllowed).saying("this key's scopes do not cover this operation"));
            }
            match key.member() {
                None => reach_of_program(snapshot, caller),
                Some(_) if own.site_only => Err(Cause::Forbidden.into()),
                Some(_) => reach_of_member(snapshot, caller, permission),
            }
        }
        Who::Asserted(_) if own.site_only => Err(Cause::Forbidden.into()),
        Who::Member(_) if own.site_only => {
            let platform = snapshot.platform().ok_or(Cause::Forbidden)?;
            ask(snapshot, caller, platform.id, permission)?;
            Ok(Reach::Site)
        }
        Who::Member(_) | Who::Asserted(_) => reach_of_member(snapshot, caller, permission),
    }
}

fn reach_of_member(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Reach> {
    let tenant = caller.tenant(snapshot)?;
    ask(snapshot, caller, tenant, permission)?;
    // Only who signed in reaches the whole site, never a key or a gateway.
    let is_person = matches!(caller.who, Who::Member(_));
    Ok(if is_person && snapshot.is_platform(tenant) { Reach::Site } else { Reach::Tenant(tenant) })
}

fn reach_of_program(snapshot: &Snapshot, caller: &Identity) -> Result<Reach> {
    match caller.named_tenant {
        Some(_) => Ok(Reach::Tenant(caller.tenant(snapshot)?)),
        None => Ok(Reach::Site),
    }
}

/// Fails where one of the member's organizations asks for a second factor, which was not shown.
pub fn require_one_factor_enough(snapshot: &Snapshot, member: MemberId) -> Result<()> {
    if snapshot.requires_second_factor(member) {
        return Err(
            Error::new(Cause::SecondFactorRequired).saying("your organization asks for a second factor: sign in again")
        );
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
    if let Who::Key(key) = &caller.who {
        if key.member().is_none() {
            return Err(Error::new(Cause::Forbidden).saying("a service's key has no member whose things these are"));
        }
        if !key.has_scope(scope) {
            return Err(Error::new(Cause::ScopeNotAllowed)
                .saying(format!("this key lacks the scope {scope}, which this needs")));
        }
    }
    caller.signed_in()
}

fn ask(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, permission: Permission) -> Result<()> {
    let Some(member) = caller.member() else { return Err(Cause::Forbidden.into()) };
    let question = Question {
        tenant: Some(tenant),
        member,
        with_platform: matches!(caller.who, Who::Member(_)),
        ask: Ask::Own(permission),
    };
    let decision = decide(snapshot, &question);
    if decision.allow {
        return Ok(());
    }
    Err(Error::new(Cause::Forbidden)
        .saying(format!("you lack the permission {}", permission.own().name))
        .because(decision.reason.word()))
}

/// Does the caller hold this permission in the tenant, so that it may give it away?
pub fn holds(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, slot: Slot) -> bool {
    let catalog = &snapshot.catalog;
    match &caller.who {
        Who::CommandLine => true,
        // A program with the scope acts for a tenant: all of the tenant's catalog. In `platform` the same permissions
        // are rights over the site, which no program has to give.
        Who::Client(_) | Who::Internal => !snapshot.is_platform(tenant) && catalog.is_in_tenant(slot),
        // A key opens doors; it hands nothing on.
        Who::Key(_) | Who::Visitor => false,
        Who::Member(id) | Who::Asserted(id) => {
            let here = snapshot.tenant(tenant).and_then(|tenant| tenant.set_of(*id));
            let everywhere = matches!(caller.who, Who::Member(_)) && snapshot.is_platform_admin(*id);
            everywhere || here.is_some_and(|set| set.holds(catalog, slot))
        }
    }
}

/// Nobody gives what they do not hold: every permission of a role, to hand the role out.
pub fn require_held(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, role: &Role) -> Result<()> {
    let catalog = &snapshot.catalog;
    let given = catalog.iter().map(|node| node.slot).filter(|slot| role.holds(catalog, *slot));
    let missing = given.into_iter().find(|slot| !holds(snapshot, caller, tenant, *slot));
    match missing {
        None => Ok(()),
        Some(slot) => {
            let name = catalog.get(slot).map_or("", |node| &node.name);
            Err(Error::new(Cause::NotHeld).saying(format!("you cannot give {name}, which you do not hold yourself")))
        }
    }
}

/// The same for the scopes of a client: whoever gives one holds, over the site, all that it opens.
pub fn require_scopes_held(snapshot: &Snapshot, caller: &Identity, scopes: &[String]) -> Result<()> {
    let everything = match &caller.who {
        Who::CommandLine => true,
        Who::Member(id) => snapshot.is_platform_admin(*id),
        Who::Asserted(_) | Who::Client(_) | Who::Key(_) | Who::Internal | Who::Visitor => false,
    };
    let holds_site = |permission: Permission| {
        let slot = snapshot.catalog.slot_of(permission);
        snapshot.platform().is_some_and(|platform| holds(snapshot, caller, platform.id, slot))
    };
    let may_give = |scope: &String| {
        let mut opened =
            Permission::all().filter(|p| p.own().scope.is_some_and(|own| client::covers(scope, own))).peekable();
        // A scope that opens nothing yet will open something: only who holds everything can give it ahead.
        opened.peek().is_some() && opened.all(holds_site)
    };
    match scopes.iter().find(|scope| !everything && !may_give(scope)) {
        None => Ok(()),
        Some(scope) => Err(Error::new(Cause::NotHeld)
            .saying(format!("you cannot give the scope {scope}, which opens more than you hold"))),
    }
}
