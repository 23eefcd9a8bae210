//! Checks a member's credential for an external login (SFTPGo), without creating a session.
//!
//! **Invariant.** It is as hard to guess here as at the sign-in: the same counts, the same work. Where a second factor is
//! due, a password alone proves nothing.

use std::net::IpAddr;

use super::{second_factor, store};
use crate::features::members::{self, password};
use crate::kernel::app::App;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authz::key;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp};

/// Who says to be somebody, and from where. Nobody has the name when there is no member.
#[derive(Debug, Clone)]
pub struct LoginClaim {
    pub member: Option<MemberId>,
    pub name: String,
    pub address: Option<IpAddr>,
}

impl LoginClaim {
    fn attempt(&self) -> Attempt {
        let account = self.member.map_or_else(|| members::folded(&self.name), |id| id.to_string());
        Attempt::new(&account, self.address)
    }
}

/// Is this the member's password, and is a password enough? Fails when there were too many tries.
pub async fn has_password(app: &App, claim: &LoginClaim, offered: String) -> Result<bool> {
    let (member, address) = (claim.member, claim.address.map(|address| address.to_string()).unwrap_or_default());
    let find = move |r: &Reader<'_>| match member {
        None => Ok((None, false, false)),
        Some(id) => Ok((
            members::password_hash(r, id)?,
            second_factor::is_confirmed(r, id)?,
            store::is_signed_in_at(r, id, &address)?,
        )),
    };
    let (stored, is_enrolled, is_known) = app.read(find).await?;
    let attempt = claim.attempt();
    let guard = app.guard.clone();
    let check_throttle = move || guard.login_throttle.check(attempt, is_known, Timestamp::now());
    check_throttle()?;
    let fits = password::verify(app, offered, stored, check_throttle).await?.fits;
    let snapshot = app.snapshot();
    let Some(id) = member.filter(|id| fits && snapshot.is_active(*id)) else {
        app.guard.login_throttle.failed(attempt, Timestamp::now());
        return Ok(false);
    };
    if is_enrolled || snapshot.requires_second_factor(id) {
        return Ok(false);
    }
    app.guard.login_throttle.succeeded(attempt);
    Ok(true)
}

/// Is this an API key of the member's that may do what needs the scope? One that works once is no way in here.
pub fn has_key(app: &App, claim: &LoginClaim, offered: &str, scope: &str) -> Result<bool> {
    let (attempt, now) = (claim.attempt(), Timestamp::now());
    app.guard.login_throttle.check(attempt, false, now)?;
    let fits = key::identify(&app.snapshot(), offered, now, claim.address).is_ok_and(|(key, _)| {
        claim.member.is_some() && key.member() == claim.member && !key.is_emergency && key.has_scope(scope)
    });
    if !fits {
        app.guard.login_throttle.failed(attempt, now);
    }
    Ok(fits)
}
