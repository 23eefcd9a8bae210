//! The answer of every operation that signs a member in.

use poem_openapi::Object;

use super::Tokens;
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::http::{Reply, ok};
use crate::kernel::ids::SessionId;

/// The tokens of a session
#[derive(Object)]
pub struct TokenAnswer {
    /// Sent as `Authorization: Bearer …`
    access_token: String,
    /// Always `Bearer`
    token_type: String,
    /// Lifetime of the access token in seconds
    expires_in: i64,
    /// For `/auth/refresh`; works once
    refresh_token: String,
    /// Lifetime of the refresh token in seconds
    refresh_expires_in: i64,
    session_id: SessionId,
}

impl From<Tokens> for TokenAnswer {
    fn from(tokens: Tokens) -> Self {
        Self {
            access_token: tokens.access_token,
            token_type: "Bearer".into(),
            expires_in: tokens.expires_in_s,
            refresh_token: tokens.refresh_token,
            refresh_expires_in: tokens.refresh_expires_in_s,
            session_id: tokens.session,
        }
    }
}

/// Answers with the tokens, and sets them as cookies if `cookies` is true.
pub fn answer(app: &App, visitor: &Visitor, tokens: Tokens, cookies: Option<bool>) -> Reply<TokenAnswer> {
    Ok(ok(token_answer(app, visitor, tokens, cookies)))
}

/// Like [`answer`], for answers that hold more than the tokens.
pub fn token_answer(app: &App, visitor: &Visitor, tokens: Tokens, cookies: Option<bool>) -> TokenAnswer {
    if cookies == Some(true) {
        tokens.set_cookies(app, &visitor.context);
    }
    tokens.into()
}

/// Fails with `CrossSite` when another site asks for cookies. Only Roster's own pages and the origins in the settings
/// may sign a browser in.
pub fn require_own_site(visitor: &Visitor, cookies: Option<bool>) -> Result<()> {
    if cookies == Some(true) && visitor.is_cross_site { Err(ErrorCode::CrossSite.into()) } else { Ok(()) }
}
