//! Passwords: one's own, and links for a new one.

use std::sync::Arc;

use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};

use crate::features::sessions::passwords::{Link, change_own, make_link, reset, send_link};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::authn::caller::{AdminCaller, MemberCaller, Visitor};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::http::{Body, Done, LinkToken, Password, Reply, Tag, done, ok};
use crate::kernel::ids::MemberId;
use crate::kernel::{authz, secret};

use super::{LoginName, LoginPassword};

/// A new password in place of the present one
#[derive(Object)]
struct ChangePassword {
    old_password: LoginPassword,
    new_password: Password,
}

/// Who has forgotten the password
#[derive(Object)]
struct ForgotPassword {
    login: LoginName,
}

/// A new password by a link
#[derive(Object)]
struct ResetPassword {
    token: LinkToken,
    new_password: Password,
}

/// A link that works once; it is shown only now
#[derive(Object)]
struct PasswordLink {
    /// The page that asks for the new password
    url: String,
    /// For `/auth/password/reset`
    token: String,
    /// Unix milliseconds
    expires_at: i64,
}

fn shown(link: Changed<Link>) -> Changed<PasswordLink> {
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
    /// Change one's own password
    ///
    /// Ends every other session; the one that asks goes on.
    #[oai(path = "/me/password", method = "post", operation_id = "change_my_password")]
    async fn change_my_password(&self, caller: MemberCaller, body: Body<ChangePassword>) -> Done {
        let ChangePassword { old_password, new_password } = body.0;
        change_own(&self.app, &caller, old_password.0, new_password.0).await?;
        Ok(done())
    }

    /// Ask for a link by mail
    ///
    /// The answer is the same for every login, known or not. One mail a minute at most.
    #[oai(path = "/auth/password/forgot", method = "post", operation_id = "forgot_password")]
    async fn forgot_password(&self, visitor: Visitor, body: Body<ForgotPassword>) -> Done {
        send_link(&self.app, &visitor, body.0.login.0)?;
        Ok(done())
    }

    /// Set a new password by a link
    ///
    /// Ends every session and signs nobody in. A password that is refused does not use the link up.
    #[oai(path = "/auth/password/reset", method = "post", operation_id = "reset_password")]
    async fn reset_password(&self, visitor: Visitor, body: Body<ResetPassword>) -> Done {
        let ResetPassword { token, new_password } = body.0;
        reset(&self.app, &visitor.context, token.0, new_password.0).await?;
        Ok(done())
    }

    /// Make a link for a member's new password
    ///
    /// Works once, for `auth.reset_link_ttl_s`; a new link voids the ones before. Hand it over by a way you trust.
    #[oai(path = "/admin/members/:id/password-link", method = "post", operation_id = "create_password_link")]
    async fn create_password_link(&self, caller: AdminCaller, id: Path<MemberId>) -> Reply<PasswordLink> {
        authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_PASSWORD_LINK)?;
        let make = make_link(&self.app, secret::token("pr_")?, id.0);
        let make = move |t: &Transaction<'_>, caller: &Identity| make(t, caller).map(shown);
        let made =
            self.app.create_secret(&caller, "member.password_link", Permission::MEMBER_PASSWORD_LINK, make).await?;
        Ok(ok(made.answer))
    }
}
