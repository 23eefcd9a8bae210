//! Deferred grants: rights that one principal gives and another one uses later, such as an invitation. This file lists
//! the kinds of deferred grants and holds their rule.
//!
//! **Invariant.** A deferred grant is worth what its maker may give at the time of use. It is checked in the
//! transaction that uses it, and withdrawn in the transaction that removes the rights of its maker
//! (`kernel::app::deferred_grants`).
//!
//! Not deferred grants: rules of an organization that it can see and change (role mappings, permissions ticked in
//! roles, plugins); a key that a member created for itself, because its rights are checked at every request; what a
//! member requested for itself (sessions, mailed links for its own password). While a member signs in with a password
//! that somebody else chose, the maker of the keys that it creates is that other principal.

use std::sync::Arc;

use super::client::Client;
use super::delegation::{self, MemberPart, RightRow};
use super::permission::Permission;
use super::snapshot::Snapshot;
use super::{Reach, require, require_in_tenant};
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, RoleId, Timestamp};

/// The principal that made a deferred grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantor {
    /// The command line, which belongs to the owner of the machine; also the site itself.
    Site,
    Member(MemberId),
    Client(Arc<str>),
    /// Unknown, or a kind of principal whose deferred grants are never valid.
    Nobody,
}

impl Grantor {
    pub fn from_caller(caller: &Identity) -> Self {
        match &caller.principal {
            Principal::CommandLine => Self::Site,
            Principal::Member(id) => Self::Member(*id),
            Principal::Client(client) => Self::Client(client.client_key.clone()),
            Principal::Asserted(_) | Principal::Key(_) | Principal::Internal | Principal::Visitor => Self::Nobody,
        }
    }

    /// The stored form: kind and name, like the actor of an audit entry.
    pub fn to_text(&self) -> String {
        match self {
            Self::Site => "cli".into(),
            Self::Member(id) => format!("member {id}"),
            Self::Client(key) => format!("client {key}"),
            Self::Nobody => "nobody".into(),
        }
    }

    /// Reads the stored form. Rows from before makers were stored have none.
    pub fn parse(text: Option<&str>) -> Self {
        match text.and_then(|text| text.split_once(' ').or(Some((text, "")))) {
            Some(("cli", "")) => Self::Site,
            Some(("member", id)) => Self::Member(MemberId::of(id)),
            Some(("client", key)) => Self::Client(key.into()),
            _ => Self::Nobody,
        }
    }

    /// The maker as a caller now, acting in this organization. `None` if the principal does not exist or is not valid
    /// any more.
    fn as_caller(&self, snapshot: &Snapshot, tenant: Option<OrganizationId>, now: Timestamp) -> Option<Identity> {
        let principal = match self {
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
        principal.map(|principal| Identity::of_maker(principal, tenant))
    }
}

/// The kinds of deferred grants.
#[derive(Debug, Clone, Copy)]
pub enum DeferredGrant<'a> {
    /// An invitation link into an organization, with or without a role.
    Invitation { tenant: OrganizationId, role: Option<RoleId> },
    /// A link to set a member's password, made by an administrator. `rights`: the member's direct rights.
    PasswordLink { member: MemberId, rights: &'a [RightRow] },
    /// The link in the welcome mail to a new member. `rights`: the member's direct rights.
    Welcome { member: MemberId, rights: &'a [RightRow] },
    /// The key of a service. It is not withdrawn, but stays invalid until a principal that may give its scopes rotates
    /// it.
    ServiceKey { scopes: &'a [&'a str] },
    /// The scopes of an API client. Like a service's key, it is not withdrawn.
    ClientScopes { scopes: &'a [&'a str] },
    /// A key that another principal created for a member. `rights`: the member's direct rights, if the caller has read
    /// them. The check is repeated when these rights grow.
    MemberKey { member: MemberId, rights: &'a [RightRow] },
    /// A password that another principal chose for a member, with the sessions opened by it. `rights`: the member's
    /// direct rights.
    Password { member: MemberId, rights: &'a [RightRow] },
    /// The events that a webhook receives, of one organization or the whole site. A withdrawn webhook is disabled, and
    /// can be enabled again.
    Webhook { organization: Option<OrganizationId> },
}

/// Fails with an error such as `not_held` unless the maker may still make this grant.
pub fn require_grantor_authorized(
    snapshot: &Snapshot,
    maker: &Grantor,
    deferred_grant: DeferredGrant<'_>,
    now: Timestamp,
) -> Result<()> {
    let as_caller_in = |tenant| maker.as_caller(snapshot, tenant, now).ok_or_else(|| Error::from(ErrorCode::NotHeld));
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
            require_maker_may_change(snapshot, &as_caller_in, &permissions, (member, MemberPart::Account, rights))
        }
        DeferredGrant::Welcome { member, rights } => {
            let permissions = [Permission::USER_CREATE, Permission::USER_IMPORT];
            require_maker_may_change(snapshot, &as_caller_in, &permissions, (member, MemberPart::Account, rights))
        }
        DeferredGrant::ServiceKey { .. }
        | DeferredGrant::ClientScopes { .. }
        | DeferredGrant::MemberKey { .. }
        | DeferredGrant::Password { .. }
            if *maker == Grantor::Site =>
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
            // Nothing records who held a grant that has ended. So only platform administrators and API clients can be
            // makers for members with direct rights.
            let is_plain_member = matches!(maker, Grantor::Member(id) if !snapshot.is_platform_admin(*id));
            if is_plain_member && !rights.is_empty() {
                return Err(ErrorCode::NotHeld.into());
            }
            const KEYS: &[Permission] =
                &[Permission::MEMBER_KEY_CREATE, Permission::MEMBER_KEY_ROTATE, Permission::USER_CREATE];
            const PASSWORDS: &[Permission] =
                &[Permission::MEMBER_CREATE, Permission::MEMBER_UPDATE, Permission::MEMBER_PASSWORD_LINK];
            let permissions = if matches!(deferred_grant, DeferredGrant::Password { .. }) { PASSWORDS } else { KEYS };
            require_maker_may_change(snapshot, &as_caller_in, permissions, (member, MemberPart::Standing, rights))
        }
        DeferredGrant::Webhook { organization } => {
            let caller = as_caller_in(organization)?;
            let reach = require_one_of(snapshot, &caller, &[Permission::WEBHOOK_CREATE, Permission::WEBHOOK_ROTATE])?;
            let is_in_reach = organization.map_or(reach == Reach::Site, |id| reach.includes(id));
            if is_in_reach { Ok(()) } else { Err(ErrorCode::NotHeld.into()) }
        }
    }
}

