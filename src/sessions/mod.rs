//! Sign-in. For now with a password, for an access token; sessions come with refresh tokens.

pub mod api;

use crate::app::App;
use crate::error::{Cause, Result};
use crate::ids::Timestamp;
use crate::members::{self, password};

/// What a successful sign-in gives.
#[derive(Debug)]
pub struct SignedIn {
    pub access_token: String,
    pub expires_in_s: i64,
}

/// Signs a member in. The unknown, the suspended and the wrong password take the same work and get the same answer.
pub async fn sign_in(app: &App, login: String, password: String) -> Result<SignedIn> {
    let found = app.read(move |r| members::find_login(r, &login)).await?;
    let stored = found.as_ref().and_then(|login| login.password_hash.clone());
    let fits = password::verify(app, password, stored).await?;
    let login = found.filter(|login| fits && login.member.is_active()).ok_or(Cause::InvalidLogin)?;
    let (access_token, expires_in_s) = app.guard.keys.issue(login.member.id, login.generation, Timestamp::now())?;
    Ok(SignedIn { access_token, expires_in_s })
}
