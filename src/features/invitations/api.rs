//! Operations on invitations, for administrators and for invited members.

use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::invitations::{self, Invitation, RoleName};
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::authn::caller::{AdminCaller, MemberCaller};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::PageRequest;
use crate::kernel::error::Error;
use crate::kernel::http::{Body, Email, EmptyReply, LinkToken, Page, Reply, Tag, done, ok};
use crate::kernel::ids::{InvitationId, MemberId, OrganizationId, RoleId, Timestamp};
use crate::kernel::{authz, secret};

crate::text! {
    /// The key of a role
    InvitedRoleKey 1..=64 "";
}

/// The invitation to create; the role is optional, and given by id or by key
#[derive(Object)]
struct CreateInvitation {
    role_id: Option<RoleId>,
    role_key: Option<InvitedRoleKey>,
    /// The default e-mail of the new account; no mail is sent
    email: Option<Email>,
    /// Unix milliseconds; by default `auth.invitation_ttl_s` after now
    expires_at: Option<i64>,
}

/// A new invitation with its link, which is returned only once
#[derive(Object)]
struct NewInvitation {
    id: InvitationId,
    /// The link for the invited user
    url: String,
    /// The token in the link
    token: String,
    organization_id: OrganizationId,
    #[oai(nullable)]
    role_key: Option<String>,
    #[oai(nullable)]
    email: Option<String>,
    /// Unix milliseconds
    expires_at: i64,
}

/// The status of an invitation
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "invitations::InvitationStatus")]
enum InvitationStatus {
    Open,
    Accepted,
    Expired,
}

/// An invitation
#[derive(Object)]
#[oai(rename = "Invitation")]
struct InvitationView {
    id: InvitationId,
    organization_id: OrganizationId,
    #[oai(nullable)]
    role_id: Option<RoleId>,
    #[oai(nullable)]
    role_key: Option<String>,
    #[oai(nullable)]
    email: Option<String>,
    status: InvitationStatus,
    /// Unix milliseconds
    expires_at: i64,
    /// Unix milliseconds
    #[oai(nullable)]
    accepted_at: Option<i64>,
    /// The member who accepted it
    #[oai(nullable)]
    member_id: Option<MemberId>,
    /// Unix milliseconds
    created_at: i64,
}

impl InvitationView {
    fn of(invitation: Invitation, now: Timestamp) -> Self {
        Self {
            status: invitation.status(now).into(),
            id: invitation.id,
            organization_id: invitation.organization,
            role_id: invitation.role,
            role_key: invitation.role_key,
            email: invitation.email,
            expires_at: invitation.expires_at.0,
            accepted_at: invitation.accepted_at.map(|at| at.0),
            member_id: invitation.member,
            created_at: invitation.created_at.0,
        }
    }
}

/// The invitation to accept
#[derive(Object)]
struct JoinRequest {
    token: LinkToken,
}

/// The organization that the member joined, and its role there
#[derive(Object)]
struct Joined {
    organization_id: OrganizationId,
    #[oai(nullable)]
    role_key: Option<String>,
}

/// The longest lifetime of a link, equal to the maximum of the setting `auth.invitation_ttl_s`.
const INVITATION_TTL_MAX_S: u64 = 31_536_000;

