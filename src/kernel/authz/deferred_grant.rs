//! Promises: what somebody gave and somebody else takes later. This file is the list of them, and the one rule.
//!
//! **Invariant.** A promise is worth what its maker may give when it is taken. It is checked in the transaction that takes
//! it, and withdrawn in the one that takes the maker's rights away (`kernel::app::deferred_grants`).
//!
//! No promises: what an organization has as a rule of its own and can see and change (role mappings, ticks of roles,
//! plugins); a key that its member made for itself, whose rights are asked for at every request; what a member asked for
//! itself (sessions, mailed links for its own password). As long as somebody else's password is what a member signs in with,
//! the keys that it makes are that one's.

use std::sync::Arc;

use super::client::Client;
use super::delegation::{self, RightRow, Touch};
use super::permission::Permission;
use super::snapshot::Snapshot;
use super::{Reach, require, require_in_tenant};
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, RoleId, Timestamp};

/// Who made a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    /// The command line, which is the owner of the machine; also the site itself.
    Site,
    Member(MemberId),
    Client(Arc<str>),
    /// Not known, or of a kind that promises nothing.
    Nobody,
}

impl Maker {
    pub fn from_caller(caller: &Identity) -> Self {
        match &caller.principal {
            Principal::CommandLine => Self::Site,
            Principal::Member(id) => Self::Member(*id),
            Principal::Client(client) => Self::Client(client.client_key.clone()),
            Principal::Asserted(_) | Principal::Key(_) | Principal::Internal | Principal::Visitor => Self::Nobody,
        }
    }

    /// As rows have it: kind and name, like the actor of an audit entry.
    pub fn to_text(&self) -> String {
        match self {
            Self::Site => "cli".into(),
            Self::Member(id) => format!("member {id}"),
            Self::Client(key) => format!("client {key}"),
            Self::Nobody => "nobody".into(),
        }
    }

    /// The maker of a row; rows from before makers were stored have none.
    pub fn parse(text: Option<&str>) -> Self {
        match text.and_then(|text| text.split_once(' ').or(Some((text, "")))) {
            Some(("cli", "")) => Self::Site,
            Some(("member", id)) => Self::Member(MemberId::of(id)),
            Some(("client", key)) => Self::Client(key.into()),
            _ => Self::Nobody,
        }
    }

    /// The maker as a caller of this moment, acting in that organization; `None` when there is no such principal any more.
    fn today(&self, snapshot: &Snapshot, tenant: Option<OrganizationId>, now: Timestamp) -> Option<Identity> {
        let who = match self {
            Self::Site => Some(Principal::CommandLine),
            Self::Member(id) => snapshot.is_active(*id).then_some(Principal::Member(*id)),
            Self::Client(key) => {
                let client = snapshot.client(key).filter(|client| client.is_active);
                let client = client.filter(|client| client.expires_at.is_none_or(|at| now < at));
                let client = client.filter(|client| require_client_kept(snapshot, client, now).is_ok());
                client.cloned().map(Principal::Client)
            }
            Self::Nobody => None,
        };
        who.map(|who| Identity::of_maker(who, tenant))
    }
}

