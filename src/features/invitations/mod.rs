//! Invitations: links that make the invited user a member of an organization, optionally with a role.
//!
//! **Invariant.** A link works once, until it expires, while its organization is active and its role is open, and while
//! its maker may grant what it gives. Invalid input when accepting does not consume it.

pub mod api;
pub mod store;

use std::sync::Arc;

use serde_json::json;

use crate::features::members::limits::{MemberLimits, require_capacity_of};
use crate::features::members::{self, Guesser, NewMember, bounded_guesses, create_as, member_event, password};
use crate::features::permissions;
use crate::kernel::app::{App, Changed, Occurrence, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::deferred_grant::{self, DeferredGrant, Grantor};
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::{Change, Role, Snapshot};
use crate::kernel::authz::{self, Reach, delegation};
use crate::kernel::db::{ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{InvitationId, MemberId, OrganizationId, RoleId, Timestamp};
use crate::kernel::outbox::EventKind;
use crate::kernel::secret::{self, Hash};

/// An invitation as stored. The token of its link is not stored.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub id: InvitationId,
    pub organization: OrganizationId,
    pub role: Option<RoleId>,
    pub role_key: Option<String>,
    pub email: Option<String>,
    pub expires_at: Timestamp,
    pub accepted_at: Option<Timestamp>,
    /// The member who accepted it.
    pub member: Option<MemberId>,
    pub created_at: Timestamp,
    pub maker: Grantor,
}

/// The status of an invitation. It is not stored: it follows from the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvitationStatus {
    Open,
    Accepted,
    Expired,
}

impl Invitation {
    pub fn status(&self, now: Timestamp) -> InvitationStatus {
        match self.accepted_at {
            Some(_) => InvitationStatus::Accepted,
            None if now < self.expires_at => InvitationStatus::Open,
            None => InvitationStatus::Expired,
        }
    }
}

/// An invitation as the invited user sees it.
#[derive(Debug, Clone)]
pub struct InvitationPreview {
    pub invitation: Invitation,
    pub organization_name: String,
}

/// The role that an invitation names, by id or key.
#[derive(Debug, Clone)]
pub enum RoleName {
    Id(RoleId),
    Key(String),
}

// ── inviting ──

/// Creates an invitation. The caller generates the token of the link and returns it once.
pub fn invite(
    t: &Transaction<'_>,
    caller: &Identity,
    (tenant, role): (OrganizationId, Option<RoleName>),
    email: Option<String>,
    (token, expires_at): (&str, Timestamp),
    open_max: u64,
) -> Result<(Invitation, Entry)> {
    let snapshot = t.snapshot();
    delegation::require_may_invite(snapshot, caller, tenant, None)?;
    let role = role.map(|role| find_role(snapshot, tenant, &role)).transpose()?;
    if role.is_some_and(|role| !role.is_open) {
        return Err(Error::field("role_id", "this role is closed: open it, or choose another"));
    }
    delegation::require_may_invite(snapshot, caller, tenant, role)?;
    if expires_at <= t.now() {
        return Err(Error::field("expires_at", "must be in the future, in Unix milliseconds"));
    }
    if store::count_open(t, tenant)? >= open_max {
        let message = format!("the organization already has {open_max} open invitations (limits.invitations)");
        return Err(Error::field("expires_at", message));
    }
    let invitation = Invitation {
        id: InvitationId::new(),
        organization: tenant,
        role: role.map(|role| role.id),
        role_key: role.map(|role| role.key.to_string()),
        email,
        expires_at,
        accepted_at: None,
        member: None,
        created_at: t.now(),
        maker: Grantor::from_caller(caller),
    };
    store::insert_invitation(t, &invitation, &secret::hash(token))?;
    let after =
        json!({"role": invitation.role_key, "expires_at": expires_at.0, "has_email": invitation.email.is_some()});
    let entry = Entry::new("invitation", invitation.id).within(tenant).after(after);
    Ok((invitation, entry))
}

fn find_role<'s>(snapshot: &'s Snapshot, tenant: OrganizationId, named: &RoleName) -> Result<&'s Role> {
    match named {
        RoleName::Id(id) => permissions::get_role_in_snapshot(snapshot, tenant, *id),
        RoleName::Key(key) => permissions::get_role_by_key_in_snapshot(snapshot, tenant, key),
    }
}

pub fn list(r: &Reader<'_>, tenant: OrganizationId, window: &PageRequest) -> Result<ListPage<Invitation>> {
    store::list_invitations(r, tenant, window)
}

/// Withdraws an invitation. Fails with `InvitationAccepted` if it was accepted.
pub fn withdraw(t: &Transaction<'_>, tenant: OrganizationId, id: InvitationId) -> Result<Entry> {
    let found = store::get_invitation(t, tenant, id)?;
    if found.accepted_at.is_some() {
        return Err(ErrorCode::InvitationAccepted.into());
    }
    store::delete_invitation(t, id)?;
    Ok(Entry::new("invitation", id).within(tenant).before(json!({"role": found.role_key})))
}

/// Deletes up to `most` invitations that were not accepted and expired 30 days ago or earlier.
pub fn purge_expired(w: &Writer<'_>, most: usize) -> Result<usize> {
    const KEPT_MS: i64 = 30 * 86_400_000;
    store::delete_expired(w, w.now().plus_ms(-KEPT_MS), most)
}

// ── accepting ──

