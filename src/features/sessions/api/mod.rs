//! Operations for sign-in, sessions, passwords and second factors.

pub mod admin;
pub mod encryption_key;
pub mod invitation;
pub mod oidc;
pub mod own;
pub mod passwords;
pub mod registration;
pub mod second_factor;
pub mod signing_keys;
pub mod trusted_devices;

use std::sync::Arc;

use poem::Request;
use poem_openapi::{Object, OpenApi};

use super::{clear_cookies, end_session, refresh_session, renew_cookies, sign_in};
use crate::features::sessions::token_answer::{TokenAnswer, answer, require_own_site};
use crate::kernel::app::App;
use crate::kernel::authn::caller::{MemberCaller, Visitor};
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Body, EmptyReply, OptionalBody, Reply, Tag, done, ok};
use crate::kernel::ids::SessionId;

crate::text! {
    /// An e-mail address or a username
    LoginName 1..=254 "";
    /// The member's password
    LoginPassword 1..=1024 "";
    /// The refresh token from the last sign-in or refresh
    RefreshToken 1..=128 "";
}

/// A sign-in with a password
#[derive(Object)]
struct LoginRequest {
    login: LoginName,
    password: LoginPassword,
    /// Also sets the tokens as cookies
    cookies: Option<bool>,
}

/// The session to refresh; without a body, the cookies identify it
#[derive(Object)]
struct RefreshRequest {
    refresh_token: RefreshToken,
    session_id: SessionId,
    /// Also sets the new tokens as cookies
    cookies: Option<bool>,
}

crate::document! {
    login: [InvalidLogin, SecondFactorRequired, EnrolmentRequired, TooManyFailures, CrossSite];
    refresh: [InvalidRefresh, RefreshReused, SecondFactorRequired, CrossSite, WrongHost];

    "LoginRequest": r#"{"login":"kim@example.org","password":"Correct-horse-7"}"#;
    "RefreshRequest": r#"{"refresh_token":"rt_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","session_id":"019abcde-0000-7000-8000-000000000009"}"#;
    "TokenAnswer": r#"{"access_token":"eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.e30.c2ln","token_type":"Bearer","expires_in":600,"refresh_token":"rt_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","refresh_expires_in":604800,"session_id":"019abcde-0000-7000-8000-000000000009"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/auth", tag = "Tag::Sessions")]
impl Api {
    /// Sign in with a password
    ///
    /// An unknown login, a suspended member and a wrong password get the same answer. A member with a second factor
    /// gets 401 `second_factor_required` with a `challenge` for `/auth/second-factor`, unless the device is remembered.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(&self, visitor: Visitor, body: Body<LoginRequest>) -> Reply<TokenAnswer> {
        let LoginRequest { login, password, cookies } = body.0;
        require_own_site(&visitor, cookies)?;
        let tokens = sign_in(&self.app, &visitor, login.0, password.0).await?;
        answer(&self.app, &visitor, tokens, cookies)
    }

    /// Refresh a session
    ///
    /// A refresh token works once. If it is sent again within `auth.refresh_grace_s`, the answer has the same
    /// successor. Later reuse ends the session, because the token is taken to be stolen.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        request: &Request,
        visitor: Visitor,
        body: OptionalBody<RefreshRequest>,
    ) -> Reply<TokenAnswer> {
        let (refresh, session, cookies) = match body.read(request).await? {
            Some(body) => (body.refresh_token.0, body.session_id, body.cookies),
            None => {
                let found = visitor.refresh_cookie.clone().zip(visitor.session_cookie.as_deref());
                let (refresh, session) = found.ok_or_else(|| {
                    Error::new(ErrorCode::InvalidRefresh)
                        .with_message("send refresh_token and session_id, or their cookies")
                })?;
                (refresh, SessionId::of(session), Some(true))
            }
        };
        require_own_site(&visitor, cookies)?;
        let renewed = match cookies {
            Some(true) => renew_cookies(&self.app, &visitor.context, session, &refresh).await?,
            _ => refresh_session(&self.app, &visitor.context, session, &refresh).await?,
        };
        Ok(ok(renewed.into()))
    }

    /// Sign out
    ///
    /// Ends the session, invalidates all its tokens from the next request on, and clears the cookies.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, caller: MemberCaller) -> EmptyReply {
        if let (Some(member), Some(session)) = (caller.member(), caller.session) {
            end_session(&self.app, &caller, member, session).await?;
        }
        clear_cookies(&self.app, &caller.context);
        Ok(done())
    }
}