/// All that is promised.
#[derive(Debug, Clone, Copy)]
pub enum DeferredGrant<'a> {
    /// A link into an organization, with a role or none.
    Invitation { tenant: OrganizationId, role: Option<RoleId> },
    /// A link for a member's new password, made by an administrator; with the member's direct rights.
    PasswordLink { member: MemberId, rights: &'a [RightRow] },
    /// The welcome mail to a new member with its link; with the member's direct rights.
    Welcome { member: MemberId, rights: &'a [RightRow] },
    /// The key of a service. It is not withdrawn: it opens nothing until somebody who may give its scopes rotates it.
    ServiceKey { scopes: &'a [&'a str] },
    /// An API client. Like the key of a service it is not withdrawn.
    ClientScopes { scopes: &'a [&'a str] },
    /// A key that somebody else made for a member; with the member's direct rights, where the rows are at hand. When these
    /// grow, it is asked again.
    MemberKey { member: MemberId, rights: &'a [RightRow] },
    /// A password that somebody else chose for a member, with the sessions that it opened; with the member's direct rights.
    Password { member: MemberId, rights: &'a [RightRow] },
    /// The events that a webhook gets, of one organization or the whole site. It is disabled, and can be enabled again.
    Webhook { organization: Option<OrganizationId> },
}

/// Fails unless the maker may give today what it promised.
pub fn require_kept(
    snapshot: &Snapshot,
    maker: &Maker,
    deferred_grant: DeferredGrant<'_>,
    now: Timestamp,
) -> Result<()> {
    let as_caller_in = |tenant| maker.today(snapshot, tenant, now).ok_or_else(|| Error::from(ErrorCode::NotHeld));
    match deferred_grant {
        DeferredGrant::Invitation { tenant, role } => {
            let caller = as_caller_in(Some(tenant))?;
            require_in_tenant(snapshot, &caller, Permission::INVITATION_CREATE)?;
            let role = match role {
                None => None,
                Some(id) => {
                    let found = snapshot.tenant(tenant).and_then(|tenant| tenant.role(id));
                    Some(found.ok_or(ErrorCode::RoleNotFound)?)
                }
            };
            delegation::require_may_invite(snapshot, &caller, tenant, role)
        }
        DeferredGrant::PasswordLink { member, rights } => {
            let permissions = [Permission::MEMBER_PASSWORD_LINK];
            require_may_change_today(snapshot, &as_caller_in, &permissions, (member, Touch::Account, rights))
        }
        DeferredGrant::Welcome { member, rights } => {
            let permissions = [Permission::USER_CREATE, Permission::USER_IMPORT];
            require_may_change_today(snapshot, &as_caller_in, &permissions, (member, Touch::Account, rights))
        }
        DeferredGrant::ServiceKey { .. }
        | DeferredGrant::ClientScopes { .. }
        | DeferredGrant::MemberKey { .. }
        | DeferredGrant::Password { .. }
            if *maker == Maker::Site =>
        {
            Ok(())
        }
        DeferredGrant::ServiceKey { scopes } => {
            let caller = as_caller_in(None)?;
            require_one_of(snapshot, &caller, &[Permission::KEY_CREATE, Permission::KEY_ROTATE])?;
            delegation::require_scopes_held(snapshot, &caller, scopes)
        }
        DeferredGrant::ClientScopes { scopes } => {
            let caller = as_caller_in(None)?;
            let permissions = [Permission::CLIENT_CREATE, Permission::CLIENT_ROTATE];
            require_one_of(snapshot, &caller, &permissions)?;
            delegation::require_scopes_held(snapshot, &caller, scopes)
        }
        DeferredGrant::MemberKey { member, rights } | DeferredGrant::Password { member, rights } => {
            // Of a grant that ended nobody can tell who held it: who is below the platform answers for no direct right.
            let is_below = matches!(maker, Maker::Member(id) if !snapshot.is_platform_admin(*id));
            if is_below && !rights.is_empty() {
                return Err(ErrorCode::NotHeld.into());
            }
            const KEYS: &[Permission] =
                &[Permission::MEMBER_KEY_CREATE, Permission::MEMBER_KEY_ROTATE, Permission::USER_CREATE];
            const PASSWORDS: &[Permission] =
                &[Permission::MEMBER_CREATE, Permission::MEMBER_UPDATE, Permission::MEMBER_PASSWORD_LINK];
            let permissions = if matches!(deferred_grant, DeferredGrant::Password { .. }) { PASSWORDS } else { KEYS };
            require_may_change_today(snapshot, &as_caller_in, permissions, (member, Touch::Standing, rights))
        }
        DeferredGrant::Webhook { organization } => {
            let caller = as_caller_in(organization)?;
            let reach = require_one_of(snapshot, &caller, &[Permission::WEBHOOK_CREATE, Permission::WEBHOOK_ROTATE])?;
            let hears = organization.map_or(reach == Reach::Site, |id| reach.includes(id));
            if hears { Ok(()) } else { Err(ErrorCode::NotHeld.into()) }
        }
    }
}

/// How long the former text of a program or a key works on when it is rotated: not at all where it opened nothing any more,
/// or where somebody else than who rotates it may know it. Who has the machine, has all texts.
pub fn grace_ms((former, is_kept): (&Maker, bool), rotator: &Maker, grace_ms: i64) -> i64 {
    let is_known_to_others = former != rotator && *former != Maker::Site;
    if is_kept && !is_known_to_others { grace_ms } else { 0 }
}

/// Fails unless who made this client, or rotated it last, may give its scopes today.
pub fn require_client_kept(snapshot: &Snapshot, client: &Client, now: Timestamp) -> Result<()> {
    if matches!(client.maker, Maker::Client(_)) {
        // No client makes clients.
        return Err(ErrorCode::NotHeld.into());
    }
    let scopes: Vec<&str> = client.scopes.iter().map(|scope| &**scope).collect();
    require_kept(snapshot, &client.maker, DeferredGrant::ClientScopes { scopes: &scopes }, now)
}

/// The reach of the first of these permissions that the caller has.
fn require_one_of(snapshot: &Snapshot, caller: &Identity, permissions: &[Permission]) -> Result<Reach> {
    let mut refused = Error::from(ErrorCode::Forbidden);
    for permission in permissions {
        match require(snapshot, caller, *permission) {
            Ok(reach) => return Ok(reach),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Has the maker one of these permissions, and may it change this member: for the whole site, or in the one organization
/// that the member belongs to?
fn require_may_change_today(
    snapshot: &Snapshot,
    as_caller_in: &dyn Fn(Option<OrganizationId>) -> Result<Identity>,
    permissions: &[Permission],
    (member, touch, rights): (MemberId, Touch, &[RightRow]),
) -> Result<()> {
    let may = |tenant: Option<OrganizationId>| -> Result<()> {
        let caller = as_caller_in(tenant)?;
        let reach = require_one_of(snapshot, &caller, permissions)?;
        let only = snapshot.only_tenant(member).map(|tenant| tenant.id);
        if reach.organization().is_some() && reach.organization() != only {
            return Err(ErrorCode::MemberNotFound.into());
        }
        delegation::require_may_change(snapshot, &caller, (reach, member), (touch, rights))
    };
    may(None).or_else(|refused| match snapshot.only_tenant(member) {
        Some(tenant) => may(Some(tenant.id)),
        None => Err(refused),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_is_read_as_it_was_written() {
        for maker in [Maker::Site, Maker::Member(MemberId::new()), Maker::Client("rc_1".into()), Maker::Nobody] {
            assert_eq!(Maker::parse(Some(&maker.to_text())), maker);
        }
        for text in [None, Some(""), Some("cli x"), Some("internal internal"), Some("nobody")] {
            assert_eq!(Maker::parse(text), Maker::Nobody, "{text:?}");
        }
    }

    #[test]
    fn a_former_text_works_on_for_who_knew_it_alone() {
        let (one, other) = (Maker::Member(MemberId::new()), Maker::Member(MemberId::new()));
        for (former, is_kept, rotator, grace) in [
            (&one, true, &one, 5),
            (&one, false, &one, 0),
            (&one, true, &other, 0),
            (&one, true, &Maker::Site, 0),
            (&Maker::Site, true, &one, 5),
            (&Maker::Client("rc_1".into()), true, &one, 0),
            (&Maker::Nobody, false, &one, 0),
        ] {
            assert_eq!(grace_ms((former, is_kept), rotator, 5), grace, "{former:?} {is_kept} {rotator:?}");
        }
    }

    #[test]
    fn nobody_s_promise_is_not_kept() {
        let snapshot = Snapshot::empty(1);
        for deferred_grant in [
            DeferredGrant::ServiceKey { scopes: &["jobs:write"] },
            DeferredGrant::ClientScopes { scopes: &["jobs:write"] },
            DeferredGrant::MemberKey { member: MemberId::new(), rights: &[] },
            DeferredGrant::Password { member: MemberId::new(), rights: &[] },
            DeferredGrant::Webhook { organization: None },
        ] {
            let is_kept = |maker: &Maker| require_kept(&snapshot, maker, deferred_grant, Timestamp::now()).is_ok();
            assert!(!is_kept(&Maker::Nobody) && !is_kept(&Maker::Member(MemberId::new())), "{deferred_grant:?}");
            assert!(!is_kept(&Maker::Client("rc_1".into())) && is_kept(&Maker::Site), "{deferred_grant:?}");
        }
    }
}
