//! All of SFTPGo's users beside all members with a name there: events are lost, and people change things by hand.
//!
//! **Invariant.** Only accounts that are our members', or were, are mended. What belongs to nobody here is told of and left
//! alone.

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

/// Users that are listed at a time: the most that SFTPGo tells of. Where that is longer than an answer may be, fewer.
const PAGES: [u64; 2] = [500, 50];
/// Accounts whose files SFTPGo counts anew after one comparison; counting reads the disk.
const SCANS_MAX: usize = 50;

/// How the users differ from the members.
#[derive(Debug, Default)]
pub struct Drift {
    /// Members with a name there.
    pub members: usize,
    /// Users there.
    pub users: usize,
    /// Active members without a user.
    pub missing: Vec<(MemberId, String)>,
    /// Users of erased members that are not off, or not deleted, as they should be.
    pub orphaned: Vec<(MemberId, String)>,
    /// Users that are nobody's here.
    pub foreign: Vec<String>,
    /// Users of a member's name that say to be somebody else's.
    pub conflicts: Vec<(MemberId, String)>,
    pub differing: Vec<(MemberId, String, Difference)>,
    desired: HashMap<String, DesiredAccount>,
}

/// What was done about it.
#[derive(Debug, Default)]
pub struct Repaired {
    pub drift: Drift,
    pub mended: Vec<(MemberId, String)>,
    /// Who could not be mended, and why.
    pub failed: Vec<(MemberId, String, String)>,
    /// Accounts whose files are counted anew.
    pub scans: usize,
}

/// Compares, and changes nothing.
pub async fn compare(app: &App) -> Result<Drift> {
    require_configured(&app.config)?;
    let users = list(app).await?;
    let (inputs, claims) = (DesiredStateInputs::from_app(app), claims(app, &users));
    let find = move |r: &Reader<'_>| {
        let known = members::list_at_sftpgo(r)?;
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
    // Read after the users: who was made meanwhile is missing, and is looked for again before anything is done.
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
        if desired.is_anothers(user) {
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

/// Users that are not yet as those of erased members should be, with the member that each names.
fn claims(app: &App, users: &[Account]) -> Vec<(MemberId, String)> {
    let is_open = |user: &&Account| app.config.sftpgo_delete || !account::is_off(user);
    let claim = |user: &Account| Some((account::member_of(user)?, name_of(user).to_owned()));
    users.iter().filter(is_open).filter_map(claim).collect()
}

/// All users. Who is deleted meanwhile may shift another one out of sight, which then is looked for by its name.
async fn list(app: &App) -> Result<Vec<Account>, ClientError> {
    let (mut users, mut known) = (Vec::new(), HashSet::new());
    let [mut limit, fewer] = PAGES;
    let mut offset = 0;
    loop {
        // A turn for each page: who waits for one gets it in between.
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

/// Compares, and brings the accounts of our members in line.
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
            Err(trouble) => {
                tracing::warn!(?trouble, "SFTPGo did not start a quota scan for a user");
                break;
            }
        }
    }
    let (mended, failed, scans) = (found.mended.len(), found.failed.len(), found.scans);
    let note = move |_: &crate::kernel::app::Transaction<'_>, _: &Identity| {
        if mended + failed + scans == 0 {
            return Ok(Changed::nothing(()));
        }
        let entry = Entry::new("sftpgo", "users");
        Ok(Changed::new((), entry.after(json!({"mended": mended, "failed": failed, "scans": scans}))))
    };
    app.change(caller, "sftpgo.reconcile", note).await?;
    Ok(found)
}

/// Whose account is missing, differs or should be gone, once each.
fn to_repair(drift: &Drift) -> Vec<(MemberId, String)> {
    let differing = drift.differing.iter().filter(|(_, _, difference)| difference.field != USAGE);
    let all = drift.missing.iter().cloned().chain(differing.map(|(member, name, _)| (*member, name.clone())));
    let mut known = HashSet::new();
    all.chain(drift.orphaned.iter().cloned()).filter(|(_, name)| known.insert(name.clone())).collect()
}

/// Brings one account in line with what its rows say now.
async fn repair(app: &App, desired: &DesiredAccount) -> Result<Followed> {
    let mut turn = Connection::begin(app).await;
    let (inputs, name) = (DesiredStateInputs::from_app(app), desired.username.clone());
    let look = move |r: &Reader<'_>| match members::find_known(r, members::SFTPGO, &name)? {
        Some(member) => inputs.desired_account(r, &member, name).map(Some),
        None => Ok(None),
    };
    Ok(match app.read(look).await? {
        Some(desired) => bring_in_line(&mut turn, &desired).await,
        None => Ok(Some("the name is no member's any more")),
    })
}

/// Reconciles soon after the start, as a machine may not run for long, and then again and again until it is dropped.
pub async fn run(app: Arc<App>) {
    /// Events that waited for the start come first.
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
            Err(e) => tracing::warn!(error = %e, "SFTPGo's users could not be compared and will be later"),
        }
    }
}
