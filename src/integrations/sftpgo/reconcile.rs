//! Compares all SFTPGo users with all members that have an SFTPGo username, because events can be lost and users can be
//! changed by hand.
//!
//! **Invariant.** Only accounts that belong or belonged to members are repaired. Other accounts are reported and left
//! unchanged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::account::{self, Account, DesiredAccount, DesiredStateInputs, Difference, USAGE, name_of};
use super::client::{ClientError, Connection};
use super::{Followed, bring_in_line, erase, require_configured};
use crate::features::members;
use crate::kernel::app::{App, Changed};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;

/// Page sizes for listing users: SFTPGo's maximum, and a smaller one for when that answer is too large.
const PAGES: [u64; 2] = [500, 50];
/// The maximum number of quota scans that one reconciliation starts; a scan reads the disk.
const SCANS_MAX: usize = 50;

/// The differences between SFTPGo's users and the members.
#[derive(Debug, Default)]
pub struct Drift {
    /// Members with an SFTPGo username.
    pub members: usize,
    /// Users at SFTPGo.
    pub users: usize,
    /// Active members without a user.
    pub missing: Vec<(MemberId, String)>,
    /// Users of erased members that are not disabled, or not deleted if `sftpgo.delete` is set.
    pub orphaned: Vec<(MemberId, String)>,
    /// Users that belong to no member.
    pub foreign: Vec<String>,
    /// Users with a member's username whose `additional_info` names another member or program.
    pub conflicts: Vec<(MemberId, String)>,
    pub differing: Vec<(MemberId, String, Difference)>,
    desired: HashMap<String, DesiredAccount>,
}

/// The result of a reconciliation.
#[derive(Debug, Default)]
pub struct Repaired {
    pub drift: Drift,
    pub mended: Vec<(MemberId, String)>,
    /// Accounts that could not be repaired, with the error.
    pub failed: Vec<(MemberId, String, String)>,
    /// The number of quota scans that were started.
    pub scans: usize,
}

/// Compares users and members without changing anything.
pub async fn compare(app: &App) -> Result<Drift> {
    require_configured(&app.config)?;
    let users = list(app).await?;
    let (inputs, claims) = (DesiredStateInputs::from_app(app), claims(app, &users));
    let find = move |r: &Reader<'_>| {
        let known = members::list_sftpgo_members(r)?;
        let desired_accounts =
            known.into_iter().map(|(name, member)| Ok((name.clone(), inputs.desired_account(r, &member, name)?)));
        let desired_accounts = desired_accounts.collect::<Result<HashMap<_, _>>>()?;
        let mut orphaned = Vec::new();
        for (member, name) in claims {
            if !desired_accounts.contains_key(&name)
                && members::find(r, member)?.is_some_and(|member| member.is_erased())
            {
                orphaned.push((member, name));
            }
        }
        Ok((desired_accounts, orphaned))
    };
    // Read after the users were listed: an account created in between appears as missing, and is looked up again before
    // it is repaired.
    let (desired_accounts, orphaned) = app.read(find).await?;
    let mut drift = Drift { members: desired_accounts.len(), users: users.len(), orphaned, ..Drift::default() };
    let names: HashSet<&str> = users.iter().map(name_of).collect();
    let mut missing: Vec<&DesiredAccount> = desired_accounts
        .values()
        .filter(|desired| desired.is_active && !names.contains(desired.username.as_str()))
        .collect();
    missing.sort_by(|left, right| left.username.cmp(&right.username));
    drift.missing = missing.into_iter().map(|desired| (desired.member, desired.username.clone())).collect();
    for user in &users {
        let name = name_of(user);
        let Some(desired) = desired_accounts.get(name) else {
            if !drift.orphaned.iter().any(|(_, orphan)| orphan == name) {
                drift.foreign.push(name.to_owned());
            }
            continue;
        };
        if desired.belongs_to_other(user) {
            drift.conflicts.push((desired.member, name.to_owned()));
            continue;
        }
        for difference in desired.differences(user).into_iter().chain(desired.usage_difference(user)) {
            drift.differing.push((desired.member, name.to_owned(), difference));
        }
    }
    drift.desired = desired_accounts;
    Ok(drift)
}

/// Returns the users that would need a repair if their member is erased, with the member that each names.
fn claims(app: &App, users: &[Account]) -> Vec<(MemberId, String)> {
    let is_open = |user: &&Account| app.config.sftpgo_delete || !account::is_disabled(user);
    let claim = |user: &Account| Some((account::member_of(user)?, name_of(user).to_owned()));
    users.iter().filter(is_open).filter_map(claim).collect()
}