crate::document! {
    create_invitation: [MailNotConfigured, NotHeld, RoleNotFound, SystemRole, SecretNotKept];
    delete_invitation: [InvitationNotFound, InvitationAccepted];
    accept_my_invitation: [InvalidLink];

    "CreateInvitation": r#"{"role_key":"member","email":"kim@example.org"}"#;
    "JoinRequest": r#"{"token":"inv_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    "NewInvitation": r#"{"id":"019abcde-0000-7000-8000-000000000007","url":"https://roster.example.org/invitation?token=inv_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","token":"inv_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","organization_id":"019abcde-0000-7000-8000-000000000003","role_key":"member","email":"kim@example.org","expires_at":1764345600000}"#;
    "Invitation": r#"{"id":"019abcde-0000-7000-8000-000000000007","organization_id":"019abcde-0000-7000-8000-000000000003","role_id":"019abcde-0000-7000-8000-000000000004","role_key":"member","email":"kim@example.org","status":"open","expires_at":1764345600000,"accepted_at":null,"member_id":null,"created_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Invitations")]
impl Api {
    /// List invitations
    ///
    /// Returns the invitations of the organization in which the caller acts, newest first. Links are not included.
    #[oai(path = "/admin/invitations", method = "get", operation_id = "list_invitations")]
    async fn list_invitations(
        &self,
        caller: AdminCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<InvitationView>> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::INVITATION_LIST)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let found = self.app.read(move |r| invitations::list(r, tenant, &window)).await?;
        let now = Timestamp::now();
        Ok(ok(found.map(|found| InvitationView::of(found, now)).into()))
    }

    /// Create an invitation
    ///
    /// Creates a link into the organization in which the caller acts. It is returned only once; who accepts it becomes
    /// a member with the role. A caller cannot invite with a role that has more permissions than the caller.
    #[oai(path = "/admin/invitations", method = "post", operation_id = "create_invitation")]
    async fn create_invitation(&self, caller: AdminCaller, body: Body<CreateInvitation>) -> Reply<NewInvitation> {
        let CreateInvitation { role_id, role_key, email, expires_at } = body.0;
        if role_id.is_some() && role_key.is_some() {
            return Err(Error::field("role_key", "cannot be combined with role_id").into());
        }
        let role = role_id.map(RoleName::Id).or(role_key.map(|key| RoleName::Key(key.0)));
        let (token, url) = (secret::token("inv_")?, self.app.public_url());
        let (open_max, ttl_ms) = (self.app.config.invitations_max, seconds_to_ms(self.app.config.invitation_ttl_s));
        let invite = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::INVITATION_CREATE)?;
            let expires = expires_at.map_or(t.now().plus_ms(ttl_ms), Timestamp);
            if expires > t.now().plus_ms(seconds_to_ms(INVITATION_TTL_MAX_S)) {
                return Err(Error::field("expires_at", "must be within a year, in Unix milliseconds"));
            }
            let email = email.map(|email| email.0);
            let (made, entry) = invitations::invite(t, caller, (tenant, role), email, (&token, expires), open_max)?;
            let answer = NewInvitation {
                id: made.id,
                url: format!("{url}/invitation?token={token}"),
                token,
                organization_id: tenant,
                role_key: made.role_key,
                email: made.email,
                expires_at: made.expires_at.0,
            };
            Ok(Changed::new(answer, entry))
        };
        let made = self.app.create_secret(&caller, "invitation.create", Permission::INVITATION_CREATE, invite).await?;
        Ok(ok(made.answer))
    }

    /// Withdraw an invitation
    ///
    /// Its link no longer works. An accepted invitation cannot be withdrawn and stays in the list.
    #[oai(path = "/admin/invitations/:id", method = "delete", operation_id = "delete_invitation")]
    async fn delete_invitation(&self, caller: AdminCaller, id: Path<InvitationId>) -> EmptyReply {
        let withdraw = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::INVITATION_DELETE)?;
            Ok(Changed::new((), invitations::withdraw(t, tenant, id.0)?))
        };
        self.app.change(&caller, "invitation.delete", withdraw).await?;
        Ok(done())
    }

    /// Accept an invitation as a signed-in member
    ///
    /// Adds the member to the organization, with the role of the invitation. Users without an account accept at
    /// `/auth/invitations/accept`.
    #[oai(path = "/me/invitations/accept", method = "post", operation_id = "accept_my_invitation")]
    async fn accept_my_invitation(&self, caller: MemberCaller, body: Body<JoinRequest>) -> Reply<Joined> {
        let member = caller.signed_in()?;
        let joined = invitations::accept_as(&self.app, &caller, member, &body.0.token).await?;
        Ok(ok(Joined { organization_id: joined.organization, role_key: joined.role_key }))
    }
}
