//! Checks a member's credential for an external login (SFTPGo), without creating a session.
//!
//! **Invariant.** Guessing is as hard here as at sign-in: both share the throttle counts and do the same hashing work.
//! If a second factor is required, a password alone is rejected.

use std::net::IpAddr;

use super::{second_factor, store, verify_password};
use crate::features::members;
use crate::kernel::app::App;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authz::key;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp};

/// The claimed identity of an external login, and its IP address. `member` is `None` when no member has this name.
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

/// Whether this is the member's password and no second factor is required. Fails with `too_many_failures` when the
/// login is throttled.
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
    let fits = verify_password(app, (attempt, is_known), offered, stored).await?.fits;
    let snapshot = app.snapshot();
    let Some(id) = member.filter(|id| fits && snapshot.is_active(*id)) else {
        app.guard.login_throttle.record_failure(attempt, Timestamp::now());
        return Ok(false);
    };
    if is_enrolled || snapshot.requires_second_factor(id) {
        return Ok(false);
    }
    app.guard.login_throttle.record_success(attempt);
    Ok(true)
}

/// Whether this is an API key of the member that has the scope. Emergency keys, which work once, are rejected.
pub fn has_key(app: &App, claim: &LoginClaim, offered: &str, scope: &str) -> Result<bool> {
    let (attempt, now) = (claim.attempt(), Timestamp::now());
    app.guard.login_throttle.check(attempt, false, now)?;
    let fits = key::identify(&app.snapshot(), offered, now, claim.address).is_ok_and(|(key, _)| {
        claim.member.is_some() && key.member() == claim.member && !key.is_emergency && key.has_scope(scope)
    });
    if !fits {
        app.guard.login_throttle.record_failure(attempt, now);
    }
    Ok(fits)
}
