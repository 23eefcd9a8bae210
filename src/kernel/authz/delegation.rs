//! What each kind of principal may give, change and make: one table, asked by every operation that hands something on.
//!
//! **Invariant.** Nobody gives what they do not hold, by any operation. A program holds what its scopes open, and nothing
//! more. It changes no administrator, and makes none.

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

/// Kinds of principal, as far as giving goes; the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    CommandLine,
    Member,
    /// A member whom a gateway named.
    Asserted,
    Client,
    ServiceKey,
    MemberKey,
    /// A service of this site, by the internal secret; or a signed call of an external system.
    Internal,
    /// Not known yet.
    Visitor,
}

/// What is given, changed or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gift {
    /// A permission or a role of an organization: in a role, by assignment, mapping, sync or invitation.
    Role,
    /// The role of an owner or of a platform administrator, by invitation.
    Ownership,
    /// A direct right (`grants`).
    Right,
    /// A place in the organization `platform`.
    PlatformSeat,
    /// Profile, e-mail, credentials, external names and status of another member.
    Account,
    /// The hash of a password, made elsewhere: it passes the rules of passwords by.
    PasswordHash,
    /// Scopes, in an API client or in the key of a service.
    Scope,
    /// A plugin in force that hands out rights.
    Plugin,
    /// What members and organizations may store.
    Quota,
    /// Whether an organization's members sign in with a second factor: it lets people in, and shuts them out.
    SecondFactorRule,
}

/// How far it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    All,
    /// What it holds itself.
    Held,
    /// What its scopes open.
    Opened,
    Nothing,
}

const KINDS: usize = 8;

#[rustfmt::skip]
mod table {
    use super::Gift;
    use super::Limit::{self, All, Held, Nothing, Opened};