/// Lists all users. A user that is deleted meanwhile can shift another one out of the pages; that one is looked up by
/// name later.
async fn list(app: &App) -> Result<Vec<Account>, ClientError> {
    let (mut users, mut known) = (Vec::new(), HashSet::new());
    let [mut limit, fewer] = PAGES;
    let mut offset = 0;
    loop {
        // The connection is released after each page, so that other tasks can use it in between.
        let page = match Connection::begin(app).await.list(offset, limit).await {
            Err(ClientError::Later { .. }) if limit > fewer => {
                limit = fewer;
                continue;
            }
            page => page?,
        };
        let count = page.len() as u64;
        users.extend(page.into_iter().filter(|user| known.insert(name_of(user).to_owned())));
        offset += count;
        if count < limit {
            return Ok(users);
        }
    }
}

/// Compares users and members, and repairs the accounts of members.
pub async fn reconcile(app: &App, caller: &Identity, is_dry: bool) -> Result<Repaired> {
    let mut found = Repaired { drift: compare(app).await?, ..Repaired::default() };
    if is_dry {
        return Ok(found);
    }
    for (member, name) in to_repair(&found.drift) {
        let outcome = match found.drift.desired.get(&name) {
            Some(desired) => repair(app, desired).await?,
            None => erase(app, member, &name).await,
        };
        match outcome {
            Ok(None) => found.mended.push((member, name)),
            Ok(Some(_)) => {}
            Err(ClientError::Later { why, .. } | ClientError::Refused(why)) => found.failed.push((member, name, why)),
        }
    }
    let drifted = found.drift.differing.iter().filter(|(_, _, difference)| difference.field == USAGE);
    for (_, name, _) in drifted.take(SCANS_MAX) {
        match Connection::begin(app).await.scan(name).await {
            Ok(is_begun) => found.scans += usize::from(is_begun),
            Err(error) => {
                tracing::warn!(trouble = ?error, "SFTPGo did not start a quota scan for a user");
                break;
            }
        }
    }
    let (mended, failed, scans) = (found.mended.len(), found.failed.len(), found.scans);
    let note = move |_: &crate::kernel::app::Transaction<'_>, _: &Identity| {
        if mended + failed + scans == 0 {
            return Ok(Changed::unchanged(()));
        }
        let entry = Entry::new("sftpgo", "users");
        Ok(Changed::new((), entry.after(json!({"mended": mended, "failed": failed, "scans": scans}))))
    };
    app.change(caller, "sftpgo.reconcile", note).await?;
    Ok(found)
}

/// Returns the accounts that are missing, differ or are orphaned, once each.
fn to_repair(drift: &Drift) -> Vec<(MemberId, String)> {
    let differing = drift.differing.iter().filter(|(_, _, difference)| difference.field != USAGE);
    let all = drift.missing.iter().cloned().chain(differing.map(|(member, name, _)| (*member, name.clone())));
    let mut known = HashSet::new();
    all.chain(drift.orphaned.iter().cloned()).filter(|(_, name)| known.insert(name.clone())).collect()
}

/// Synchronizes one account with its current rows.
async fn repair(app: &App, desired: &DesiredAccount) -> Result<Followed> {
    let mut connection = Connection::begin(app).await;
    let (inputs, name) = (DesiredStateInputs::from_app(app), desired.username.clone());
    let look = move |r: &Reader<'_>| match members::find_by_identity(r, members::SFTPGO, &name)? {
        Some(member) => inputs.desired_account(r, &member, name).map(Some),
        None => Ok(None),
    };
    Ok(match app.read(look).await? {
        Some(desired) => bring_in_line(&mut connection, &desired).await,
        None => Ok(Some("no member has this SFTPGo username any more")),
    })
}

/// Reconciles shortly after the start, because a machine may not run for long, and then periodically until it is
/// dropped.
pub async fn run(app: Arc<App>) {
    /// Pending events are delivered first.
    const FIRST: Duration = Duration::from_secs(60);
    if !app.config.has_sftpgo() {
        return;
    }
    let first = tokio::time::Instant::now() + FIRST;
    let mut every = tokio::time::interval_at(first, Duration::from_secs(app.config.sftpgo_reconcile_s));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        match reconcile(&app, &Identity::command_line(), false).await {
            Ok(found) => tracing::info!(
                users = found.drift.users,
                foreign = found.drift.foreign.len(),
                conflicts = found.drift.conflicts.len(),
                mended = found.mended.len(),
                failed = found.failed.len(),
                "SFTPGo's users were compared with the members"
            ),
            Err(e) => tracing::warn!(error = %e, "SFTPGo's users could not be compared; retrying later"),
        }
    }
}
