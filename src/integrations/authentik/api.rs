//! Operations on members' Authentik accounts.

use std::sync::Arc;

use poem_openapi::{Enum, Object, OpenApi};

use crate::integrations::authentik::{EnsureRequest, ensure};
use crate::kernel::app::App;
use crate::kernel::authn::caller::InternalCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Body, DisplayName, Email, Reply, Subject, Tag, Username, ok};
use crate::kernel::ids::MemberId;

/// The member that gets an Authentik account: by `uid` or `sub`, or by its names
#[derive(Object)]
struct EnsureAuthentikUser {
    /// The subject at Authentik; Authentik's own value when absent
    sub: Option<Subject>,
    /// An existing member
    uid: Option<MemberId>,
    /// Required for a new account, unless the member has a username
    username: Option<Username>,
    email: Option<Email>,
    display_name: Option<DisplayName>,
    /// Unchanged when absent; a new account is active
    is_active: Option<bool>,
}

/// Whether the account was created or existed before
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum EnsureResult {
    Created,
    Updated,
}

/// A member and its Authentik account
#[derive(Object)]
struct EnsuredAuthentikUser {
    uid: MemberId,
    authentik_sub: String,
    /// Authentik's own id of the account
    authentik_user_id: String,
    result: EnsureResult,
}

crate::document! {
    ensure_authentik_user: [
        AuthentikNotConfigured, ExternalSystemFailed, NotHeld, MemberNotFound, MemberExists, EmailExists, UsernameExists,
        SiteFull,
    ] ["x-policy-epoch"];

    "EnsureAuthentikUser": r#"{"username":"kim","email":"kim@example.org","display_name":"Kim"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/internal/authentik", tag = "Tag::Authentik")]
impl Api {
    /// Create or update a member's Authentik account
    ///
    /// The member is created too if it does not exist. Names in the request change on both sides, but an account that
    /// existed before keeps its own. Accounts of Authentik administrators and programs are not changed. When Authentik
    /// fails (502 `neighbour_failed`), nothing changes here, and the same request can be repeated.
    #[oai(path = "/users/ensure", method = "post", operation_id = "ensure_authentik_user")]
    async fn ensure_authentik_user(
        &self,
        caller: InternalCaller,
        body: Body<EnsureAuthentikUser>,
    ) -> Reply<EnsuredAuthentikUser> {
        let body = body.0;
        authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_CREATE)?;
        if self.app.config.authentik_url.is_empty() || self.app.config.authentik_token.is_none() {
            return Err(ErrorCode::AuthentikNotConfigured.into());
        }
        if body.sub.is_none() && body.uid.is_none() && body.username.is_none() {
            return Err(Error::field("username", "is required unless uid or sub is given").into());
        }
        let wanted = EnsureRequest {
            sub: body.sub.map(|text| text.0),
            uid: body.uid,
            username: body.username.map(|text| text.0),
            email: body.email.map(|text| text.0),
            display_name: body.display_name.map(|text| text.0),
            is_active: body.is_active,
        };
        let ensured = ensure(&self.app, &caller, wanted).await?;
        let answer = EnsuredAuthentikUser {
            uid: ensured.uid,
            authentik_sub: ensured.sub,
            authentik_user_id: ensured.account_id,
            result: if ensured.is_new { EnsureResult::Created } else { EnsureResult::Updated },
        };
        Ok(ok(answer).epoch(ensured.epoch))
    }
}