    pub const TABLE: [(Gift, [Limit; super::KINDS]); 10] = [
        //                    command line  member   asserted  client   service key  member's key  internal  visitor
        (Gift::Role,         [All,          Held,    Held,     Opened,  Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::Ownership,    [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::Right,        [All,          Held,    Nothing,  Opened,  Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::PlatformSeat, [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::Account,      [All,          Held,    Nothing,  Opened,  Nothing,     Nothing,      Opened,   Nothing]),
        (Gift::PasswordHash, [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::Scope,        [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::Plugin,       [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
        (Gift::Quota,        [All,          Held,    Nothing,  Opened,  Opened,      Held,         Nothing,  Nothing]),
        (Gift::SecondFactorRule,
                             [All,          Held,    Nothing,  Nothing, Nothing,     Nothing,      Nothing,  Nothing]),
    ];
}

impl Kind {
    fn of(who: &Principal) -> Self {
        match who {
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

/// How far a principal may give, change or make this.
fn limit(who: &Principal, gift: Gift) -> Limit {
    let column = Kind::of(who) as usize;
    table::TABLE.iter().find(|(of, _)| *of == gift).map_or(Limit::Nothing, |(_, limits)| limits[column])
}

/// Fails for kinds of principals that have nothing of this to give; how much the others have is asked elsewhere.
pub fn require_any(caller: &Identity, gift: Gift) -> Result<()> {
    let message = match gift {
        Gift::PlatformSeat => "no program puts members into `platform`",
        Gift::PasswordHash => {
            "no program brings a password's hash along: a platform administrator or the command line does"
        }
        Gift::SecondFactorRule => "no program says who needs a second factor: a person does",
        _ => "this is not a program's to give",
    };
    if limit(&caller.principal, gift) == Limit::Nothing {
        Err(Error::new(ErrorCode::Forbidden).with_message(message))
    } else {
        Ok(())
    }
}

// ── what a program's scopes open ──

/// What the services of this site may do with the internal secret: keep members in line, look up organizations, and ask.
const INTERNAL_SCOPES: [&str; 3] = ["members:write", "organizations:read", "permissions:check"];

/// With this scope a program hands out what is not Roster's own: roles of the organization's applications, direct rights.
const HANDS_OUT: &str = "permissions:write";

/// Do the scopes of this program cover that one? People have none.
pub fn has_scope(who: &Principal, scope: &str) -> bool {
    match who {
        Principal::Client(client) => client.has_scope(scope),
        Principal::Key(key) => key.has_scope(scope),
        Principal::Internal => INTERNAL_SCOPES.iter().any(|held| client::covers(held, scope)),
        Principal::CommandLine | Principal::Member(_) | Principal::Asserted(_) | Principal::Visitor => false,
    }
}

/// Do a program's scopes open this permission? Of Roster's own those that it may use itself.
fn opens(catalog: &Catalog, who: &Principal, slot: PermissionIndex) -> bool {
    let Some(node) = catalog.get(slot) else { return false };
    if *node.app != *ROSTER_APP {
        return has_scope(who, HANDS_OUT);
    }
    Permission::all().find(|own| catalog.index_of(*own) == slot).is_some_and(|own| opens_own(who, own))
}

/// The same of one of Roster's own.
fn opens_own(who: &Principal, permission: Permission) -> bool {
    let own = permission.builtin();
    // A category opens nothing.
    own.method.is_empty() || own.scope.is_some_and(|scope| has_scope(who, scope))
}

/// Is this role an administrator's, seen from a program: an owner's, an administrator's, one of `platform`, or one that
/// changes something by Roster's own operations that the program's scopes do not open?
fn is_administrative(snapshot: &Snapshot, who: &Principal, tenant: OrganizationId, role: &Role) -> bool {
    let catalog = &snapshot.catalog;
    let changes = |own: &Permission| !own.builtin().method.is_empty() && !own.is_question();
    snapshot.is_platform(tenant)
        || is_administrators(role)
        || Permission::all()
            .filter(changes)
            .any(|own| role.holds(catalog, tenant, catalog.index_of(own)) && !opens_own(who, own))
}

/// Does it hold anything of the organization's applications?
fn is_of_applications(snapshot: &Snapshot, tenant: OrganizationId, role: &Role) -> bool {
    let catalog = &snapshot.catalog;
    catalog.iter().any(|node| *node.app != *ROSTER_APP && role.holds(catalog, tenant, node.slot))
}

/// Is it the role of an owner or an administrator by its name, whatever it holds today?
fn is_administrators(role: &Role) -> bool {
    role.is_protected() || [TENANT_OWNER, TENANT_ADMIN, PLATFORM_ADMIN].contains(&&*role.key)
}

// ── permissions and roles ──

/// Does the caller hold this permission in the tenant, so that it may give it away?
pub fn holds(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, slot: PermissionIndex) -> bool {
    let catalog = &snapshot.catalog;
    match limit(&caller.principal, Gift::Role) {
        Limit::All => true,
        Limit::Nothing => false,
        // In `platform` the same permissions are rights over the site, which no program has to give.
        Limit::Opened => {
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

/// Somebody who signed in and holds everything. A gateway never speaks for the site.
fn is_platform_admin(snapshot: &Snapshot, caller: &Identity) -> bool {
    matches!(caller.principal, Principal::Member(id) if snapshot.is_platform_admin(id))
}

/// Nobody gives what they do not hold: every permission of a role, to hand the role out.
pub fn require_held(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, role: &Role) -> Result<()> {
    let catalog = &snapshot.catalog;
    if limit(&caller.principal, Gift::Role) == Limit::Opened && is_administrators(role) {
        let message = format!("no program gives the role {}: a person does", role.key);
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

/// May the caller hand this on, by a tick in a role: what it holds; or a category, which opens nothing, above that?
fn may_tick(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, slot: PermissionIndex) -> bool {
    let catalog = &snapshot.catalog;
    let is_category = || catalog.get(slot).is_some_and(|node| node.http_path.is_none());
    let is_above = |below: PermissionIndex| catalog.ancestors(below).any(|above| above == slot);
    let may_below = |below: PermissionIndex| is_above(below) && holds(snapshot, caller, tenant, below);
    holds(snapshot, caller, tenant, slot) || (is_category() && catalog.iter().any(|below| may_below(below.slot)))
}

/// Nobody ticks what they do not hold, nor takes such a tick out of a role that gives it.
pub fn require_may_retick(
    snapshot: &Snapshot,
    caller: &Identity,
    (tenant, role): (OrganizationId, &Role),
    ticked: &BTreeSet<PermissionIndex>,
) -> Result<()> {
    let catalog = &snapshot.catalog;
    let added = ticked.iter().copied().filter(|slot| !role.ticked.contains(*slot)).map(|slot| (slot, "give"));
    // What the organization cannot give anybody is no loss.
    let counts = |slot: &PermissionIndex| {
        role.holds(catalog, tenant, *slot) && (catalog.is_in_tenant(*slot, tenant) || snapshot.is_platform(tenant))
    };
    let lost = role.ticked.iter().filter(|slot| !ticked.contains(slot)).filter(counts).map(|slot| (slot, "take away"));
    match added.chain(lost).find(|(slot, _)| !may_tick(snapshot, caller, tenant, *slot)) {
        None => Ok(()),
        Some((slot, what)) => {
            let name = catalog.get(slot).map_or("", |node| &node.name);
            Err(Error::new(ErrorCode::NotHeld)
                .with_message(format!("you cannot {what} {name}, which you do not hold yourself")))
        }
    }
}

/// To take a role away, or all that it gives, people hold all of it. A program need not, so that who leaves loses all; but
/// it takes none from an administrator.
pub fn require_may_take(snapshot: &Snapshot, caller: &Identity, tenant: OrganizationId, role: &Role) -> Result<()> {
    if limit(&caller.principal, Gift::Account) != Limit::Opened {
        return require_held(snapshot, caller, tenant, role);
    }
    let message = format!("no program takes the role {} away: a person does", role.key);
    let is_taken = is_administrative(snapshot, &caller.principal, tenant, role);
    if is_taken { Err(Error::new(ErrorCode::NotHeld).with_message(message)) } else { Ok(()) }
}

/// Who lets somebody into an organization, with a role or none: the place, and all that the role gives.
pub fn require_may_invite(
    snapshot: &Snapshot,
    caller: &Identity,
    tenant: OrganizationId,
    role: Option<&Role>,
) -> Result<()> {
    // Who is in `platform` may get rights over the site: only its administrators let anybody in.
    let is_sites = limit(&caller.principal, Gift::PlatformSeat) == Limit::All || is_platform_admin(snapshot, caller);
    if snapshot.is_platform(tenant) && !is_sites {
        return Err(
            Error::new(ErrorCode::Forbidden).with_message("only a platform administrator invites into `platform`")
        );
    }
    let Some(role) = role else { return Ok(()) };
    let is_owners = [TENANT_OWNER, PLATFORM_ADMIN].contains(&&*role.key);
    if is_owners && limit(&caller.principal, Gift::Ownership) == Limit::Nothing {
        return Err(
            Error::new(ErrorCode::SystemRole).with_message("an owner or a platform administrator is made by hand")
        );
    }
    require_held(snapshot, caller, tenant, role)
}

/// Who says whether an organization's members need a second factor: people who may change it. `platform` decides about the
/// whole site, so its administrators do.
pub fn require_second_factor_rule(snapshot: &Snapshot, caller: &Identity, organization: OrganizationId) -> Result<()> {
    require_any(caller, Gift::SecondFactorRule)?;
    let is_sites =
        limit(&caller.principal, Gift::SecondFactorRule) == Limit::All || is_platform_admin(snapshot, caller);
    if snapshot.is_platform(organization) && !is_sites {
        let message = "only a platform administrator says who needs a second factor in `platform`";
        return Err(Error::new(ErrorCode::Forbidden).with_message(message));
    }
    Ok(())
}

// ── direct rights ──

/// The caller must hold the right itself, hold everything, or be a program with the scope for it.
pub fn require_right_held(snapshot: &Snapshot, caller: &Identity, right: &Right<'_>) -> Result<()> {
    let held = match limit(&caller.principal, Gift::Right) {
        Limit::All => true,
        Limit::Nothing => false,
        Limit::Opened => has_scope(&caller.principal, HANDS_OUT),
        Limit::Held => caller.member().is_some_and(|member| {
            let question = AccessRequest { tenant: None, member, with_platform: true, target: Target::Grant(*right) };
            is_platform_admin(snapshot, caller) || decide(snapshot, &question).allow
        }),
    };
    if held { Ok(()) } else { Err(ErrorCode::NotHeld.into()) }
}

/// A direct right as its row has it: scope type, scope id, module, action.
pub type RightRow = [String; 4];

// ── members ──

/// What of a member is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Credentials, e-mail and names elsewhere: who sets them can sign in as the member.
    Account,
    /// Status, quota, place and end: nobody becomes the member by it.
    Standing,
}

/// Who sees one organization only sees and changes what is a member's own where the member belongs to that one alone.
pub fn require_whole(snapshot: &Snapshot, reach: Reach, id: MemberId) -> Result<()> {
    if reach == Reach::Site || snapshot.only_tenant(id).is_some() {
        return Ok(());
    }
    let message = "this member belongs to other organizations too: that is the platform's to see and to change";
    Err(Error::new(ErrorCode::Forbidden).with_message(message))
}

/// Who may change a profile, an e-mail, a credential or a status: the member with a session of ours, the site, or the
/// administrator of the one organization that the member belongs to; none of them of a member who holds more than they
/// do. A program changes nobody who is an administrator, and lets itself in as nobody who holds what it may not hand out.
/// `rights` are the member's direct rights.
pub fn require_may_change(
    snapshot: &Snapshot,
    caller: &Identity,
    (reach, id): (Reach, MemberId),
    (touch, rights): (Touch, &[RightRow]),
) -> Result<()> {
    if caller.member() == Some(id) && matches!(caller.principal, Principal::Member(_)) {
        let has_session = caller.session.is_some_and(|session| snapshot.session(session).is_some());
        let message = "sign in here first: a provider's token changes no credential";
        return if has_session { Ok(()) } else { Err(Error::new(ErrorCode::Forbidden).with_message(message)) };
    }
    require_whole(snapshot, reach, id)?;
    let mut roles = snapshot.tenants_of(id).flat_map(|tenant| tenant.roles_of(id).map(move |role| (tenant.id, role)));
    match limit(&caller.principal, Gift::Account) {
        Limit::All => Ok(()),
        Limit::Nothing => Err(ErrorCode::NotHeld.into()),
        Limit::Opened => {
            let roles: Vec<_> = roles.collect();
            let not_held = |message: &'static str| Err(Error::new(ErrorCode::NotHeld).with_message(message));
            if roles.iter().any(|(tenant, role)| is_administrative(snapshot, &caller.principal, *tenant, role)) {
                return not_held("this member is an administrator, whom no program changes: a person does");
            }
            // The services of this site keep in line whom the site's own provider signs in.
            let may = touch == Touch::Standing
                || matches!(caller.principal, Principal::Internal)
                || has_scope(&caller.principal, HANDS_OUT);
            if !may
                && (!rights.is_empty()
                    || roles.iter().any(|(tenant, role)| is_of_applications(snapshot, *tenant, role)))
            {
                return not_held(
                    "this member holds direct rights or roles of applications, which this program may not hand out: \
                     its account is changed with the scope permissions:write, or by a person",
                );
            }
            Ok(())
        }
        Limit::Held => {
            roles.try_for_each(|(tenant, role)| require_held(snapshot, caller, tenant, role))?;
            rights.iter().try_for_each(|[scope_type, scope_id, module, action]| {
                require_right_held(snapshot, caller, &Right { scope_type, scope_id, module, action })
            })
        }
    }
}

// ── scopes and plugins ──

/// Who gives a scope holds, over the site, all that it opens.
pub fn require_scopes_held<S: AsRef<str>>(snapshot: &Snapshot, caller: &Identity, scopes: &[S]) -> Result<()> {
    let limit = limit(&caller.principal, Gift::Scope);
    let everything = limit == Limit::All || is_platform_admin(snapshot, caller);
    let holds_site = |permission: Permission| {
        let slot = snapshot.catalog.index_of(permission);
        snapshot.platform().is_some_and(|platform| holds(snapshot, caller, platform.id, slot))
    };
    let may_give = |scope: &str| {
        let mut opened =
            Permission::all().filter(|p| p.builtin().scope.is_some_and(|own| client::covers(scope, own))).peekable();
        // A scope that opens nothing yet will open something: only who holds everything can give it ahead.
        limit == Limit::Held && opened.peek().is_some() && opened.all(holds_site)
    };
    match scopes.iter().map(AsRef::as_ref).find(|scope| !everything && !may_give(scope)) {
        None => Ok(()),
        Some(scope) => Err(Error::new(ErrorCode::NotHeld)
            .with_message(format!("you cannot give the scope {scope}, which opens more than you hold"))),
    }
}

/// Is the caller an owner of this organization, so that it may put a plugin in force that hands out rights?
pub fn is_owner(snapshot: &Snapshot, caller: &Identity, organization: OrganizationId) -> bool {
    match limit(&caller.principal, Gift::Plugin) {
        Limit::All => true,
        Limit::Held => {
            let tenant = snapshot.tenant(organization);
            let set = tenant.zip(caller.member()).and_then(|(tenant, id)| tenant.set_of(id));
            is_platform_admin(snapshot, caller) || set.is_some_and(super::snapshot::RoleSet::is_of_owner)
        }
        Limit::Opened | Limit::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Limit::{Held, Nothing};

    #[test]
    fn every_gift_has_its_line() {
        for gift in [
            Gift::Role,
            Gift::Ownership,
            Gift::Right,
            Gift::PlatformSeat,
            Gift::Account,
            Gift::PasswordHash,
            Gift::Scope,
            Gift::Plugin,
            Gift::Quota,
            Gift::SecondFactorRule,
        ] {
            assert_eq!(limit(&Principal::CommandLine, gift), Limit::All, "{gift:?}");
            assert_eq!(limit(&Principal::Visitor, gift), Nothing, "{gift:?}");
            assert_eq!(limit(&Principal::Member(MemberId::new()), gift), Held, "{gift:?}");
        }
        assert_eq!(limit(&Principal::Internal, Gift::Role), Nothing);
        assert_eq!(limit(&Principal::Internal, Gift::Account), Limit::Opened);
    }

    #[test]
    fn the_internal_secret_opens_what_its_operations_need() {
        let opens = |scope| has_scope(&Principal::Internal, scope);
        assert!(["members:read", "members:write", "organizations:read", "permissions:check"].into_iter().all(opens));
        for scope in ["organizations:write", "permissions:write", "quotas:write", "videos:read", "jobs:read", "*"] {
            assert!(!opens(scope), "{scope}");
        }
    }
}
