//! SFTPGo: every member with a name there has an account there, which follows the member.
//!
//! **Invariant.** The account of a name is brought in line with the rows of this moment, by one worker at a time: an event
//! says only whose. What is not ours in an account stays as it is, and an account that names somebody else in
//! `additional_info` is nobody's to change.

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
use crate::kernel::outbox::EventKind;
use crate::kernel::outbox::delivery::{Delivery, DeliveryOutcome};
use account::DesiredAccount;
use client::{ClientError, Connection};

pub fn require_configured(config: &Config) -> Result<()> {
    if config.has_sftpgo() { Ok(()) } else { Err(ErrorCode::SftpgoNotConfigured.into()) }
}

impl From<ClientError> for DeliveryOutcome {
    fn from(trouble: ClientError) -> Self {
        match trouble {
            ClientError::Later { why, not_before_s } => Self::Failed { why, not_before_s },
            ClientError::Refused(why) => Self::Refused(why),
        }
    }
}

impl From<ClientError> for Error {
    fn from(trouble: ClientError) -> Self {
        let failed = |why: String| Self::new(ErrorCode::NeighbourFailed).with_source(format!("SFTPGo: {why}"));
        match trouble {
            ClientError::Later { why, not_before_s } => match not_before_s {
                Some(seconds) => failed(why).retry_after(seconds),
                None => failed(why),
            },
            ClientError::Refused(why) => failed(why),
        }
    }
}

/// Accounts that are looked after at the same time. They take turns, so that more of them would only wait.
pub const AT_ONCE_MAX: usize = 4;

/// Brings the account of an event's member in line.
pub async fn deliver(app: &App, member: MemberId, delivery: &Delivery) -> Result<DeliveryOutcome> {
    if !app.config.has_sftpgo() {
        return Ok(DeliveryOutcome::Gone("SFTPGo is switched off: set sftpgo.url and sftpgo.secret_file".into()));
    }
    let done = match delivery.kind == EventKind::MemberDeleted.as_str() {
        true => {
            let data: Value = serde_json::from_str(&delivery.data).unwrap_or_default();
            let Some(name) = data["sftpgo_username"].as_str() else {
                return Ok(DeliveryOutcome::Needless("the member had no name at SFTPGo"));
            };
            erase(app, member, name).await
        }
        false => follow(app, member).await?,
    };
    Ok(match done {
        Ok(Some(why)) => DeliveryOutcome::Needless(why),
        Ok(None) => DeliveryOutcome::Delivered,
        Err(trouble) => trouble.into(),
    })
}

/// What was done, or why there was nothing to do.
type Followed = Result<Option<&'static str>, ClientError>;

/// Brings a member's account in line with its rows.
async fn follow(app: &App, member: MemberId) -> Result<Followed> {
    let mut turn = Connection::begin(app).await;
    // Read once it is our turn: who waited for it may have waited long.
    let inputs = account::DesiredStateInputs::from_app(app);
    let desired = app
        .read(move |r| match (members::find(r, member)?, members::name_at_sftpgo(r, member)?) {
            (Some(member), Some(name)) => inputs.desired_account(r, &member, name).map(Some),
            _ => Ok(None),
        })
        .await?;
    match desired {
        Some(desired) => Ok(bring_in_line(&mut turn, &desired).await),
        None => Ok(Ok(Some("the member has no name at SFTPGo"))),
    }
}

/// Creates or updates an account to its desired state.
async fn bring_in_line(turn: &mut Connection<'_>, desired: &DesiredAccount) -> Followed {
    if !is_folder(&desired.username) {
        return Err(ClientError::Refused("the name cannot be that of a folder".into()));
    }
    let found = match turn.find(&desired.username).await? {
        Some(user) => Some(user),
        None if !desired.is_active => return Ok(Some("there is no account that could be switched off")),
        None => match turn.create(&desired.new_account()).await? {
            true => return Ok(None),
            // Somebody else was faster: what is there now is followed.
            false => turn.find(&desired.username).await?,
        },
    };
    let Some(user) = found else { return Err(ClientError::later("an account is there and is not, as it says")) };
    if desired.is_anothers(&user) {
        return Err(ClientError::Refused(
            "an account of this name exists and names another member in additional_info: clear that, or choose another \
             name"
                .into(),
        ));
    }
    let differences = desired.differences(&user);
    if differences.is_empty() {
        return Ok(Some("the account was in line already"));
    }
    let is_limited = !desired.has_room && differences.iter().any(|difference| difference.field == "permissions");
    turn.put(&desired.username, &desired.applied_to(&user), !desired.is_active || is_limited).await?;
    Ok(None)
}

/// A member is gone for good: its account is switched off, or deleted where the settings say so. Its files stay.
async fn erase(app: &App, member: MemberId, name: &str) -> Followed {
    let mut turn = Connection::begin(app).await;
    let Some(user) = turn.find(name).await? else { return Ok(Some("there is no account any more")) };
    if account::whose(&user) != Some(member.to_string().as_str()) {
        return Ok(Some("the account with this name belongs to another member"));
    }
    if app.config.sftpgo_delete {
        turn.delete(name).await?;
        return Ok(None);
    }
    if account::is_off(&user) {
        return Ok(Some("the account was off already"));
    }
    turn.put(name, &account::switched_off(&user), true).await?;
    Ok(None)
}

/// What changes here with what others change.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    if let Occurrence::MemberErased(member) = what {
        store::delete_of_member(t, *member)?;
    }
    Ok(Vec::new())
}

/// Upkeep: forgets events and paths that are too old to matter.
pub async fn tidy(app: &App) -> Result<()> {
    app.write_in_batches(store::forget).await.map(drop)
}
