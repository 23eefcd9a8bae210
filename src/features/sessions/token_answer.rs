//! The answer of every operation that signs somebody in.

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
    /// For `Authorization: Bearer …`
    access_token: String,
    /// Always `Bearer`
    token_type: String,
    /// Life of the access token in seconds
    expires_in: i64,
    /// For `/auth/refresh`; used once
    refresh_token: String,
    /// Life of the refresh token in seconds
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

/// Answers tokens, as cookies too where that was asked for.
pub fn answer(app: &App, visitor: &Visitor, tokens: Tokens, cookies: Option<bool>) -> Reply<TokenAnswer> {
    Ok(ok(shown(app, visitor, tokens, cookies)))
}

/// The same for answers that say more than the tokens.
pub fn shown(app: &App, visitor: &Visitor, tokens: Tokens, cookies: Option<bool>) -> TokenAnswer {
    if cookies == Some(true) {
        tokens.set_cookies(app, &visitor.context);
    }
    tokens.into()
}

/// Cookies are set for our own pages and for the origins that the settings name: no other site signs anybody in.
pub fn require_own_site(visitor: &Visitor, cookies: Option<bool>) -> Result<()> {
    if cookies == Some(true) && visitor.is_cross_site { Err(ErrorCode::CrossSite.into()) } else { Ok(()) }
}
