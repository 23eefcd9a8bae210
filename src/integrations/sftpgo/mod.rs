//! SFTPGo: every member with an SFTPGo username has an account there, which is kept in sync with the member.
//!
//! **Invariant.** An account is synchronized with the current rows by one worker at a time: an event only names the
//! member. Fields that Roster does not manage stay unchanged, and an account whose `additional_info` names another
//! member or program is never changed.

pub mod account;
pub mod api;
mod client;
pub mod event;
pub mod file_events;
pub mod login;
pub mod reconcile;
mod store;

use serde_json::Value;

use crate::features::members;
use crate::features::videos::path::is_folder;
use crate::kernel::app::{App, Occurrence, Transaction};
use crate::kernel::authz::snapshot::Change;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::MemberId;
use crate::kernel::outbound::connection::{Connection, ConnectionFailure, ConnectionKind};
use crate::kernel::outbox::EventKind;
use crate::kernel::outbox::delivery::{Delivery, DeliveryOutcome};
use account::DesiredAccount;
use client::{ClientError, Connection as Users};

/// The connection, as the settings describe it.
pub fn connection(config: &Config) -> Connection {
    Connection::new(client::NAME, ConnectionKind::Sftpgo, &*config.sftpgo_url)
        .setting("sftpgo.url", config.has_sftpgo())
        .setting("sftpgo.username", !config.sftpgo_username.is_empty())
        .setting("sftpgo.secret_file", config.sftpgo_secret.is_some())
        .setting("sftpgo.home", !config.sftpgo_home.is_empty())
        .setting("hooks.sftpgo_key_file", config.hook_sftpgo_key.is_some())
}

/// Tests the connection with requests that change nothing.
pub async fn test(app: &App) -> Result<(), ConnectionFailure> {
    client::test(app).await
}

pub fn require_configured(config: &Config) -> Result<()> {
    if config.has_sftpgo() { Ok(()) } else { Err(ErrorCode::SftpgoNotConfigured.into()) }
}

impl From<ClientError> for DeliveryOutcome {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Later { why, not_before_s } => Self::Failed { why, not_before_s },
            ClientError::Refused(why) => Self::PermanentFailure(why),
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let failed = |why: String| Self::new(ErrorCode::ExternalSystemFailed).with_source(format!("SFTPGo: {why}"));
        match error {
            ClientError::Later { why, not_before_s } => match not_before_s {
                Some(seconds) => failed(why).retry_after(seconds),
                None => failed(why),
            },
            ClientError::Refused(why) => failed(why),
        }
    }
}

/// The maximum number of concurrent deliveries. They share one connection, so more would only wait.
pub const CONCURRENT_MAX: usize = 4;

/// Synchronizes the account of an event's member.
pub async fn deliver(app: &App, member: MemberId, delivery: &Delivery) -> Result<DeliveryOutcome> {
    if !app.config.has_sftpgo() {
        return Ok(DeliveryOutcome::TargetGone("SFTPGo is switched off: set sftpgo.url and sftpgo.secret_file".into()));
    }
    let done = match delivery.kind {
        EventKind::MemberDeleted => {
            let data: Value = serde_json::from_str(&delivery.data).unwrap_or_default();
            let Some(name) = data["sftpgo_username"].as_str() else {
                return Ok(DeliveryOutcome::Skipped("the member had no name at SFTPGo"));
            };
            erase(app, member, name).await
        }
        _ => follow(app, member).await?,
    };
    Ok(match done {
        Ok(Some(why)) => DeliveryOutcome::Skipped(why),
        Ok(None) => DeliveryOutcome::Delivered,
        Err(error) => error.into(),
    })
}

/// `None` if the account was changed, or the reason why there was nothing to do.
type Followed = Result<Option<&'static str>, ClientError>;

/// Synchronizes a member's account with its rows.
async fn follow(app: &App, member: MemberId) -> Result<Followed> {
    let mut connection = Users::begin(app).await;
    // Read after the connection is acquired: the wait can be long.
    let inputs = account::DesiredStateInputs::from_app(app);
    let desired = app
        .read(move |r| match (members::find(r, member)?, members::sftpgo_username(r, member)?) {
            (Some(member), Some(name)) => inputs.desired_account(r, &member, name).map(Some),
            _ => Ok(None),
        })
        .await?;
    match desired {
        Some(desired) => Ok(bring_in_line(&mut connection, &desired).await),
        None => Ok(Ok(Some("the member has no name at SFTPGo"))),
    }
}

/// Creates an account or updates it to its desired state.
async fn bring_in_line(connection: &mut Users<'_>, desired: &DesiredAccount) -> Followed {
    if !is_folder(&desired.username) {
        return Err(ClientError::Refused("the SFTPGo username cannot be a folder name".into()));
    }
    let found = match connection.find(&desired.username).await? {
        Some(user) => Some(user),
        None if !desired.is_active => return Ok(Some("there is no account to disable")),
        None => match connection.create(&desired.new_account()).await? {
            true => return Ok(None),
            // Another client created it first: synchronize that account.
            false => connection.find(&desired.username).await?,
        },
    };
    let Some(user) = found else { return Err(ClientError::later("the account exists, but was not found")) };
    if desired.belongs_to_other(&user) {
        return Err(ClientError::Refused(
            "an account of this name exists and names another member in additional_info: clear that, or choose another \
             name"
                .into(),
        ));
    }
    let differences = desired.differences(&user);
    if differences.is_empty() {
        return Ok(Some("the account is up to date"));
    }
    let is_limited = !desired.has_room && differences.iter().any(|difference| difference.field == "permissions");
    connection.put(&desired.username, &desired.applied_to(&user), !desired.is_active || is_limited).await?;
    Ok(None)
}

/// Disables the account of an erased member, or deletes it if `sftpgo.delete` is set. Its files are kept.
async fn erase(app: &App, member: MemberId, name: &str) -> Followed {
    let mut connection = Users::begin(app).await;
    let Some(user) = connection.find(name).await? else { return Ok(Some("the account no longer exists")) };
    if account::owner_in(&user) != Some(member.to_string().as_str()) {
        return Ok(Some("the account with this name belongs to another member"));
    }
    if app.config.sftpgo_delete {
        connection.delete(name).await?;
        return Ok(None);
    }
    if account::is_disabled(&user) {
        return Ok(Some("the account is disabled already"));
    }
    connection.put(name, &account::disabled(&user), true).await?;
    Ok(None)
}

/// Reacts to occurrences of other features.
pub fn react(t: &Transaction<'_>, occurrence: &Occurrence<'_>) -> Result<Vec<Change>> {
    if let Occurrence::MemberErased(member) = occurrence {
        store::delete_of_member(t, *member)?;
    }
    Ok(Vec::new())
}

/// Deletes expired events and path histories.
pub async fn purge_expired(app: &App) -> Result<()> {
    app.write_in_batches(store::forget).await.map(drop)
}