/// Returns the invitation of a valid link. Fails with `InvalidLink` in the same way if the link was accepted, expired,
/// withdrawn, unknown, or if its maker may no longer grant this.
fn require_open(r: &Reader<'_>, snapshot: &Snapshot, hash: &Hash, now: Timestamp) -> Result<InvitationPreview> {
    let is_open = |invited: &InvitationPreview| {
        let invitation = &invited.invitation;
        let tenant = snapshot.tenant(invitation.organization).filter(|tenant| tenant.is_active);
        tenant.is_some_and(|tenant| {
            invitation.status(now) == InvitationStatus::Open
                && invitation.role.is_none_or(|id| tenant.role(id).is_some_and(|role| role.is_open))
        })
    };
    let invited = store::find_by_hash(r, hash)?.filter(is_open).ok_or(ErrorCode::InvalidLink)?;
    let Invitation { organization, role, maker, .. } = &invited.invitation;
    let deferred_grant = DeferredGrant::Invitation { tenant: *organization, role: *role };
    deferred_grant::require_grantor_authorized(snapshot, maker, deferred_grant, now)
        .map_err(|error| Error::new(ErrorCode::InvalidLink).with_source(format!("its maker: {}", error.message())))?;
    Ok(invited)
}

/// Returns the invitation of a link, to show it before it is accepted. Fails with `InvalidLink`.
pub async fn preview(app: &App, token: &str) -> Result<InvitationPreview> {
    let (hash, snapshot) = (secret::hash(token), app.snapshot());
    app.read(move |r| require_open(r, &snapshot, &hash, Timestamp::now())).await
}

/// The data of an invited user who has no account yet.
#[derive(Debug)]
pub struct InvitedMember {
    pub username: Option<String>,
    /// The e-mail of the invitation by default.
    pub email: Option<String>,
    pub display_name: Option<String>,
    pub password: String,
}

/// Accepts an invitation by creating an account: an active member of the organization, with the role.
pub async fn accept(
    app: &App,
    context: &Arc<RequestContext>,
    token: &str,
    newcomer: InvitedMember,
) -> Result<MemberId> {
    let InvitedMember { username, email, display_name, password } = newcomer;
    // The link is checked first, so that nobody without one can make the server compute a hash.
    let invited = preview(app, token).await?;
    let reach = Reach::Tenant(invited.invitation.organization);
    let guesser = Guesser::by(&invited.invitation.maker, context.address, reach);
    let email = email.or(invited.invitation.email);
    if username.is_none() && email.is_none() {
        return Err(Error::field("username", "enter a username or an e-mail"));
    }
    let names = [username.clone(), email.clone()];
    let password_hash = Some(password::hash(app, password).await?);
    let new = NewMember { username, email, display_name, password_hash, ..NewMember::default() };
    let (hash, limits, id) = (secret::hash(token), MemberLimits::of(&app.config), MemberId::new());
    let accept = move |t: &Transaction<'_>, _: &Identity| {
        let invitation = require_open(t, t.snapshot(), &hash, t.now())?.invitation;
        create_as(t, require_capacity_of(t, invitation.organization, limits)?, id, &new)?;
        let member_state = authz::store::member_state(t, id)?;
        let membership = join(t, &invitation, id)?;
        let created = member_event(t, EventKind::MemberCreated, id).within(invitation.organization);
        Ok(Changed::new((), accepted(&invitation, id, true))
            .with_policy_changes([member_state, membership])
            .with_events([created]))
    };
    let caller = Identity::new(Principal::Member(id), context.clone());
    bounded_guesses(app, Some(guesser), names, app.change(&caller, "invitation.accept", accept)).await?;
    Ok(id)
}

/// Accepts an invitation for an existing member.
pub async fn accept_as(app: &App, caller: &Identity, member: MemberId, token: &str) -> Result<Invitation> {
    let hash = secret::hash(token);
    let accept = move |t: &Transaction<'_>, _: &Identity| {
        if !t.snapshot().is_active(member) {
            return Err(ErrorCode::InvalidBearer.into());
        }
        let invitation = require_open(t, t.snapshot(), &hash, t.now())?.invitation;
        let membership = join(t, &invitation, member)?;
        let entry = accepted(&invitation, member, false);
        Ok(Changed::new(invitation, entry).with_policy_changes([membership]))
    };
    Ok(app.change(caller, "invitation.accept", accept).await?.answer)
}

/// Marks the invitation as accepted, and adds the membership and the role that the member does not have yet.
fn join(t: &Transaction<'_>, invitation: &Invitation, member: MemberId) -> Result<Change> {
    let organization = invitation.organization;
    members::join(t, organization, member)?;
    if let Some(role) = invitation.role {
        permissions::assign_role_unchecked(t, organization, member, role)?;
    }
    store::accept_invitation(t, invitation.id, member)?;
    authz::store::membership(t, organization, member)
}

fn accepted(invitation: &Invitation, member: MemberId, is_new: bool) -> Entry {
    let after = json!({"invitation": invitation.id, "role": invitation.role_key, "created": is_new});
    Entry::new("member", member).within(invitation.organization).after(after)
}

/// Reacts to occurrences of other features.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::MemberErased(member) => store::forget_invited(t, *member).map(|()| Vec::new()),
        Occurrence::RoleDeleted(role) => store::withdraw_of_role(t, *role).map(|()| Vec::new()),
        Occurrence::InvitationWithdrawn(id) => store::delete_invitation(t, *id).map(|()| Vec::new()),
        _ => Ok(Vec::new()),
    }
}
