//! Remembered devices: a cookie that stands for the second factor at later sign-ins.
//!
//! **Invariant.** A device is remembered only after a code of the authenticator app, never after a recovery code. It
//! spares the second factor and nothing else. All devices of a member are forgotten when the password or the second
//! factor changes, when the member is suspended, and when all sessions of the member are ended.

use super::device_store;
use crate::kernel::app::{App, Transaction, seconds_to_ms};
use crate::kernel::authn::caller::Visitor;
use crate::kernel::authn::cookie;
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::config::Config;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp, TrustedDeviceId};
use crate::kernel::secret::{self, Hash};

/// The most devices that are remembered of one member. A further one replaces the least recently used.
const DEVICES_MAX: u64 = 10;

/// A remembered device.
#[derive(Debug)]
pub struct TrustedDevice {
    pub id: TrustedDeviceId,
    pub agent: String,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A device that is about to be remembered, with the secret for its cookie.
#[derive(Debug, Clone)]
pub struct NewDevice {
    pub id: TrustedDeviceId,
    secret: String,
}

impl NewDevice {
    /// Creates the id and the secret of a device; `None` if the settings do not allow to remember one.
    pub fn create(config: &Config) -> Result<Option<Self>> {
        if config.remember_s == 0 {
            return Ok(None);
        }
        Ok(Some(Self { id: TrustedDeviceId::new(), secret: secret::token("td_")? }))
    }

    /// Stores the device of a member who has just verified the second factor.
    pub fn insert(&self, t: &Transaction<'_>, member: MemberId, agent: &str, config: &Config) -> Result<()> {
        let expires_at = t.now().plus_ms(seconds_to_ms(config.remember_s));
        device_store::insert(t, (member, self.id, &secret::hash(&self.secret)), agent, expires_at, DEVICES_MAX)
    }

    /// Sets the cookie of the device.
    pub fn set_cookie(&self, app: &App, context: &RequestContext) {
        let life_s = i64::try_from(app.config.remember_s).unwrap_or(i64::MAX);
        context.set_cookie(app.guard.cookies.set(cookie::TRUSTED, &format!("{}.{}", self.id, self.secret), life_s));
    }
}

/// Removes the cookie of a device from the browser.
pub fn clear_cookie(app: &App, context: &RequestContext) {
    context.set_cookie(app.guard.cookies.set(cookie::TRUSTED, "", 0));
}

/// Returns the device of this member that the browser presents, if it is remembered, and records its use.
pub fn use_presented(
    t: &Transaction<'_>,
    visitor: &Visitor,
    member: MemberId,
    config: &Config,
) -> Result<Option<TrustedDeviceId>> {
    let Some((id, hash)) = visitor.trusted_cookie.as_deref().and_then(presented) else { return Ok(None) };
    let Some((known, created_at, expires_at)) = device_store::find(t, member, id)? else { return Ok(None) };
    // The setting also limits devices that were remembered while it was larger.
    let ends_at = expires_at.min(created_at.plus_ms(seconds_to_ms(config.remember_s)));
    if !secret::equal(&hash, &known) || t.now() >= ends_at {
        return Ok(None);
    }
    device_store::touch(t, id)?;
    Ok(Some(id))
}

/// Reads the value of a cookie.
fn presented(value: &str) -> Option<(TrustedDeviceId, Hash)> {
    let (id, secret) = value.split_once('.')?;
    Some((TrustedDeviceId::of(id), secret::hash(secret))).filter(|(id, _)| !id.is_nil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_cookie_names_a_device() {
        let id = TrustedDeviceId::new();
        assert_eq!(presented(&format!("{id}.td_x")), Some((id, secret::hash("td_x"))));
        for other in ["", ".", ".td_x", "x.td_x", &id.to_string(), &format!("{id} td_x")] {
            assert_eq!(presented(other), None, "{other}");
        }
    }
}
