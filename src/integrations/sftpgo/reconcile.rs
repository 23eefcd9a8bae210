//! Compares all SFTPGo users with all members that have an SFTPGo username, because events can be lost and users can be
//! changed by hand.
//!
//! **Invariant.** Only accounts that belong or belonged to members are repaired. Other accounts are reported and left
//! unchanged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::account::{self, Account, DesiredAccount, DesiredStateInputs, Difference, USAGE, name_of};
use super::client::{ClientError, Connection};
use super::{Followed, bring_in_line, erase, require_configured};
use crate::features::members;
use crate::kernel::app::tasks::{Progress, TaskKind};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, Result};
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
    /// Why it ended early; what was done until then stays.
    pub stopped: Option<Error>,
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

/// The reconciliation as a task, which counts the accounts to repair.
pub const RECONCILE: TaskKind = TaskKind { operation: "reconcile_sftpgo", steps: &["accounts"] };

/// Compares users and members, and repairs the accounts of members. If it is cancelled, or its caller loses the right, it
/// stops between two accounts.
pub async fn reconcile(app: &Arc<App>, caller: &Identity, is_dry: bool, progress: &Progress) -> Result<Repaired> {
    progress.step(RECONCILE.steps[0]);
    // Nothing is changed before: a comparison can stop anywhere.
    let mut found = Repaired { drift: progress.unless_cancelled(compare(app)).await?, ..Repaired::default() };
    app.require_now(caller, Permission::SFTPGO_RECONCILE)?;
    let work = Work::of(&found.drift);
    if is_dry || work.is_empty() {
        return Ok(found);
    }
    progress.of(work.accounts.len() as u64);
    let mut closing = ClosingEntry::begin(app, caller, &work).await?;
    match run_work(app, caller, (work, progress), &mut found, &mut closing).await {
        Ok(outcome) => closing.write(outcome),
        Err(error) => {
            closing.write(error.code.as_str());
            found.stopped = Some(error);
        }
    }
    closing.end().await;
    Ok(found)
}

/// What a reconciliation changes outside.
struct Work {
    accounts: Vec<(MemberId, String)>,
    /// The accounts whose quota is scanned.
    scans: Vec<String>,
}

impl Work {
    fn of(drift: &Drift) -> Self {
        let drifted = drift.differing.iter().filter(|(_, _, difference)| difference.field == USAGE);
        let scans = drifted.take(SCANS_MAX).map(|(_, name, _)| name.clone()).collect();
        Self { accounts: to_repair(drift), scans }
    }

    fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.scans.is_empty()
    }
}

/// Returns how it ended, as the audit log says it; fails with what stops it. What was done is in `found`.
async fn run_work(
    app: &App,
    caller: &Identity,
    (work, progress): (Work, &Progress),
    found: &mut Repaired,
    closing: &mut ClosingEntry,
) -> Result<&'static str> {
    for (member, name) in work.accounts {
        if progress.is_cancelled() {
            return Ok("cancelled");
        }
        app.require_now(caller, Permission::SFTPGO_RECONCILE)?;
        progress.advance(1);
        closing.counts.begun += 1;
        let outcome = match found.drift.desired.get(&name) {
            Some(desired) => repair(app, desired).await?,
            None => erase(app, member, &name).await,
        };
        match outcome {
            Ok(None) => found.mended.push((member, name)),
            Ok(Some(_)) => {}
            Err(ClientError::Later { why, .. } | ClientError::Refused(why)) => {
                found.failed.push((member, name, app.outbound.secrets.hide(&why)));
            }
        }
        (closing.counts.mended, closing.counts.failed) = (found.mended.len(), found.failed.len());
    }
    for name in work.scans {
        if progress.is_cancelled() {
            return Ok("cancelled");
        }
        app.require_now(caller, Permission::SFTPGO_RECONCILE)?;
        match Connection::begin(app).await.scan(&name).await {
            Ok(is_begun) => found.scans += usize::from(is_begun),
            Err(ClientError::Later { why, .. } | ClientError::Refused(why)) => {
                let why = app.outbound.secrets.hide(&why);
                tracing::warn!(why, "SFTPGo did not start a quota scan for a user");
                break;
            }
        }
        closing.counts.scans = found.scans;
    }
    Ok("done")
}

const ACTION: &str = "sftpgo.reconcile";

/// What a reconciliation has changed outside so far.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Accounts whose repair began; one of them can be under way when the work is aborted.
    begun: usize,
    mended: usize,
    failed: usize,
    scans: usize,
}

/// The audit entry at the end of a reconciliation, which is written also if the work is dropped. The server writes it,
/// because the caller may have lost the right; both entries have the id of the caller's request.
struct ClosingEntry {
    app: Arc<App>,
    request_id: String,
    counts: Counts,
    /// Set once the entry is being written.
    end: Option<oneshot::Receiver<()>>,
}

impl ClosingEntry {
    /// Writes the entry at the beginning, in the name of the caller.
    async fn begin(app: &Arc<App>, caller: &Identity, work: &Work) -> Result<Self> {
        let planned = json!({"phase": "begin", "accounts": work.accounts.len(), "scans": work.scans.len()});
        let note = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::SFTPGO_RECONCILE)?;
            Ok(Changed::new((), Entry::new("sftpgo", "users").after(planned)))
        };
        app.change(caller, ACTION, note).await?;
        let request_id = caller.context.request_id.clone();
        Ok(Self { app: app.clone(), request_id, counts: Counts::default(), end: None })
    }

    fn write(&mut self, outcome: &'static str) {
        let Counts { begun, mended, failed, scans } = self.counts;
        let done = json!({"phase": "end", "outcome": outcome, "begun": begun, "mended": mended, "failed": failed,
            "scans": scans});
        let context = RequestContext::new(self.request_id.clone(), None, String::new());
        let (app, server) = (self.app.clone(), Identity::new(Principal::CommandLine, Arc::new(context)));
        self.end = Some(self.app.complete(async move {
            let entry = Entry::new("sftpgo", "users").after(done);
            let note = move |_: &Transaction<'_>, _: &Identity| Ok(Changed::new((), entry));
            if let Err(e) = app.change(&server, ACTION, note).await {
                tracing::error!(error = %e, "the end of a reconciliation could not be recorded");
            }
        }));
    }

    /// Waits until the entry is written.
    async fn end(mut self) {
        if let Some(end) = self.end.as_mut() {
            // It fails only if the writing panicked, which is logged.
            let _ = end.await;
        }
    }
}

impl Drop for ClosingEntry {
    fn drop(&mut self) {
        if self.end.is_none() {
            self.write("aborted");
        }
    }
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
        match reconcile(&app, &Identity::command_line(), false, &Progress::none()).await {
            Ok(Repaired { stopped: Some(e), .. }) => {
                tracing::warn!(error = %e, "the repair of SFTPGo's users ended early; retrying later");
            }
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
