//! Operations on passwords: changing one's own password, and password links.

use std::sync::Arc;

use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};

use crate::features::sessions::passwords::{Link, change_own, create_link, reset_password, send_link};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::authn::caller::{AdminCaller, MemberCaller, Visitor};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::http::{Body, EmptyReply, LinkToken, Password, Reply, Tag, done, ok};
use crate::kernel::ids::MemberId;
use crate::kernel::{authz, secret};

use super::{LoginName, LoginPassword};

/// A change of the caller's password
#[derive(Object)]
struct ChangePassword {
    old_password: LoginPassword,
    new_password: Password,
}

/// A request for a password link
#[derive(Object)]
struct ForgotPassword {
    login: LoginName,
}

/// A new password, set with a password link
#[derive(Object)]
struct ResetPassword {
    token: LinkToken,
    new_password: Password,
}

/// A link that works once; it is returned only in this answer
#[derive(Object)]
struct PasswordLink {
    /// The page where the member enters the new password
    url: String,
    /// For `/auth/password/reset`
    token: String,
    /// Unix milliseconds
    expires_at: i64,
}

fn password_link(link: Changed<Link>) -> Changed<PasswordLink> {
    link.map(|link| PasswordLink { url: link.url, token: link.token, expires_at: link.expires_at.0 })
}

crate::document! {
    change_my_password: [WrongPassword, TooManyFailures];
    forgot_password: [TooManyFailures, MailNotConfigured];
    reset_password: [InvalidLink, TooManyFailures, CrossSite];
    create_password_link: [NotHeld, MemberNotFound, MemberNotActive, MemberDeleted, SecretNotKept];

    "ChangePassword": r#"{"old_password":"Correct-horse-7","new_password":"Another-horse-8"}"#;
    "ForgotPassword": r#"{"login":"kim@example.org"}"#;
    "ResetPassword": r#"{"token":"pr_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","new_password":"Another-horse-8"}"#;
    "PasswordLink": r#"{"url":"https://roster.example.org/reset?token=pr_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","token":"pr_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","expires_at":1763744400000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Sessions")]
impl Api {
    /// Change your password
    ///
    /// Ends every other session of the caller; the session that sent the request remains.
    #[oai(path = "/me/password", method = "post", operation_id = "change_my_password")]
    async fn change_my_password(&self, caller: MemberCaller, body: Body<ChangePassword>) -> EmptyReply {
        let ChangePassword { old_password, new_password } = body.0;
        change_own(&self.app, &caller, old_password.0, new_password.0).await?;
        Ok(done())
    }

    /// Request a password link by mail
    ///
    /// The answer is the same for known and unknown logins. At most one mail is sent per minute.
    #[oai(path = "/auth/password/forgot", method = "post", operation_id = "forgot_password")]
    async fn forgot_password(&self, visitor: Visitor, body: Body<ForgotPassword>) -> EmptyReply {
        send_link(&self.app, &visitor, body.0.login.0)?;
        Ok(done())
    }

    /// Set a new password with a link
    ///
    /// Ends every session of the member and creates none. A rejected password does not consume the link.
    #[oai(path = "/auth/password/reset", method = "post", operation_id = "reset_password")]
    async fn reset_password(&self, visitor: Visitor, body: Body<ResetPassword>) -> EmptyReply {
        let ResetPassword { token, new_password } = body.0;
        reset_password(&self.app, &visitor.context, token.0, new_password.0).await?;
        Ok(done())
    }

    /// Create a password link for a member
    ///
    /// The link works once, for `auth.reset_link_ttl_s`. A new link invalidates the previous ones. Pass it on over a
    /// channel that you trust.
    #[oai(path = "/admin/members/:id/password-link", method = "post", operation_id = "create_password_link")]
    async fn create_password_link(&self, caller: AdminCaller, id: Path<MemberId>) -> Reply<PasswordLink> {
        authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_PASSWORD_LINK)?;
        let make = create_link(&self.app, secret::token("pr_")?, id.0);
        let make = move |t: &Transaction<'_>, caller: &Identity| make(t, caller).map(password_link);
        let made =
            self.app.create_secret(&caller, "member.password_link", Permission::MEMBER_PASSWORD_LINK, make).await?;
        Ok(ok(made.answer))
    }
}
