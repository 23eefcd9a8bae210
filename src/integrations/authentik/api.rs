//! Accounts of members at Authentik.

use std::sync::Arc;

use poem_openapi::{Enum, Object, OpenApi};

use crate::integrations::authentik::{Wanted, ensure};
use crate::kernel::app::App;
use crate::kernel::authn::caller::InternalCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Body, DisplayName, Email, Reply, Subject, Tag, Username, ok};
use crate::kernel::ids::MemberId;

/// Who gets an account at Authentik: by `uid` or `sub`, or by names
#[derive(Object)]
struct EnsureAuthentikUser {
    /// The subject at Authentik; what Authentik says when absent
    sub: Option<Subject>,
    /// A member that is there already
    uid: Option<MemberId>,
    /// Needed for a new account, unless the member has one
    username: Option<Username>,
    email: Option<Email>,
    display_name: Option<DisplayName>,
    /// As it is when absent; active when new
    is_active: Option<bool>,
}

/// What was done at Authentik
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum EnsureResult {
    Created,
    Updated,
}

/// A member and its account
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
        AuthentikNotConfigured, NeighbourFailed, NotHeld, MemberNotFound, MemberExists, EmailExists, UsernameExists,
        SiteFull,
    ] ["x-policy-epoch"];

    "EnsureAuthentikUser": r#"{"username":"kim","email":"kim@example.org","display_name":"Kim"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/internal/authentik", tag = "Tag::Authentik")]
impl Api {
    /// Create or update a member's account at Authentik
    ///
    /// The member is created too where there is none. Names that are given change on both sides; an account that was
    /// there before keeps its own. Accounts of administrators and programs there are left alone. When Authentik fails
    /// (502 `neighbour_failed`), nothing changes here, and the same request can be sent again.
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
            return Err(Error::field("username", "say who: by uid, by sub, or by a username").into());
        }
        let wanted = Wanted {
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