/// The milliseconds for which the former secret of a client or key stays valid after a rotation. It is 0 if the former
/// secret was not valid any more, or if a principal other than the rotator may know it. The site is no such principal:
/// the owner of the machine has access to all secrets anyway.
pub fn grace_ms((former, is_kept): (&Grantor, bool), rotator: &Grantor, grace_ms: i64) -> i64 {
    let is_known_to_others = former != rotator && *former != Grantor::Site;
    if is_kept && !is_known_to_others { grace_ms } else { 0 }
}

/// Fails unless the principal that created this client, or rotated it last, may still give its scopes.
pub fn require_client_kept(snapshot: &Snapshot, client: &Client, now: Timestamp) -> Result<()> {
    if matches!(client.maker, Grantor::Client(_)) {
        // A client cannot create clients.
        return Err(ErrorCode::NotHeld.into());
    }
    let scopes: Vec<&str> = client.scopes.iter().map(|scope| &**scope).collect();
    require_grantor_authorized(snapshot, &client.maker, DeferredGrant::ClientScopes { scopes: &scopes }, now)
}

/// Returns the reach of the first of these permissions that the caller has.
fn require_one_of(snapshot: &Snapshot, caller: &Identity, permissions: &[Permission]) -> Result<Reach> {
    let mut last = Error::from(ErrorCode::Forbidden);
    for permission in permissions {
        match require(snapshot, caller, *permission) {
            Ok(reach) => return Ok(reach),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Fails unless the maker has one of these permissions and may change this member, either site-wide or in the only
/// organization that the member belongs to.
fn require_maker_may_change(
    snapshot: &Snapshot,
    as_caller_in: &dyn Fn(Option<OrganizationId>) -> Result<Identity>,
    permissions: &[Permission],
    (member, touch, rights): (MemberId, MemberPart, &[RightRow]),
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
    fn a_maker_survives_storing_and_reading() {
        for maker in [Grantor::Site, Grantor::Member(MemberId::new()), Grantor::Client("rc_1".into()), Grantor::Nobody]
        {
            assert_eq!(Grantor::parse(Some(&maker.to_text())), maker);
        }
        for text in [None, Some(""), Some("cli x"), Some("internal internal"), Some("nobody")] {
            assert_eq!(Grantor::parse(text), Grantor::Nobody, "{text:?}");
        }
    }

    #[test]
    fn a_former_secret_stays_valid_only_if_nobody_but_the_rotator_knows_it() {
        let (one, other) = (Grantor::Member(MemberId::new()), Grantor::Member(MemberId::new()));
        for (former, is_kept, rotator, grace) in [
            (&one, true, &one, 5),
            (&one, false, &one, 0),
            (&one, true, &other, 0),
            (&one, true, &Grantor::Site, 0),
            (&Grantor::Site, true, &one, 5),
            (&Grantor::Client("rc_1".into()), true, &one, 0),
            (&Grantor::Nobody, false, &one, 0),
        ] {
            assert_eq!(grace_ms((former, is_kept), rotator, 5), grace, "{former:?} {is_kept} {rotator:?}");
        }
    }

    #[test]
    fn grants_of_unknown_makers_are_not_valid() {
        let snapshot = Snapshot::empty(1);
        for deferred_grant in [
            DeferredGrant::ServiceKey { scopes: &["jobs:write"] },
            DeferredGrant::ClientScopes { scopes: &["jobs:write"] },
            DeferredGrant::MemberKey { member: MemberId::new(), rights: &[] },
            DeferredGrant::Password { member: MemberId::new(), rights: &[] },
            DeferredGrant::Webhook { organization: None },
        ] {
            let is_kept = |maker: &Grantor| {
                require_grantor_authorized(&snapshot, maker, deferred_grant, Timestamp::now()).is_ok()
            };
            assert!(!is_kept(&Grantor::Nobody) && !is_kept(&Grantor::Member(MemberId::new())), "{deferred_grant:?}");
            assert!(!is_kept(&Grantor::Client("rc_1".into())) && is_kept(&Grantor::Site), "{deferred_grant:?}");
        }
    }
}
