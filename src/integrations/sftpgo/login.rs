//! SFTPGo logins: its hooks for external authentication and pre-login.
//!
//! **Invariant.** SFTPGo treats an empty answer as success, so a denied login is answered with a user without a name.
//! SSH keys are managed by SFTPGo: a key is accepted if the SFTPGo account lists it and its member can log in. A member
//! is found by its SFTPGo username, never by its own username, which members choose themselves.

use serde_json::Value;

use super::account::{
    Account, DesiredAccount, DesiredStateInputs, disabled, is_disabled, member_of, name_of, owner_in,
};
use crate::features::members::{self, Member};
use crate::features::sessions::credential_check::{self, LoginClaim};
use crate::features::videos::path::is_folder;
use crate::kernel::app::App;
use crate::kernel::authz::key;
use crate::kernel::db::Reader;
use crate::kernel::error::{ErrorCode, Result};

/// The scope that an API key needs to be used as an SFTPGo password, because it then allows writing and deleting files.
const SCOPE: &str = "videos:write";

/// A login attempt, as SFTPGo reports it.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub username: String,
    pub password: String,
    pub public_key: String,
    /// The client's IP address.
    pub ip: String,
    /// The existing SFTPGo account, if any.
    pub user: Option<Account>,
}

impl Login {
    pub fn from_body(body: &Value) -> Self {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        // Some versions send the account as a JSON string.
        let user = match &body["user"] {
            Value::Object(user) => Some(user.clone()),
            Value::String(text) => serde_json::from_str(text).ok(),
            _ => None,
        };
        let user = user.filter(|user| !name_of(user).is_empty());
        Self {
            username: text("username"),
            password: text("password"),
            public_key: text("public_key"),
            ip: text("ip"),
            user,
        }
    }
}

/// Returns the account to log in with; `None` denies the login.
pub async fn sign_in(app: &App, login: Login) -> Result<Option<Account>> {
    let found = find(app, &login.username).await?;
    let claim = LoginClaim {
        member: found.as_ref().map(|(member, _)| member.id),
        name: login.username.clone(),
        address: login.ip.parse().ok(),
    };
    let verified = match (&login.password, &login.public_key) {
        (password, _) if key::is_key(password) => credential_check::has_key(app, &claim, password, SCOPE),
        (password, _) if !password.is_empty() => credential_check::has_password(app, &claim, password.clone()).await,
        (_, key) if !key.is_empty() => Ok(login.user.as_ref().is_some_and(|user| lists(user, key))),
        _ => Ok(false),
    };
    let is_verified = match verified {
        Err(refused) if refused.code == ErrorCode::TooManyFailures => {
            tracing::info!(member = ?claim.member, "an SFTPGo login is throttled after too many failures");
            false
        }
        verified => verified?,
    };
    let Some((_, desired)) = found.filter(|(member, _)| is_verified && member.is_active()) else { return Ok(None) };
    if login.user.as_ref().is_some_and(|user| desired.belongs_to_other(user)) {
        tracing::warn!(
            member = %desired.member,
            "the SFTPGo account of this name belongs to another member: the login is refused"
        );
        return Ok(None);
    }
    Ok(Some(login.user.as_ref().map_or_else(|| desired.new_account(), |user| desired.applied_to(user))))
}

/// The updated account; `None` if it is up to date or not managed here.
pub async fn pre_login(app: &App, user: &Account) -> Result<Option<Account>> {
    let is_there = user.get("id").and_then(Value::as_i64).unwrap_or(0) > 0;
    if is_there && is_of_erased(app, user).await? {
        return Ok((!is_disabled(user)).then(|| disabled(user)));
    }
    let Some((_, desired)) = find(app, name_of(user)).await? else { return Ok(None) };
    if !is_there && !desired.is_active {
        return Ok(None);
    }
    if desired.belongs_to_other(user) {
        tracing::warn!(
            member = %desired.member,
            claimed = owner_in(user).is_some(),
            "the SFTPGo account of this name belongs to another member"
        );
        return Ok(None);
    }
    if !is_there {
        return Ok(Some(desired.new_account()));
    }
    Ok((!desired.differences(user).is_empty()).then(|| desired.applied_to(user)))
}

/// Whether this account belongs to an erased member.
async fn is_of_erased(app: &App, user: &Account) -> Result<bool> {
    let Some(member) = member_of(user) else { return Ok(false) };
    Ok(app.read(move |r| members::find(r, member)).await?.is_some_and(|member| member.is_erased()))
}

/// Returns the member with this SFTPGo username, and its desired account.
async fn find(app: &App, name: &str) -> Result<Option<(Member, DesiredAccount)>> {
    let (inputs, name) = (DesiredStateInputs::from_app(app), name.to_owned());
    let look = move |r: &Reader<'_>| {
        let Some(member) = members::find_by_identity(r, members::SFTPGO, &name)? else { return Ok(None) };
        let desired = inputs.desired_account(r, &member, name)?;
        Ok(is_folder(&desired.username).then_some((member, desired)))
    };
    app.read(look).await
}

/// Whether the account lists this public key. Type and key data are compared; the comment is ignored.
fn lists(user: &Account, offered: &str) -> bool {
    let parts = |text: &str| {
        let mut words = text.split_ascii_whitespace().map(str::to_owned);
        words.next().zip(words.next())
    };
    let offered = parts(offered);
    let keys = user.get("public_keys").and_then(Value::as_array).into_iter().flatten();
    offered.is_some() && keys.filter_map(Value::as_str).any(|key| parts(key) == offered)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn public_keys_are_compared_by_type_and_data() {
        let user = json!({"public_keys": ["ssh-ed25519 AAAAC3Nz kim@home", "ssh-rsa AAAAB3"]});
        let user = user.as_object().expect("an object");
        assert!(lists(user, "ssh-ed25519 AAAAC3Nz") && lists(user, "ssh-ed25519  AAAAC3Nz another remark\n"));
        for other in ["", " ", "ssh-ed25519", "ssh-rsa AAAAC3Nz", "ssh-ed25519 AAAAC3N", "AAAAC3Nz"] {
            assert!(!lists(user, other), "{other}");
        }
        assert!(!lists(&Account::new(), "ssh-rsa AAAAB3"));
    }
}
