//! Promises: what somebody gave and somebody else takes later. This file is the list of them, and the one rule.
//!
//! **Invariant.** A promise is worth what its maker may give when it is taken. It is checked in the transaction that takes
//! it, and withdrawn in the one that takes the maker's rights away (`app::promises`).
//!
//! No promises: what an organization has as a rule of its own and can see and change (role mappings, ticks of roles,
//! plugins, webhooks); API clients and a member's own keys, whose rights are asked for at every request; what a member
//! asked for itself (sessions, mailed links for its own password).

use std::sync::Arc;

use super::caller::{Identity, Who};
use super::giving::{self, RightRow};
use super::permission::Permission;
use super::snapshot::Snapshot;
use super::{require, require_in_tenant};
use crate::error::{Cause, Error, Result};
use crate::ids::{MemberId, OrganizationId, RoleId, Timestamp};

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
    pub fn of(caller: &Identity) -> Self {
        match &caller.who {
            Who::CommandLine => Self::Site,
            Who::Member(id) => Self::Member(*id),
            Who::Client(client) => Self::Client(client.client_key.clone()),
            Who::Asserted(_) | Who::Key(_) | Who::Internal | Who::Visitor => Self::Nobody,
        }
    }

    /// As rows have it: kind and name, like the actor of an audit entry.
    pub fn text(&self) -> String {
        match self {
            Self::Site => "cli".into(),
            Self::Member(id) => format!("member {id}"),
            Self::Client(key) => format!("client {key}"),
            Self::Nobody => "nobody".into(),
        }
    }

    /// The maker of a row; rows from before makers were stored have none.
    pub fn of_text(text: Option<&str>) -> Self {
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
            Self::Site => Some(Who::CommandLine),
            Self::Member(id) => snapshot.is_active(*id).then_some(Who::Member(*id)),
            Self::Client(key) => {
                let client = snapshot.client(key).filter(|client| client.is_active);
                let client = client.filter(|client| client.expires_at.is_none_or(|at| now < at));
                client.cloned().map(Who::Client)
            }
            Self::Nobody => None,
        };
        who.map(|who| Identity::of_maker(who, tenant))
    }
}

/// All that is promised.
#[derive(Debug, Clone, Copy)]
pub enum Promise<'a> {
    /// A link into an organization, with a role or none.
    Invitation { tenant: OrganizationId, role: Option<RoleId> },
    /// A link for a member's new password, made by an administrator; with the member's direct rights.
    PasswordLink { member: MemberId, rights: &'a [RightRow] },
    /// The letter to a new member, and the link in it; with the member's direct rights.
    Welcome { member: MemberId, rights: &'a [RightRow] },
    /// The key of a service. It is not withdrawn: it opens nothing until somebody who may give its scopes rotates it.
    ServiceKey { scopes: &'a [&'a str] },
}

/// Fails unless the maker may give today what it promised.
pub fn require_kept(snapshot: &Snapshot, maker: &Maker, promise: Promise<'_>, now: Timestamp) -> Result<()> {
    let as_caller_in = |tenant| maker.today(snapshot, tenant, now).ok_or_else(|| Error::from(Cause::NotHeld));
    match promise {
        Promise::Invitation { tenant, role } => {
            let caller = as_caller_in(Some(tenant))?;
            require_in_tenant(snapshot, &caller, Permission::INVITATION_CREATE)?;
            let role = match role {
                None => None,
                Some(id) => {
                    let found = snapshot.tenant(tenant).and_then(|tenant| tenant.role(id));
                    Some(found.ok_or(Cause::RoleNotFound)?)
                }
            };
            giving::require_may_invite(snapshot, &caller, tenant, role)
        }
        Promise::PasswordLink { member, rights } => {
            let permissions = [Permission::MEMBER_PASSWORD_LINK];
            require_may_change_today(snapshot, &as_caller_in, &permissions, (member, rights))
        }
        Promise::Welcome { member, rights } => {
            let permissions = [Permission::USER_CREATE, Permission::USER_IMPORT];
            require_may_change_today(snapshot, &as_caller_in, &permissions, (member, rights))
        }
        Promise::ServiceKey { scopes } => {
            if *maker == Maker::Site {
                return Ok(());
            }
            let caller = as_caller_in(None)?;
            require(snapshot, &caller, Permission::KEY_CREATE)
                .or_else(|_| require(snapshot, &caller, Permission::KEY_ROTATE))?;
            giving::require_scopes_held(snapshot, &caller, scopes)
        }
    }
}

/// Has the maker one of these permissions, and may it change this member: for the whole site, or in the one organization
/// that the member belongs to?
fn require_may_change_today(
    snapshot: &Snapshot,
    as_caller_in: &dyn Fn(Option<OrganizationId>) -> Result<Identity>,
    permissions: &[Permission],
    (member, rights): (MemberId, &[RightRow]),
) -> Result<()> {
    let may = |tenant: Option<OrganizationId>| -> Result<()> {
        let caller = as_caller_in(tenant)?;
        let mut refused = Error::from(Cause::Forbidden);
        for permission in permissions {
            match require(snapshot, &caller, *permission) {
                Ok(reach) => {
                    let only = snapshot.only_tenant(member).map(|tenant| tenant.id);
                    if reach.organization().is_some() && reach.organization() != only {
                        return Err(Cause::MemberNotFound.into());
                    }
                    return giving::require_may_change(snapshot, &caller, (reach, member), rights);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
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
            assert_eq!(Maker::of_text(Some(&maker.text())), maker);
        }
        for text in [None, Some(""), Some("cli x"), Some("internal internal"), Some("nobody")] {
            assert_eq!(Maker::of_text(text), Maker::Nobody, "{text:?}");
        }
    }

    #[test]
    fn nobody_s_promise_is_not_kept() {
        let snapshot = Snapshot::empty(1);
        let promise = Promise::ServiceKey { scopes: &["jobs:write"] };
        assert!(require_kept(&snapshot, &Maker::Nobody, promise, Timestamp::now()).is_err());
        assert!(require_kept(&snapshot, &Maker::Member(MemberId::new()), promise, Timestamp::now()).is_err());
        assert!(require_kept(&snapshot, &Maker::Site, promise, Timestamp::now()).is_ok());
    }
}
